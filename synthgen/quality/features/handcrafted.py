"""An untrained, interpretable feature space for sets of cubes.

Three blocks of features: where the light is (log-spectra of a coarse grid), how bands vary together (covariance of the
log-spectra over pixels), and how sharp each band is (gradient energy at two scales). Nothing here is learned from a
network, so a bad network cannot hide a bad spectrum.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from synthgen.cubes.reflectance import log_reflectance

GRID = 4  # cells per side of the coarse log-spectra
FOV_LEVEL = 0.01  # mean reflectance below which a pixel is outside the field of view; the darkest fundus has 0.03
SCALES = (2, 4)  # pixels averaged before gradients are taken; single pixels would mostly show the camera's noise


def averaged_down(cubes: Tensor, largest: int) -> Tensor:
    """Cubes [N, C, H, W] averaged to at most `largest` pixels per side, their proportions kept."""
    share = largest / max(cubes.shape[-2:])
    if share >= 1:
        return cubes
    height, width = (max(1, round(side * share)) for side in cubes.shape[-2:])
    return F.adaptive_avg_pool2d(cubes, (height, width))


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


def set_features(cubes: Tensor) -> Tensor:
    """float32 [N, C, H, W] reflectance -> float32 [N, F], F the sum of `block_sizes`."""
    return hand_features(filled_logs(cubes))


@torch.no_grad()
def hand_features(filled: Logs) -> Tensor:
    """`set_features` of cubes whose logs are at hand."""
    logs, mean, _ = filled
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
