"""Per-band Wasserstein-1 distance of region spectra, in units of reflectance."""

from __future__ import annotations

import numpy as np
import pytest

from synthgen.quality.sets.metrics import band_wasserstein


def test_a_shift_of_one_band_is_its_distance_in_reflectance() -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(0.1, 0.3, size=(50, 3))
    assert band_wasserstein(x, x[::-1]) == pytest.approx(np.zeros(3), abs=1e-15)
    assert band_wasserstein(x, x + np.array([0, 0.02, -0.05])) == pytest.approx([0, 0.02, 0.05], abs=1e-12)


def test_equal_means_with_another_scale_differ() -> None:
    """|x - cx| for a scale of c about the mean: (c - 1) times the mean absolute deviation."""
    x = np.random.default_rng(1).normal(size=(400, 1))
    x -= x.mean()
    assert band_wasserstein(x, 1.5 * x)[0] == pytest.approx(0.5 * np.abs(x).mean(), rel=1e-9)


def test_cubes_without_the_region_are_left_out() -> None:
    x, y = np.array([[0.1, 0.2], [np.nan, np.nan], [0.3, 0.4]]), np.array([[0.1, 0.3], [0.3, 0.5]])
    assert band_wasserstein(x, y) == pytest.approx([0, 0.1])
    assert np.isnan(band_wasserstein(x[1:2], y)).all()


def test_null_value_of_one_law() -> None:
    """1.82 sd / sqrt(n) for two samples of n Gaussian values; in the limit of large n."""
    rng = np.random.default_rng(2)
    values = band_wasserstein(rng.normal(0, 0.04, size=(300, 400)), rng.normal(0, 0.04, size=(300, 400)))
    assert values.mean() == pytest.approx(1.82 * 0.04 / np.sqrt(300), rel=0.07)
