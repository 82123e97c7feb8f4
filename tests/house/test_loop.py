"""The clock of the loop's benchmark: what counts is the time that a run was let go on, not the time that passed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.speed.loop import BATCH, Stopwatch, compared


class Recorded(Stopwatch):
    """A run whose steps are known already: so many seconds each, stopped between slices."""

    def __init__(self, name: str, slices: list[tuple[float, float]], step: float):
        self.name, self.out, self.slices, self._made = name, Path("nowhere"), slices, []
        left = step
        for began, ended in slices:
            now = began
            while now + left <= ended:
                now += left
                self._made.append({"time": now, "samples_seen": BATCH * (len(self._made) + 1)})
                left = step
            left -= ended - now

    def lines(self):
        return [{"time": 0.0, "samples_seen": 0}, *self._made]  # one step before counting began


def slices(first: float, count: int = 12, seconds: float = 5.0, pause: float = 10.0) -> list[tuple[float, float]]:
    return [(first + k * (seconds + pause), first + k * (seconds + pause) + seconds) for k in range(count)]


def test_steps_are_stamped_by_the_time_that_a_run_was_let_go_on():
    clock = Recorded("0", slices(100.0), 1.7).clock()
    assert np.allclose(clock, 1.7 * np.arange(1, len(clock) + 1))


def test_ratios_are_those_of_the_steps():
    runs = [Recorded(name, slices(100.0 + 5 * k), step) for k, (name, step) in enumerate(
        {"0": 0.8, "0.5": 1.0, "0.5, decoded cache": 0.9}.items())]  # fmt: skip
    found = compared({run.name: run.clock() for run in runs}, 5.0)
    assert found["ratio_half_over_none"] == pytest.approx(0.8, abs=0.002)
    assert found["with_decoded_cache"] == pytest.approx(0.8 / 0.9, abs=0.002)
    assert found["samples_per_second"]["0.5"] == pytest.approx(BATCH / 1.0, abs=0.2)
    low, high = found["ratio_half_over_none, interval"]
    assert low <= 0.8 <= high and high - low < 0.01
