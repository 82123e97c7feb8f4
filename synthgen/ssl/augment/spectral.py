"""Spectral augmentations as one small matrix per cube: lamp colour and filter tolerance are linear in reflectance."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from synthgen.cubes.reflectance import LOG_FLOOR, log_reflectance, reflectance


def smooth_root(wavelengths: np.ndarray, correlation_nm: float) -> np.ndarray:
    """Square root R [C, C] of a unit-variance Gaussian covariance over wavelength: R @ z is a smooth random curve.

    Cov(i, j) = exp(-(nm_i - nm_j)^2 / (2 correlation_nm^2)). Its spectrum decays to rounding error, hence the root by
    eigenvalues and not by Cholesky.
    """
    distance = (wavelengths[:, None] - wavelengths[None]) / correlation_nm
    values, vectors = np.linalg.eigh(np.exp(-0.5 * distance**2))
    return vectors * np.sqrt(np.clip(values, 0, None))


def shift_matrix(shift: np.ndarray, bands: int) -> np.ndarray:
    """Linear interpolation along wavelength, float64 [B, C, C]; shift [B] in bands, -1..1; the end bands are held."""
    index = np.arange(bands)
    matrix = np.zeros((len(shift), bands, bands))
    matrix[:, index, index] += 1 - np.abs(shift)[:, None]
    matrix[:, index, np.minimum(index + 1, bands - 1)] += np.maximum(shift, 0)[:, None]
    matrix[:, index, np.maximum(index - 1, 0)] += np.maximum(-shift, 0)[:, None]
    return matrix


def mix_bands(cube: Tensor, matrix: Tensor) -> Tensor:
    """[B, C, H, W] times a matrix [B, C, C] over the bands."""
    b, c, h, w = cube.shape
    return torch.bmm(matrix, cube.reshape(b, c, h * w)).view(b, c, h, w)


def drop_bands(cube: Tensor, which: tuple[Tensor, Tensor]) -> Tensor:
    """Fill the bands (cube index, band index) of [B, C, H, W] with their own mean inside the field of view, in place.

    The mean log-reflectance of the cube itself, not of the data set: the spatial pattern of the band is lost, its level
    is kept, so a weak difference of mean spectra survives. Outside the field of view (no light in any band but noise)
    the band stays dark: a fill there would shift its level by the fraction of black pixels.
    """
    band, inside = cube[which], (cube.mean(1) > LOG_FLOOR)[which[0]]
    total = (log_reflectance(band) * inside).sum((-2, -1), keepdim=True)
    level = reflectance(total / inside.sum((-2, -1), keepdim=True).clamp_min(1))
    cube[which] = torch.where(inside, level, band)
    return cube
