"""How many samples of a batch are synthetic, and which real ones stand beside them: pure functions of the step.

Every rank computes the same counts, so the ratio is exact on each rank and in each batch, and a resumed run needs to
know nothing but its step.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor
from typing import Literal

import numpy as np

from synthgen.errors import ConfigError
from synthgen.science.epoch_order import rank_order


def as_ratio(value: float | str | Fraction) -> Fraction:
    """A ratio in [0, 1] as an exact fraction: 0.5, "1/3" and 0.25 mean what they say. ConfigError outside."""
    try:
        ratio = Fraction(str(value)).limit_denominator(10_000)
    except (ValueError, ZeroDivisionError):
        raise ConfigError("the synthetic ratio is not a number or a fraction", found=repr(value)) from None
    if not 0 <= ratio <= 1:
        raise ConfigError("the synthetic ratio is out of range", found=value, expected="0 to 1, such as 0.5 or 1/3")
    return ratio


Schedule = Literal["constant", "linear", "synthetic-first"]


@dataclass(frozen=True)
class Mix:
    """How the fraction of synthetic samples goes over a run; that of the whole run is `ratio` in every schedule.

    ratio: exact. batch: samples per rank and step. steps: of the run; only schedules that change need it.
    schedule: "constant"; "linear", falling from min(1, 2 ratio) to max(0, 2 ratio - 1); "synthetic-first", synthetic
    samples alone, then real ones alone (as RETFound-DE is pretrained, Nature Biomedical Engineering 2025).
    """

    ratio: Fraction
    batch: int
    schedule: Schedule = "constant"
    steps: int = 0

    def due(self, step: int) -> Fraction:
        """The fractions of synthetic samples in the steps before `step`, summed; exact, so that nothing drifts."""
        t, after = min(step, self.steps), max(step - self.steps, 0)
        if self.schedule == "constant" or not self.steps:
            return step * self.ratio
        if self.schedule == "synthetic-first":
            return min(Fraction(step), self.ratio * self.steps)
        first, last = self._ends()
        return first * t + (last - first) * Fraction(t * t, 2 * self.steps) + after * last

    def _ends(self) -> tuple[Fraction, Fraction]:
        return min(Fraction(1), 2 * self.ratio), max(Fraction(0), 2 * self.ratio - 1)

    def synthetic_before(self, step: int) -> int:
        """Synthetic samples that a rank has drawn before `step`."""
        return floor(self.batch * self.due(step))

    @property
    def most(self) -> int:
        """The most synthetic samples that one batch holds."""
        peak = {"constant": self.ratio, "linear": self._ends()[0], "synthetic-first": Fraction(self.ratio > 0)}
        return min(self.batch, ceil(self.batch * peak[self.schedule]))

    def synthetic_in(self, step: int) -> int:
        return self.synthetic_before(step + 1) - self.synthetic_before(step)

    def real_before(self, step: int) -> int:
        return step * self.batch - self.synthetic_before(step)

    def real_in(self, step: int) -> int:
        return self.batch - self.synthetic_in(step)


def crossing(mix: Mix, fraction: Fraction, step: int) -> int:
    """How many of the real cubes of `step` show a variant in their second view: `fraction` of all, evenly."""
    before = lambda s: floor(mix.real_before(s) * fraction)
    return before(step + 1) - before(step)


def real_indices(mix: Mix, step: int, count: int, seed: int, rank: int = 0, world: int = 1) -> np.ndarray:
    """Which real cubes rank `rank` draws in `step`: int64 [mix.real_in(step)], positions in 0..count-1.

    All ranks together walk through one permutation after another of the `count` cubes, the permutation of an epoch
    keyed by (seed, epoch); a step takes the next world * real_in(step) places and gives them to the ranks in order.
    """
    return rank_order(count, mix.real_before(step), mix.real_in(step), seed, "real", rank=rank, world=world)
