"""Statistics of sets of cubes that no weighting is asked of: spectra band by band, likeness pair by pair."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import wasserstein_distance

from synthgen.science.bootstrap import draw_counts

Array = NDArray[np.float64]


def band_wasserstein(x: Array, y: Array) -> Array:
    """Wasserstein-1 distance per band [C], in units of reflectance, of region mean spectra x [n, C] and y [m, C].

    Give reflectance, not its logarithm; rows with NaN (region absent) are left out, and NaN is returned when none is
    left. Null value: not 0 but, between two samples of n of one law with distribution function F, on average
    sqrt(4 / (pi n)) times the integral of sqrt(F (1 - F)): 1.82 sd / sqrt(n) for a Gaussian.
    """
    x, y = (np.asarray(s, np.float64) for s in (x, y))
    x, y = x[~np.isnan(x).any(1)], y[~np.isnan(y).any(1)]
    if not (len(x) and len(y)):
        return np.full(x.shape[1], np.nan)
    return np.array([wasserstein_distance(a, b) for a, b in zip(x.T, y.T, strict=True)])


def mean_pairwise(similarity: Array, weights: Array | None = None) -> float:
    """Mean over pairs of different images of a symmetric [k, k]; `weights` [k]: how often each image counts."""
    k = len(similarity)
    weights = np.ones(k) if weights is None else weights
    off_diagonal = 1 - np.eye(k)
    return float(weights @ (similarity * off_diagonal) @ weights / (weights @ off_diagonal @ weights))


def bootstrap_pairwise(similarity: Array, rng: np.random.Generator, repeats: int = 200) -> Array:
    """`mean_pairwise` in `repeats` bootstrap draws of images.

    Bootstrapping the pairs themselves would treat them as independent and understate the error several times.
    """
    draws = draw_counts(len(similarity), rng, repeats).astype(np.float64)
    return np.array([mean_pairwise(similarity, w) for w in draws])
