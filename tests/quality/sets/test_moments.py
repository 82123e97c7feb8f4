"""Weights stand for rows written out; distances and divergences of Gaussians are those of their closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.covariance import ledoit_wolf
from torch.distributions import MultivariateNormal, kl_divergence

from synthgen.quality.sets.moments import RIDGE, divergences, frechet, frechet_distance, moments, shrunk, vendi


@pytest.fixture(scope="module")
def sets() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(200, 5)) * [1, 2, 3, 0.1, 0.5], rng.normal(0.3, 1, size=(150, 5))


@pytest.fixture(scope="module")
def draws() -> tuple[np.ndarray, np.ndarray]:
    """Rows of three bootstrap draws, and the same as weights."""
    index = np.random.default_rng(1).integers(200, size=(3, 200))
    return index, np.stack([np.bincount(row, minlength=200) for row in index]).astype(float)


def kl(x: np.ndarray, y: np.ndarray) -> float:
    """KL(x || y) by torch, of Gaussians with scikit-learn's Ledoit-Wolf covariances."""
    p, q = (
        MultivariateNormal(torch.from_numpy(s.mean(0)), torch.from_numpy(ledoit_wolf(s)[0] + RIDGE * np.eye(5)))
        for s in (x, y)
    )
    return float(kl_divergence(p, q))


def closed_form(x: np.ndarray, y: np.ndarray) -> float:
    """Dowson & Landau 1982, with the root of the product of the covariances from its eigenvalues."""
    a, b, shift = np.cov(x.T), np.cov(y.T), x.mean(0) - y.mean(0)
    root = np.sqrt(np.linalg.eigvals(a @ b).real.clip(min=0)).sum()
    return float(shift @ shift + np.trace(a) + np.trace(b) - 2 * root)


def test_distances_and_divergences_equal_their_closed_forms(sets, draws) -> None:
    x, y = sets
    index, w = draws
    own, other = moments(x, w), moments(y, np.ones((3, len(y))))
    there, back = divergences(own, other)
    for r, rows in enumerate(index):
        assert frechet(own, other)[r] == pytest.approx(closed_form(x[rows], y), rel=1e-7)
        assert (there[r], back[r]) == pytest.approx((kl(x[rows], y), kl(y, x[rows])), rel=1e-9)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(x, y) == pytest.approx(frechet_distance(y, x), rel=1e-6)


def test_frechet_distance_of_singular_covariances() -> None:
    """The ridge that keeps their Cholesky factor costs less than 1e-5 of the distance."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 48)), rng.normal(0.3, 1.5, size=(27, 48))
    assert frechet_distance(x, y) == pytest.approx(closed_form(x, y), rel=1e-5)


def test_divergences_tell_lost_modes_from_implausible_ones() -> None:
    real = np.random.default_rng(0).normal(size=(400, 2))
    for factor, one in ((0.4, 0), (2.5, 1)):
        found = divergences(moments(real), moments(factor * real))
        assert found[one][0] > 3 * found[1 - one][0] > 0


def test_the_null_of_a_divergence_follows_theory() -> None:
    """Two samples of one law: mean p/(2n) + p/(2m), p = d + d(d+1)/2; at d = 1, where nothing is shrunk, 2/n."""
    rng = np.random.default_rng(0)
    values = [divergences(*map(moments, rng.normal(size=(2, 100, 1))))[0][0] for _ in range(1000)]
    assert np.mean(values) == pytest.approx(2 / 100, rel=0.12)


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


def entropy_of_the_kernel(x: np.ndarray) -> float:
    """Friedman & Dieng 2023, equation 1, from the n x n cosine kernel."""
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    p = np.linalg.eigvalsh(unit @ unit.T / len(x))
    p = p[p > 0]
    return float(np.exp(-(p * np.log(p)).sum()))


def test_vendi_is_the_entropy_of_the_cosine_kernel(sets, draws) -> None:
    x, _ = sets
    index, w = draws
    assert vendi(x, w) == pytest.approx([entropy_of_the_kernel(x[rows]) for rows in index], rel=1e-9)
    assert vendi(np.eye(5))[0] == pytest.approx(5)
    assert vendi(np.ones((7, 3)))[0] == pytest.approx(1)


def test_vendi_counts_the_modes_of_a_set() -> None:
    rng = np.random.default_rng(0)
    x = np.eye(6)[rng.permutation(60) % 6] * 10 + 0.01 * rng.normal(size=(60, 6))
    assert vendi(x)[0] == pytest.approx(6, rel=0.01)
    assert vendi(np.concatenate([x, x]))[0] == pytest.approx(vendi(x)[0], rel=1e-9)
