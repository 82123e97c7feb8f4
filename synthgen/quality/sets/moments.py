"""Means and covariances of weighted sets, many weightings at once, and the distances of Gaussians made of them.

Every resample of a set (a subset, a bootstrap draw of patients) is a weighting of the same rows, so the statistics take
weights [R, n] and give [R] values. Symbols: x [n, d] features, w [R, n] how often each row counts.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

RIDGE = 1e-6  # of variance: 0.1 % of reflectance where features are its logarithms; equal rows keep a finite divergence


class Moments(NamedTuple):
    """mean [R, d], covariance [R, d, d] (unbiased), count [R]: the weight behind them, shrinkage [R] of Ledoit-Wolf."""

    mean: Array
    covariance: Array
    count: Array
    shrinkage: Array


def moments(x: Array, w: Array | None = None) -> Moments:
    """Moments of x [n, d] under weights w [R, n] (ones, R = 1, if not given). Rows with NaN are left out."""
    x = np.asarray(x, np.float64)
    w = np.ones((1, len(x))) if w is None else np.asarray(w, np.float64)
    there = ~np.isnan(x).any(1)
    x, w = x[there], w[:, there]
    count = w.sum(1)
    p = w / np.maximum(count, 1e-12)[:, None]
    mean = p @ x
    second = np.stack([(x * row[:, None]).T @ x for row in p]) if len(p) else np.zeros((0, *2 * (x.shape[1],)))
    biased = second - mean[:, :, None] * mean[:, None, :]
    # sum over rows of |x - mean|^4, for the shrinkage
    square = np.square(x).sum(1)[None] - 2 * mean @ x.T + np.square(mean).sum(1)[:, None]
    fourth = (p * np.square(square)).sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        unbiased = biased * np.where(count > 1, count / (count - 1), np.nan)[:, None, None]
        shrinkage = _shrinkage(biased, fourth, count)
    return Moments(mean, unbiased, count, shrinkage)


def _shrinkage(covariance: Array, fourth: Array, count: Array) -> Array:
    """Fraction of the scaled identity in the best convex combination (Ledoit & Wolf 2004, lemma 3.3-3.4)."""
    d = covariance.shape[-1]
    if d == 1:
        return np.zeros(len(covariance))
    mean_variance = np.trace(covariance, axis1=1, axis2=2) / d
    energy = np.square(covariance).sum((1, 2))
    away = energy / d - np.square(mean_variance)
    error = (fourth - energy) / (d * count)
    return np.where(away > 0, np.clip(error / np.maximum(away, 1e-300), 0, 1), 1.0)


def shrunk(m: Moments) -> Array:
    """Ledoit-Wolf covariances [R, d, d] with a ridge; equal to scikit-learn's on unweighted rows."""
    d = m.covariance.shape[-1]
    covariance = m.covariance * ((m.count - 1) / np.maximum(m.count, 1))[:, None, None]
    target = np.trace(covariance, axis1=1, axis2=2)[:, None, None] / d * np.eye(d)
    s = m.shrinkage[:, None, None]
    return (1 - s) * covariance + s * target + RIDGE * np.eye(d)


def frechet(x: Moments, y: Moments) -> Array:
    """Frechet distances [R] (Dowson & Landau 1982): |mu_x - mu_y|^2 + tr S_x + tr S_y - 2 tr (S_x S_y)^(1/2).

    The last trace is the sum of the roots of the eigenvalues of L' S_y L with S_x = L L'.
    """
    d = x.covariance.shape[-1]
    root = np.linalg.cholesky(
        x.covariance + 1e-9 * (1 + np.trace(x.covariance, axis1=1, axis2=2))[:, None, None] * np.eye(d) / d
    )
    inner = np.swapaxes(root, 1, 2) @ y.covariance @ root
    cross = np.sqrt(np.linalg.eigvalsh((inner + np.swapaxes(inner, 1, 2)) / 2).clip(min=0)).sum(1)
    traces = np.trace(x.covariance, axis1=1, axis2=2) + np.trace(y.covariance, axis1=1, axis2=2)
    return np.maximum(np.square(x.mean - y.mean).sum(1) + traces - 2 * cross, 0)


def frechet_distance(x: Array, y: Array) -> float:
    """Frechet distance of the Gaussians fitted to two sets of features [n, d] and [m, d]."""
    return float(frechet(moments(x), moments(y))[0])


def divergences(x: Moments, y: Moments) -> tuple[Array, Array]:
    """KL(x || y) and KL(y || x) [R] in nats, of Gaussians with Ledoit-Wolf covariances."""
    a, b = shrunk(x), shrunk(y)
    inverse_a, inverse_b = np.linalg.inv(a), np.linalg.inv(b)
    with np.errstate(invalid="ignore"):  # of a set that holds no row of a structure
        log_ratio = np.linalg.slogdet(b)[1] - np.linalg.slogdet(a)[1]
    shift = y.mean - x.mean
    d = shift.shape[1]

    def one_way(p: Array, q_inverse: NDArray[np.floating], log_q_over_p: NDArray[np.floating]) -> Array:
        trace = np.einsum("rij,rji->r", q_inverse, p)
        return (trace + np.einsum("ri,rij,rj->r", shift, q_inverse, shift) - d + log_q_over_p) / 2

    return one_way(a, inverse_b, log_ratio), one_way(b, inverse_a, -log_ratio)


def vendi(x: Array, w: Array | None = None) -> Array:
    """Vendi scores [R] (Friedman & Dieng 2023, eq. 1) of the cosine kernel of x [n, d] under weights.

    The eigenvalues of the kernel of n unit vectors over n are those of their d x d second moment, which is smaller.
    """
    unit = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    w = np.ones((1, len(x))) if w is None else w
    p = w / w.sum(1, keepdims=True)
    values = np.linalg.eigvalsh(np.stack([(unit * row[:, None]).T @ unit for row in p])).clip(min=1e-300)
    return np.exp(-(values * np.log(values)).sum(1))
