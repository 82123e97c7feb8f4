"""Learning-rate schedules: pure functions of the step, so a resumed run needs no scheduler state.

Each gives a factor on the peak rate; those of the trainings are products of these.
"""

from __future__ import annotations

import math

import torch


def warm_up(step: int, steps: float, peak: float = 1.0) -> float:
    """Linear rise to `peak`, reached after `steps` steps (Goyal et al. 2017, section 2.2); step counts from 0."""
    steps = max(steps, 1)
    return peak * min(step + 1, steps) / steps


def cosine(done: float, floor: float = 0.0) -> float:
    """Half a cosine from 1 to `floor` as `done` goes from 0 to 1 (Loshchilov & Hutter 2017, equation 5, no restart)."""
    return floor + (1 - floor) * (1 + math.cos(math.pi * min(done, 1.0))) / 2


def polynomial(done: float, power: float, floor: float = 0.0) -> float:
    """(1 - done)^power from 1 down to `floor`: the "poly" policy of segmentation (Liu et al. 2015, ParseNet)."""
    return floor + (1 - floor) * (1 - done) ** power


def warm_cosine(step: int, rising: int, last: int, peak: float = 1.0, floor: float = 0.0) -> float:
    """`warm_up` over `rising` steps, then a `cosine` that is at floor x peak in step `last`."""
    if step < rising:
        return warm_up(step, rising, peak)
    return peak * cosine((step - rising) / max(1, last - rising), floor)


def set_learning_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    """For every group of weights, times the group's own `rate` if it has one."""
    for group in optimizer.param_groups:
        group["lr"] = value * group.get("rate", 1.0)
