"""The weighted engine gives what the plain functions give on the rows written out."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.covariance import ledoit_wolf

from synthgen.quality.sets.kernels import cosine_kernel, vendi_score
from synthgen.quality.sets.metrics import frechet_distance, spectral_kl
from synthgen.quality.sets.moments import RIDGE, divergences, frechet, moments, shrunk, vendi


@pytest.fixture(scope="module")
def sets() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(200, 5)) * [1, 2, 3, 0.1, 0.5], rng.normal(0.3, 1, size=(150, 5))


@pytest.fixture(scope="module")
def draws() -> tuple[np.ndarray, np.ndarray]:
    """Rows of three bootstrap draws, and the same as weights."""
    index = np.random.default_rng(1).integers(200, size=(3, 200))
    return index, np.stack([np.bincount(row, minlength=200) for row in index]).astype(float)


def test_frechet_and_divergences_equal_the_plain_ones(sets, draws) -> None:
    x, y = sets
    index, w = draws
    own, other = moments(x, w), moments(y)
    other3 = moments(y, np.ones((3, len(y))))
    there, back = divergences(own, other3)
    for r, rows in enumerate(index):
        assert frechet(own, other3)[r] == pytest.approx(frechet_distance(x[rows], y), rel=1e-7)
        assert (there[r], back[r]) == pytest.approx(spectral_kl(x[rows], y), rel=1e-9)
    assert frechet(moments(x), moments(x))[0] == pytest.approx(0, abs=1e-6)
    assert np.allclose(other.mean[0], y.mean(0))


def test_shrinkage_is_ledoit_wolf(sets) -> None:
    x, _ = sets
    assert np.allclose(shrunk(moments(x))[0], ledoit_wolf(x)[0] + RIDGE * np.eye(5), rtol=1e-10)


def test_reference_values() -> None:
    """N(0, diag(1..8)) against N(1, 4 diag(1..8)): 8 + sum(1..8) = 44; three points of MONAI's test: 0.4444."""
    draw = np.random.default_rng(0).normal(size=(4000, 8))
    draw = (draw - draw.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(draw.T))).T * np.sqrt(np.arange(1, 9))
    assert frechet(moments(draw), moments(1 + 2 * draw))[0] == pytest.approx(44.0, rel=1e-6)
    x, y = np.array([[1.0, 2.0]] * 3), np.array([[2.0, 2.0], [1.0, 2.0], [1.0, 2.0]])
    assert frechet(moments(x), moments(y))[0] == pytest.approx(0.4444, abs=1e-3)


def test_rows_with_nan_are_left_out(sets) -> None:
    x, _ = sets
    holes = x.copy()
    holes[::3] = np.nan
    kept = np.delete(x, np.s_[::3], axis=0)
    found, plain = moments(holes), moments(kept)
    assert np.allclose(found.covariance, plain.covariance) and found.count[0] == len(kept)


def test_vendi_equals_the_kernel_form(sets, draws) -> None:
    x, _ = sets
    index, w = draws
    assert vendi(x, w) == pytest.approx([vendi_score(cosine_kernel(x[rows])) for rows in index], rel=1e-9)
    assert vendi(np.eye(5))[0] == pytest.approx(5)
    assert vendi(np.ones((7, 3)))[0] == pytest.approx(1)
