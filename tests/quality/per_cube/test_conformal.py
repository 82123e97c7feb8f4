"""The conformal limit keeps its promise in finite samples, with the patient as the unit."""

from __future__ import annotations

import numpy as np
import pytest

from synthgen.quality.per_cube.conformal import lower_limit, needed_patients


def test_patients_needed() -> None:
    assert (needed_patients(0.05), needed_patients(0.01), needed_patients(0.1)) == (19, 99, 9)


@pytest.mark.parametrize(("n", "rank"), [(19, 1), (38, 1), (39, 2), (99, 5)])
def test_with_one_cube_each_it_is_an_order_statistic(n: int, rank: int) -> None:
    scores = np.random.default_rng(n).permutation(n).astype(float)
    assert lower_limit(scores, np.arange(n), 0.05) == rank - 1


def test_too_few_patients_certify_nothing() -> None:
    many_cubes = np.random.default_rng(0).normal(size=180)
    assert lower_limit(many_cubes, np.repeat(np.arange(18), 10), 0.05) is None
    assert lower_limit(many_cubes, np.repeat(np.arange(20), 9), 0.05) is not None


def test_fresh_cubes_are_rejected_at_most_at_alpha() -> None:
    """Patients of one to four strongly correlated cubes; the rate over many calibrations is at most, and near, 5 %."""
    rng = np.random.default_rng(0)

    def patients(n: int) -> tuple[np.ndarray, np.ndarray]:
        owner = np.repeat(np.arange(n), rng.integers(1, 5, n))
        return rng.normal(size=n)[owner] + 0.3 * rng.normal(size=len(owner)), owner

    rates = []
    for _ in range(400):
        limit = lower_limit(*patients(60), 0.05)
        scores, owner = patients(60)
        assert limit is not None
        rates.append(np.mean([(scores[owner == p] < limit).mean() for p in range(60)]))
    assert 0.03 < np.mean(rates) <= 0.05 + 2 * np.std(rates) / 20
