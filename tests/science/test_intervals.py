"""Clopper-Pearson: the quantiles of the beta distribution, and the whole range at none and all."""

import pytest
from scipy.stats import beta

from synthgen.science.intervals import exact_interval


@pytest.mark.parametrize(("hits", "n"), [(0, 50), (1, 20), (3, 50), (49, 50), (50, 50), (7, 2000)])
def test_interval_is_that_of_the_beta_distribution(hits, n):
    low = beta.ppf(0.025, hits, n - hits + 1) if hits else 0.0
    high = beta.ppf(0.975, hits + 1, n - hits) if hits < n else 1.0
    assert exact_interval(hits, n) == pytest.approx((low, high), rel=1e-9)


def test_shares_of_a_hundred_are_those_of_the_tables():
    """The published 95 % limits of none and of ten in 100 (Documenta Geigy)."""
    assert exact_interval(0, 100)[1] == pytest.approx(0.0362, abs=1e-4)
    assert exact_interval(10, 100) == pytest.approx((0.0490, 0.1762), abs=1e-4)
