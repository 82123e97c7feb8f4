"""The loop's steps: none is longer than `clip` says, and in half precision they point where they did."""

import pytest
import torch
from accelerate.state import AcceleratorState
from torch.optim.optimizer import register_optimizer_step_pre_hook

from synthgen.config import build
from synthgen.integration.options import Pretraining
from synthgen.integration.pretrain import pretrain
from synthgen.runs.folder import read_metrics


@pytest.fixture
def gradients(cohort, tmp_path):
    """Run a real-only pretraining; the gradient of each step as the optimiser gets it, and the logged norms."""

    def run(name, **more):
        AcceleratorState._reset_state(reset_partial_state=True)  # one process keeps its first precision otherwise
        values = {
            "data": str(cohort.path), "out": str(tmp_path / name), "synthetic_ratio": "0", "batch_size": 8, "steps": 3,
            "backbone": "test_vit", "log_every": 1, "monitor_every": 0, "dino": {"freeze_steps": 0, "output_dim": 64},
        }  # fmt: skip
        steps = []

        def keep(optimizer, *_):
            made = [
                p.grad.reshape(-1) for group in optimizer.param_groups for p in group["params"] if p.grad is not None
            ]
            steps.append(torch.cat(made).clone())

        handle = register_optimizer_step_pre_hook(keep)
        try:
            folder = pretrain(build(Pretraining, values | more))
        finally:
            handle.remove()
            AcceleratorState._reset_state(reset_partial_state=True)
        return steps, [line["gradient_norm"] for line in read_metrics(folder) if "gradient_norm" in line]

    return run


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_step_is_clipped_to_the_norm_that_was_asked_for(gradients, accumulate):
    free, logged = gradients("free", accumulate=accumulate, clip=1e6)
    norms = [float(step.norm()) for step in free]
    assert norms == pytest.approx(logged, rel=1e-4), "the metrics hold the norm before clipping"
    clip = min(norms) / 10
    held, logged = gradients("held", accumulate=accumulate, clip=clip)
    assert [float(step.norm()) for step in held] == pytest.approx([clip] * 3, rel=1e-3)
    assert min(logged) > clip and torch.cosine_similarity(held[0], free[0], dim=0) > 0.9999


@pytest.mark.slow
@pytest.mark.parametrize("method", ["simclr", "dino"])
def test_half_precision_steps_where_full_precision_does(gradients, method):
    """The first step of the loop, whole and in parts; with autocast gone it would be the same to a millionth."""
    (exact, *_), _ = gradients("fp32", method=method, precision="fp32")
    for accumulate in (1, 2):
        (found, *_), _ = gradients(f"bf16-{accumulate}", method=method, precision="bf16", accumulate=accumulate)
        assert found.dtype == torch.float32 and (found - exact).norm() > 1e-3 * exact.norm()
        assert torch.cosine_similarity(found, exact, dim=0) > 0.98
