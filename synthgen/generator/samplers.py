"""Samplers of a rectified flow: pure functions of one signature (velocity, x, times, clock) -> x.

velocity(x, t) is dx/dc for a state x [N, S] at time t (a float); times fall from 1 (noise) to 0 (data). c = clock(t) is
what steps are measured by: the time itself, or an angle for every number of the state (`Flow.angle`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Annotated, Literal, Protocol

import torch
from pydantic import Field
from torch import Tensor

from synthgen.errors import ConfigError

Seed = Annotated[int, Field(description="of the sampling: another seed, other synthetic cubes")]
SamplerSteps = Annotated[int, Field(ge=1, description="steps of the sampler")]
SamplerName = Annotated[Literal["euler", "heun", "ab2"], Field(description="ODE solver of the generator")]
Velocity = Callable[[Tensor, float], Tensor]
Clock = Callable[[float], Tensor | float]


class Sampler(Protocol):
    def __call__(self, velocity: Velocity, x: Tensor, times: Sequence[float], clock: Clock = float) -> Tensor: ...


def euler(velocity: Velocity, x: Tensor, times: Sequence[float], clock: Clock = float) -> Tensor:
    """One evaluation a step, first order."""
    for t, after in itertools.pairwise(times):
        x = x + (clock(after) - clock(t)) * velocity(x, t)
    return x


def heun(velocity: Velocity, x: Tensor, times: Sequence[float], clock: Clock = float) -> Tensor:
    """Two evaluations a step, second order (Karras et al. 2022, algorithm 1 without churn)."""
    for t, after in itertools.pairwise(times):
        step, slope = clock(after) - clock(t), velocity(x, t)
        ahead = velocity(x + step * slope, after)
        x = x + step * (slope + ahead) / 2
    return x


def ab2(velocity: Velocity, x: Tensor, times: Sequence[float], clock: Clock = float) -> Tensor:
    """Adams-Bashforth with two points: one evaluation a step, second order after the first (Euler) step.

    With steps h' (the last) and h: x += h ((1 + r/2) v - (r/2) v'), r = h / h'.
    """
    last, last_step = None, None
    for t, after in itertools.pairwise(times):
        step, slope = clock(after) - clock(t), velocity(x, t)
        if last is None or last_step is None:
            x = x + step * slope
        else:
            half = (_ratio(step, last_step) if isinstance(last_step, Tensor) else step / last_step) / 2
            x = x + step * ((1 + half) * slope - half * last)
        last, last_step = slope, step
    return x


def _ratio(step: Tensor | float, last: Tensor) -> Tensor:
    """step / last, 0 where a number did not move: it has come to its end before the others."""
    return torch.where(last != 0, step / torch.where(last != 0, last, 1.0), 0.0)


SAMPLERS: dict[str, Sampler] = {"euler": euler, "heun": heun, "ab2": ab2}


def pick_sampler(name: str) -> Sampler:
    """The sampler of this name; ConfigError names the known ones."""
    if name not in SAMPLERS:
        raise ConfigError("unknown sampler", found=repr(name), expected=" or ".join(SAMPLERS))
    return SAMPLERS[name]


def time_grid(steps: int, shift: float = 1.0, start: float = 1.0) -> list[float]:
    """steps + 1 times from `start` to 0, shifted by t' = s t / (1 + (s - 1) t) (Esser et al. 2024, eq. 23; s > 1 for
    larger cubes spends more steps near the noise). ConfigError when steps < 1 or start is not in (0, 1].
    """
    if steps < 1:
        raise ConfigError("a sampler needs at least one step", found=steps)
    if not 0 < start <= 1:
        raise ConfigError("sampling starts at a time in (0, 1]", found=start)
    first = start / (shift - (shift - 1) * start)  # what is shifted to `start`
    return [shift_time(first * (1 - k / steps), shift) for k in range(steps + 1)]


def shift_time(t: float, shift: float) -> float:
    return shift * t / (1 + (shift - 1) * t)
