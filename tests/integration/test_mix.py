"""The mix is exact at every step, on every rank, for every ratio."""

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthgen.errors import ConfigError
from synthgen.integration.mix import Mix, as_ratio, real_indices


@pytest.mark.parametrize("ratio", ["0", "1/3", "0.5", "1"])
def test_counts_are_exact(ratio):
    mix = Mix(as_ratio(ratio), 32)
    seen = 0
    for step in range(300):
        assert mix.synthetic_in(step) + mix.real_in(step) == 32
        assert mix.synthetic_before(step) == seen
        seen += mix.synthetic_in(step)
        assert abs(seen - (step + 1) * 32 * mix.ratio) < 1, "never a whole sample away from the ratio"
    assert mix.synthetic_before(300) == 300 * 32 * mix.ratio


@pytest.mark.parametrize("schedule", ["constant", "linear", "synthetic-first"])
@pytest.mark.parametrize("ratio", ["0", "1/4", "0.5", "0.7", "1"])
def test_every_schedule_ends_at_the_ratio(ratio, schedule):
    steps, batch = 120, 20
    mix = Mix(as_ratio(ratio), batch, schedule, steps)
    counts = [mix.synthetic_in(s) for s in range(steps)]
    assert sum(counts) == mix.synthetic_before(steps) == steps * batch * mix.ratio
    assert min(counts) >= 0 and max(counts) == mix.most <= batch
    if schedule == "linear":
        smooth = [sum(counts[i : i + 10]) for i in range(0, steps, 10)]
        assert smooth == sorted(smooth, reverse=True)
        assert abs(counts[0] - batch * min(1, 2 * mix.ratio)) <= 1
        assert abs(counts[-1] - batch * max(0, 2 * mix.ratio - 1)) <= 1
    if schedule == "synthetic-first":
        assert counts == sorted(counts, reverse=True) and set(counts[: int(steps * mix.ratio)]) <= {batch}


def test_half_is_half_of_every_batch():
    mix = Mix(as_ratio(0.5), 64)
    assert {mix.synthetic_in(s) for s in range(100)} == {32}


@given(st.integers(0, 40), st.integers(1, 40), st.integers(2, 65), st.integers(0, 10**6))
@settings(max_examples=200, deadline=None)
def test_any_ratio_any_step(numerator, denominator, batch, step):
    schedule = ("constant", "linear", "synthetic-first")[step % 3]
    mix = Mix(Fraction(min(numerator, denominator), denominator), batch, schedule, 1 + step % 977)
    assert 0 <= mix.synthetic_in(step) <= batch
    assert mix.synthetic_before(step + 1) - mix.synthetic_before(step) == mix.synthetic_in(step)


def test_an_epoch_shows_each_real_cube_once():
    mix, count = Mix(as_ratio(0.5), 10), 25
    seen = np.concatenate([real_indices(mix, s, count, seed=3) for s in range(10)])  # 50 places, two epochs
    assert Counter(seen[:25]) == Counter(range(25)) == Counter(seen[25:])
    assert list(seen[:25]) != list(seen[25:])


def test_two_ranks_see_what_one_sees():
    one, two = Mix(as_ratio(0.5), 16), Mix(as_ratio(0.5), 8)
    for step in range(20):
        alone = real_indices(one, step, 30, seed=1)
        together = np.concatenate([real_indices(two, step, 30, 1, rank, 2) for rank in range(2)])
        assert list(alone) == list(together)


@pytest.mark.parametrize("bad", ["1.5", "-0.1", "many", "1/0", "nan"])
def test_bad_ratios(bad):
    with pytest.raises(ConfigError):
        as_ratio(bad)
