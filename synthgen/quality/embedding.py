"""An untrained, interpretable feature space for sets of cubes, and its low-dimensional basis for the Frechet distance.

Three blocks of features: where the light is (log-spectra of a coarse grid), how bands vary together (covariance of the
log-spectra over pixels), and how sharp each band is (gradient energy at two scales). Nothing here is learned from a
network, so a bad network cannot hide a bad spectrum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from synthgen.cubes.reflectance import log_reflectance

Array = NDArray[np.float64]

GRID = 4  # cells per side of the coarse log-spectra
FOV_LEVEL = 0.01  # mean reflectance below which a pixel is outside the field of view; the darkest fundus has 0.03
SCALES = (2, 4)  # pixels averaged before gradients are taken; single pixels would mostly show the camera's noise
_FOLDS = 4  # of the cross-fitted residuals


def field_of_view(cubes: Tensor) -> Tensor:
    """bool [N, H, W]: the pixels that are lit, all of them where a cube has none."""
    lit = cubes.mean(1) > FOV_LEVEL
    return lit | ~lit.flatten(1).any(1)[:, None, None]


class Logs(NamedTuple):
    """filled [N, C, H, W]: log-reflectance, pixels outside the field of view set to their band's mean [N, C] inside.

    So the edge of the field of view counts neither as contrast nor as a gradient. inside: bool [N, H, W].
    """

    filled: Tensor
    mean: Tensor
    inside: Tensor


def filled_logs(cubes: Tensor) -> Logs:
    """`Logs` of cubes float32 [N, C, H, W]."""
    logs, inside = log_reflectance(cubes), field_of_view(cubes)
    if bool(inside.all()):
        return Logs(logs, logs.mean((2, 3)), inside)
    seen = inside[:, None]
    mean = (logs * seen).sum((2, 3)) / seen.sum((2, 3))
    return Logs(torch.where(seen, logs, mean[:, :, None, None]), mean, inside)


def block_sizes(bands: int) -> tuple[int, int, int]:
    """Features per block for cubes of so many bands."""
    return bands * GRID**2, bands * (bands + 1) // 2, 2 * bands


@torch.no_grad()
def set_features(cubes: Tensor) -> Tensor:
    """float32 [N, C, H, W] reflectance -> float32 [N, F], F the sum of `block_sizes`."""
    logs, mean, _ = filled_logs(cubes)
    _, bands, height, width = logs.shape
    grid = F.adaptive_avg_pool2d(logs, GRID).flatten(1)
    centred = (logs - mean[:, :, None, None]).flatten(2)
    upper = torch.triu_indices(bands, bands, device=logs.device)
    covariance = (centred @ centred.transpose(1, 2) / (height * width))[:, upper[0], upper[1]]
    sharpness = [_gradient_energy(F.avg_pool2d(logs, k)) for k in SCALES]
    return torch.cat([grid, covariance, *sharpness], dim=1)


def _gradient_energy(logs: Tensor) -> Tensor:
    down, across = logs.diff(dim=2).square().mean((2, 3)), logs.diff(dim=3).square().mean((2, 3))
    return torch.log(down + across + 1e-8)


@dataclass(frozen=True)
class Basis:
    """Principal components of standardised features, fitted on a reference set.

    Each block has the same total variance. What the components leave over is kept as one coordinate per block (the log
    of the residual energy): a fault that points away from all real variation would otherwise be projected out.
    """

    mean: Array
    scale: Array
    components: Array  # [F, d]
    residual_mean: Array  # [blocks]
    residual_scale: Array
    blocks: tuple[int, ...]

    @staticmethod
    def fit(features: Array, patients: np.ndarray, blocks: tuple[int, ...], dimension: int) -> tuple[Basis, Array]:
        """Fit on features [n, F]; returns the basis and the reference's own coordinates [n, dimension + blocks].

        The residuals of the reference itself are cross-fitted by patient, because a set lies closer to components
        fitted on it than any fresh set does.
        """
        mean = features.mean(0)
        share = np.repeat([size * len(blocks) for size in blocks], blocks)
        scale = np.sqrt(share) * np.maximum(features.std(0), 1e-9)
        z = (features - mean) / scale
        residuals = np.empty((len(z), len(blocks)))
        fold = np.unique(patients, return_inverse=True)[1] % _FOLDS
        for k in np.unique(fold):
            held = fold == k
            fitted = z if held.all() else z[~held]
            residuals[held] = _residuals(z[held], _components(fitted, dimension), fitted.mean(0), blocks)
        basis = Basis(
            mean,
            scale,
            _components(z, dimension),
            residuals.mean(0),
            np.sqrt(len(blocks)) * np.maximum(residuals.std(0), 1e-3),
            tuple(blocks),
        )
        own = (residuals - basis.residual_mean) / basis.residual_scale
        return basis, np.concatenate([z @ basis.components, own], axis=1)

    def __call__(self, features: Array) -> Array:
        """Coordinates [m, d + blocks] of features [m, F]."""
        z = (features - self.mean) / self.scale
        residuals = _residuals(z, self.components, 0.0, self.blocks)
        return np.concatenate([z @ self.components, (residuals - self.residual_mean) / self.residual_scale], axis=1)


def _components(z: Array, dimension: int) -> Array:
    """The leading right singular vectors [F, dimension] of the centred z [n, F], through the smaller Gram matrix."""
    z = z - z.mean(0)
    if len(z) < z.shape[1]:
        values, left = np.linalg.eigh(z @ z.T)
        left, values = left[:, ::-1][:, :dimension], values[::-1][:dimension]
        return z.T @ left / np.sqrt(np.maximum(values, 1e-12))
    return np.linalg.eigh(z.T @ z)[1][:, ::-1][:, :dimension]


def _residuals(z: Array, components: Array, mean: Array | float, blocks: tuple[int, ...]) -> Array:
    """Log of the energy that the components leave over, per block: [n, blocks]."""
    z = z - mean
    rest = np.square(z - z @ components @ components.T)
    ends = np.cumsum(blocks)
    return np.log(np.stack([rest[:, e - b : e].sum(1) for b, e in zip(blocks, ends, strict=True)], axis=1) + 1e-9)
