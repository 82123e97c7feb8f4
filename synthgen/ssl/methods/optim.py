"""Optimiser, and the schedules of learning rate and weight decay."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from lightly.utils.scheduler import cosine_schedule
from torch import nn

from synthgen.science.schedules import warm_cosine

BETAS = (0.9, 0.95)  # the second below PyTorch's 0.999 because runs are short


def learning_rate(step: int, total: int, peak: float, warmup: float = 0.1, final: float = 0.01) -> float:
    """Linear warm-up, then a cosine.

    Args:
        step: 0 .. total-1. peak: highest rate. warmup: fraction of the steps in which it rises.
        final: rate of the last step, as a fraction of the peak.
    """
    return warm_cosine(step, round(warmup * total), total - 1, peak, final)


def weight_decay_at(step: int, total: int, start: float, end: float | None) -> float:
    """A cosine from `start` in the first step to `end` in the last (DINO: 0.04 to 0.4), or constant without an end."""
    return start if end is None else cosine_schedule(step, total, start, end)


def make_optimizer(
    parameters: Iterable[nn.Parameter], learning_rate: float = 1e-3, weight_decay: float = 0.05
) -> torch.optim.AdamW:
    """AdamW in two groups: matrices and convolution kernels decay; biases, norms and token tables do not.

    The kind is read off the number of axes: 2 or 4 for a matrix or a kernel, 1 for a bias, norm or layer scale, 3 for a
    transformer's class token and position table.
    """
    trained = [p for p in parameters if p.requires_grad]
    decayed = [p for p in trained if _decays(p)]
    spared = [p for p in trained if not _decays(p)]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": spared, "weight_decay": 0.0}]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=learning_rate, betas=BETAS)


def set_weight_decay(optimizer: torch.optim.Optimizer, value: float) -> None:
    """On matrices and kernels; what `make_optimizer` spared stays without."""
    for group in optimizer.param_groups:
        if _decays(group["params"][0]):
            group["weight_decay"] = value


def _decays(parameter: torch.Tensor) -> bool:
    return parameter.ndim in (2, 4)
