"""From counts and statistics to pass, fail or undecided; nothing passes for lack of data."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from synthgen.contracts import Status
from synthgen.quality.checks import (
    acceptance_checks,
    copying_check,
    copying_z,
    decide,
    memorization_check,
    needed_proposals,
    worst,
)
from synthgen.quality.per_cube.acceptance import AcceptanceCounts
from synthgen.quality.sets.null import Estimate


def counted(
    proposed: int, copies: int = 0, scores: list[float] | None = None, **strata: tuple[int, int]
) -> AcceptanceCounts:
    return AcceptanceCounts(proposed, proposed - copies, copies, Counter(), dict(strata), scores or [1.0] * proposed)


def copies(acceptance: AcceptanceCounts, limit: float | None = 0.6):
    return memorization_check(acceptance, 0.05, limit, None if limit is None else 0.3, 0.002, "too few patients")


def test_proposals_needed() -> None:
    assert (needed_proposals(0.01), needed_proposals(0.05)) == (2000, 500)


def test_copies() -> None:
    """At 5 %: few proposals stay undecided, many of the expected fraction pass, too many copies fail at any number."""
    assert copies(counted(499, 25)).status == Status.UNDECIDED
    assert copies(counted(500, 25)).status == Status.PASS
    assert copies(counted(500, 90)).status == Status.FAIL
    assert copies(counted(60, 20)).status == Status.FAIL
    assert copies(counted(500, 55)).status == Status.UNDECIDED
    assert copies(counted(500), None).status == Status.UNDECIDED
    assert copies(AcceptanceCounts()).status == Status.UNDECIDED


def test_a_few_near_certain_copies_fail_where_their_share_is_small() -> None:
    """Of 1,000 fresh cubes two lie nearer than every calibration cube; twelve that do are no accident."""
    few, many = ([0.1] * k + [1.0] * (1000 - k) for k in (2, 12))
    assert copies(counted(1000, 50, few)).status == Status.PASS
    check = copies(counted(1000, 50, many))
    assert check.status == Status.FAIL and "12 lie nearer" in check.reason


@pytest.mark.slow
def test_near_certain_copies_are_no_false_alarm_with_few_calibration_patients() -> None:
    """20 calibration patients, then 200 fresh cubes of the same distances: the nearest alone give at most 1 % alarms.

    A binomial at the expected fraction of 1 / 21 would give 17 %, for the limit is the least of only 20 distances.
    """
    rng, alarms, rounds = np.random.default_rng(0), 0, 4000
    for _ in range(rounds):
        strict, scores = rng.random(20).min(), rng.random(200)
        check = memorization_check(counted(200, 0, scores.tolist()), 0.05, 0.6, float(strict), 1 / 21, "")
        alarms += "lie nearer" in check.reason
    assert 0.002 < alarms / rounds < 0.012


def test_copying_is_c_t() -> None:
    rng = np.random.default_rng(0)
    unseen, made = rng.normal(1, 0.2, 80), rng.normal(0.8, 0.2, 60)
    check = copying_check(made, unseen)
    assert check.status == Status.FAIL
    assert copying_check(rng.normal(1, 0.2, 60), unseen).status == Status.PASS
    assert copying_check(made[:10], unseen).status == Status.UNDECIDED
    assert check.value == -copying_z(made, unseen)
    assert copying_check(made, unseen, 0.005).limit > check.limit + 0.5  # one of ten verdicts


def test_c_t_of_known_distances() -> None:
    """2 synthetic against 3 unseen cubes: U counts the pairs in which the synthetic one lies further off."""
    unseen, made = np.array([1.0, 3, 5]), np.array([2.0, 4])
    assert copying_z(made, unseen) == pytest.approx((1 + 2 - 3) / np.sqrt(3))
    assert copying_z(10 * made, unseen) == pytest.approx((6 - 3) / np.sqrt(3))
    assert copying_z(0 * made, unseen) == pytest.approx((0 - 3) / np.sqrt(3))


def test_c_t_of_fresh_cubes_is_standard_normal_and_of_copies_as_stated() -> None:
    """A fraction s of exact copies moves it by about -s sqrt(3 n / 2) at n = m."""
    rng = np.random.default_rng(4)
    fresh = [copying_z(rng.random(50), rng.random(40)) for _ in range(400)]
    assert abs(np.mean(fresh)) < 3 / np.sqrt(400) and np.std(fresh) == pytest.approx(1, abs=0.12)
    some = [copying_z(np.r_[np.zeros(30), rng.random(120)], rng.random(150)) for _ in range(60)]
    assert np.mean(some) == pytest.approx(-0.2 * np.sqrt(1.5 * 150), abs=3 / np.sqrt(60))


def test_strata_are_compared() -> None:
    """Dark eyes rejected twice as often as others are an alarm; a stratum of a few proposals is not."""
    even = counted(400, 0, None, **{"pigment: light": (200, 190), "pigment: dark": (200, 188)})
    even.accepted = 378
    assert [c.status for c in acceptance_checks(even)] == [Status.PASS, Status.PASS]
    uneven = counted(400, 0, None, **{"pigment: light": (200, 195), "pigment: dark": (200, 95)})
    uneven.accepted = 290
    overall, strata = acceptance_checks(uneven)
    assert overall.status == Status.PASS and strata.status == Status.FAIL and "pigment: dark" in strata.reason
    few = counted(10, 0, None, **{"pigment: light": (5, 5), "pigment: dark": (5, 0)})
    few.accepted = 5
    assert acceptance_checks(few)[1].status == Status.UNDECIDED
    none = counted(300, 300)
    assert acceptance_checks(none)[0].status == Status.FAIL


def test_three_outcomes() -> None:
    assert decide(Estimate(1, 0, 3), 2) == Status.PASS
    assert decide(Estimate(1, 0, 3), 2, whole=True) == Status.UNDECIDED
    assert decide(Estimate(2.5, 1.5, 3.5), 2) == Status.UNDECIDED
    assert decide(Estimate(4, 3, 5), 2) == Status.FAIL
    assert decide(Estimate(float("nan"), 0, 1), 2) == Status.UNDECIDED
    assert worst([Status.PASS, Status.ABSENT]) == Status.PASS
    assert worst([Status.PASS, Status.UNDECIDED, Status.FAIL]) == Status.FAIL


def test_tallies_add_up() -> None:
    a, b = counted(30, 2, **{"eye: disc left": (30, 28)}), counted(20, 1, **{"eye: disc left": (5, 5)})
    a.merge(b)
    assert (a.proposed, a.accepted, a.copies, len(a.scores)) == (50, 47, 3, 50)
    assert a.strata == {"eye: disc left": (35, 33)}
