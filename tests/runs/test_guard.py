"""The guard of the optimiser's steps, and the check before weights are written."""

import math
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from synthgen.errors import NonFiniteError
from synthgen.runs.checkpoint import Checkpoints
from synthgen.runs.guard import OFTEN_FROM, SCALER_PATIENCE, StepGuard
from synthgen.runs.state import load_state, save_state, write_tensors, write_values

NAN = float("nan")


@pytest.fixture
def net():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 1))


def steps(net, factors, **more):
    """One step for each factor on the loss; the guard, and which steps were made."""
    guard = StepGuard("the net", torch.optim.AdamW(net.parameters(), 1e-2), [net], **more)
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(1))
    return guard, [guard(k, net(x).square().mean() * f).made for k, f in enumerate(factors)]


def state(net):
    return {k: v.clone() for k, v in net.state_dict().items() if v.is_floating_point()}


def test_a_step_that_is_left_out_changes_nothing_and_three_running_end_it(net, capsys):
    guard, made = steps(net, [1, NAN, math.inf, 1])
    assert made == [True, False, False, True] and guard.skipped == 2
    assert capsys.readouterr().err.count("is left out") == 2
    weights = [p.clone() for p in net.parameters()]
    with pytest.raises(NonFiniteError, match="not finite in 3 steps running, the last one step 3") as caught:
        steps(net, [NAN] * 3)
    assert all(torch.equal(a, b) for a, b in zip(weights, net.parameters(), strict=True))
    assert "checkpoint" not in str(caught.value) and "lower --learning-rate" in str(caught.value)


def test_clipping_is_what_it_was(net):
    """With and without a largest norm, the weights are those of the plain loop, bit for bit."""
    import copy

    for clip in (None, 0.05):
        one, two = copy.deepcopy(net), copy.deepcopy(net)
        steps(one, [1.0] * 3, clip=clip)
        optimizer = torch.optim.AdamW(two.parameters(), 1e-2)
        x = torch.randn(8, 3, generator=torch.Generator().manual_seed(1))
        for _ in range(3):
            optimizer.zero_grad()
            two(x).square().mean().backward()
            if clip:
                torch.nn.utils.clip_grad_norm_(two.parameters(), clip)
            optimizer.step()
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_one_step_in_ten_is_too_many(net):
    with pytest.raises(NonFiniteError, match=f"{OFTEN_FROM} of 37 steps"):
        steps(net, [NAN if k % 4 == 0 else 1 for k in range(200)])


def test_values_in_the_network_itself_end_it_at_once(net):
    guard = StepGuard("the net", torch.optim.AdamW(net.parameters()), [net])
    with pytest.raises(NonFiniteError, match=r"forward pass of step 6 left values .* 0\.1\.running_mean and 1 more"):
        guard(5, net(torch.full((8, 3), NAN)).mean())


def test_the_scaler_of_fp16_leaves_steps_out_by_design(net, capsys):
    accelerator = SimpleNamespace(
        scaler=object(), mixed_precision="fp16", is_main_process=True,
        backward=lambda loss: loss.backward(), reduce=lambda value, _: value,
        clip_grad_norm_=torch.nn.utils.clip_grad_norm_,
    )  # fmt: skip
    optimizer = SimpleNamespace(zero_grad=lambda **_: net.zero_grad(), step=lambda: asked.append(1))
    guard, asked = StepGuard("the net", optimizer, [net], clip=1.0, accelerator=accelerator), []
    bad = lambda k: guard(k, net(torch.ones(4, 3)).mean() * math.inf)
    for k in range(SCALER_PATIENCE - 1):
        bad(k)
    assert len(asked) == SCALER_PATIENCE - 1, "the scaler is asked, and takes a smaller factor"
    assert capsys.readouterr().err == ""
    with pytest.raises(NonFiniteError, match=r"computed in fp16\. Begin again with --precision fp32"):
        bad(SCALER_PATIENCE)


def test_no_checkpoint_and_no_file_of_weights_that_are_not_finite(net, tmp_path):
    store = Checkpoints(tmp_path)
    store.save(1, {"net": net.state_dict(), "best_loss": math.inf}, {"missing": torch.tensor([NAN])})
    assert store.load().shared["best_loss"] == math.inf and store.load().own[0]["missing"].isnan()
    with torch.no_grad():
        net[2].weight[0, 0] = NAN
    with pytest.raises(NonFiniteError, match=r"state after step 2 .* net.2.weight\. The checkpoint of step 1 is kept"):
        store.save(2, {"net": net.state_dict()})
    assert store.steps() == [1]
    with pytest.raises(NonFiniteError, match=r"NaN or infinity in 2\.weight"):
        write_tensors(tmp_path / "w.safetensors", net.state_dict())
    assert not (tmp_path / "w.safetensors").exists()
    write_values(tmp_path / "v.safetensors", net.state_dict())
    assert load_file(tmp_path / "v.safetensors")["2.weight"].isnan().any()


def test_numbers_that_json_does_not_have_come_back(tmp_path):
    save_state(tmp_path / "s", {"a": (math.inf, -math.inf, 1.5), "b": NAN})
    back = load_state(tmp_path / "s")
    assert back["a"] == (math.inf, -math.inf, 1.5) and math.isnan(back["b"])
