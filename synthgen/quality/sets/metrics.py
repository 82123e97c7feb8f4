"""The metrics of sets of cubes, as pure functions of features (numpy float64) or images (torch).

Symbols: x [n, d] and y [m, d] are features of two sets; N(mu, S) the Gaussian fitted to one.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import wasserstein_distance
from sklearn import config_context
from sklearn.covariance import ledoit_wolf
from torch import Tensor

Array = NDArray[np.float64]

MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang, Simoncelli & Bovik 2003, section 3.2
WINDOW = 11  # side of the SSIM window, in pixels


def frechet_distance(x: Array, y: Array) -> float:
    """Frechet distance of the Gaussians fitted to two sets (Dowson & Landau 1982; Heusel 2017 eq. 6).

    |mu_x - mu_y|^2 + tr S_x + tr S_y - 2 tr (S_x S_y)^(1/2). With centred factors S_x = A'A and S_y = B'B the last
    trace is the nuclear norm of AB', which needs no matrix root and holds for singular covariances (n <= d).
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    a = (x - x.mean(0)) / np.sqrt(len(x) - 1)
    b = (y - y.mean(0)) / np.sqrt(len(y) - 1)
    shift = x.mean(0) - y.mean(0)
    cross = np.linalg.svd(np.linalg.qr(a, mode="r") @ np.linalg.qr(b, mode="r").T, compute_uv=False).sum()
    return float(max(shift @ shift + (a * a).sum() + (b * b).sum() - 2 * cross, 0.0))


def frechet_gaussians(mean_x: Array, cov_x: Array, mean_y: Array, cov_y: Array) -> float:
    """Frechet distance of two given Gaussians: means [d], covariances [d, d]; by the eigenvalues of S_x S_y."""
    shift = np.asarray(mean_x, np.float64) - mean_y
    root = np.sqrt(np.linalg.eigvals(np.asarray(cov_x, np.float64) @ cov_y).real.clip(min=0)).sum()
    return float(max(shift @ shift + np.trace(cov_x) + np.trace(cov_y) - 2 * root, 0.0))


def gaussian_kl(mean_p: Array, cov_p: Array, mean_q: Array, cov_q: Array) -> float:
    """KL(N_p || N_q) in nats: (tr S_q^-1 S_p + (mu_q-mu_p)' S_q^-1 (mu_q-mu_p) - d + ln |S_q|/|S_p|) / 2."""
    factor = np.linalg.cholesky(cov_q)
    whitened = np.linalg.solve(factor, np.linalg.cholesky(cov_p))
    shift = np.linalg.solve(factor, np.asarray(mean_q, np.float64) - mean_p)
    log_ratio = -2 * np.log(np.diag(whitened)).sum()
    return float((np.square(whitened).sum() + shift @ shift - len(shift) + log_ratio) / 2)


def spectral_kl(x: Array, y: Array) -> tuple[float, float]:
    """KL(x || y) and KL(y || x) of Gaussians with Ledoit-Wolf covariances.

    With x real, the first is large when y lost modes of x, the second when y has implausible ones.
    """
    (mean_x, cov_x), (mean_y, cov_y) = _shrunk(x), _shrunk(y)
    return gaussian_kl(mean_x, cov_x, mean_y, cov_y), gaussian_kl(mean_y, cov_y, mean_x, cov_x)


def _shrunk(x: Array) -> tuple[Array, Array]:
    x = np.asarray(x, np.float64)
    floor = 1e-6 * np.eye(x.shape[1])  # 0.1 % of reflectance: a set of equal spectra keeps a finite divergence
    if x.shape[1] == 1:
        return x.mean(0), x.var(0, keepdims=True) + floor  # one dimension has nothing to shrink towards
    with config_context(skip_parameter_validation=True, assume_finite=True):  # its checks cost more than its arithmetic
        return x.mean(0), ledoit_wolf(x)[0] + floor


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


def ms_ssim_scales(side: int) -> int:
    """How many of the five scales of MS-SSIM fit an image: the last must be wider than the window (3 at 64)."""
    fitting = [s for s in range(1, 6) if side >= (WINDOW - 1) * 2 ** (s - 1) + 1]
    return fitting[-1] if fitting else 0


def ms_ssim(x: Tensor, y: Tensor, scales: int | None = None) -> Tensor:
    """MS-SSIM of pairs of images [n, C, H, W] in [0, 1], per band then averaged: float32 [n] (piq's implementation).

    `scales` finest scales are used (as many as fit), their weights renormalised; 5 is the standard metric.
    """
    import piq

    scales = scales or ms_ssim_scales(min(x.shape[-2:]))
    if scales == 0:
        raise ValueError(f"images of {tuple(x.shape[-2:])} pixels are smaller than the SSIM window of {WINDOW}")
    weights = None  # piq's own five, which sum to 1.0001
    if scales < len(MS_SSIM_WEIGHTS):
        weights = torch.tensor(MS_SSIM_WEIGHTS[:scales], dtype=x.dtype, device=x.device)
    return piq.multi_scale_ssim(x, y, data_range=1.0, reduction="none", scale_weights=weights)


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
    k = len(similarity)
    draws = rng.multinomial(k, np.full(k, 1 / k), size=repeats).astype(np.float64)
    return np.array([mean_pairwise(similarity, w) for w in draws])
