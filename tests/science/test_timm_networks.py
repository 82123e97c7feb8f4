"""timm networks: seeded without touching the global stream, frozen for good, exact in what is stored."""

import pytest
import torch

from synthgen.science.timm_networks import Frozen, rounded, seeded_network, stored, timm_network


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_seeded_weights_leave_the_global_stream_alone(name):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one, two = seeded_network(name, 5, 7, seed=1), seeded_network(name, 5, 7, seed=1)
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(next(one.parameters()), next(seeded_network(name, 5, 7, seed=2).parameters()))
    assert one.eval()(torch.rand(2, 5, 48, 48)).shape == (2, 7)  # other than the 160 pixels that it was made for


def test_a_frozen_network_does_not_train():
    frozen = Frozen(timm_network("test_resnet", 3))
    frozen.train()
    assert not any(m.training for m in frozen.modules())
    assert not any(p.requires_grad for p in frozen.parameters())


def test_what_is_stored_is_what_is_computed_with():
    network = seeded_network("test_resnet", 4, 3)
    with torch.no_grad():
        network.get_buffer("bn1.running_var").fill_(1e-9)  # half precision would make it 0
    network = rounded(network)
    again = seeded_network("test_resnet", 4, 3, seed=9)
    again.load_state_dict(stored(network))
    x = torch.rand(2, 4, 32, 32)
    assert torch.equal(network.eval()(x), again.eval()(x))
    kept = stored(network)
    assert kept["bn1.running_var"].dtype == torch.float32
    assert {t.dtype for t in kept.values() if t.ndim > 1} == {torch.float16}
