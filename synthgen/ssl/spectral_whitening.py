"""The first layer of a backbone begins with whitened spectra.

The bands of an eye rise and fall together: one axis of the pixels' spectra (brightness) holds over nine tenths of their
variance, while macular pigment, oxygen or the disc's edge lie on axes of a thousandth and less. A random first layer
sees brightness. Here its random weights are multiplied by the whitening of the spectra of real pixels, so that every
axis above the floor counts alike from the first step on. It changes the initial weights only: what is trained and
exported is the plain timm network.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from synthgen.cubes.reflectance import BandStatistics, log_reflectance

FLOOR = 1e-5  # of the largest eigenvalue: axes below are noise of the camera in most cubes, and stay small
LIT = 2e-3  # mean reflectance above which a pixel shows tissue: a tenth of that of the darkest fundus
PIXELS = 2048  # of a cube, evenly taken


class PixelSpectra(NamedTuple):
    """Mean [C] and covariance [C, C] of the standardised log-reflectance of pixels; float64."""

    mean: Tensor
    covariance: Tensor

    def whitening(self, floor: float = FLOOR) -> Tensor:
        """The symmetric matrix float32 [C, C] that makes the covariance the identity, above the floor (ZCA)."""
        values, axes = torch.linalg.eigh(self.covariance)
        return (axes * (values + floor * values.max()) ** -0.5 @ axes.T).float()

    def components(self, count: int, floor: float) -> Tensor:
        """Rows float32 [count, C] that give the whitened coordinates of a spectrum, of the largest axis first (PCA)."""
        values, axes = torch.linalg.eigh(self.covariance)
        rows = (axes * (values + floor * values.max()) ** -0.5).T.flip(0)[:count]
        upright = torch.where(rows.sum(1, keepdim=True) < 0, -1.0, 1.0)  # an axis has no sign of its own
        return (rows * upright).float()


def lit(logs: Tensor) -> Tensor:
    """Which pixels of log-reflectance [..., C, H, W] show tissue: bool [..., H, W], by their (geometric) mean."""
    return logs.mean(-3) > log_reflectance(torch.tensor(LIT, dtype=logs.dtype))


def pixel_spectra(
    cubes: Iterable[np.ndarray | Tensor], statistics: BandStatistics, tissue: bool = False
) -> PixelSpectra:
    """Of reflectance cubes [C, H, W], one after the other.

    tissue: of lit pixels alone, where a cube has any. A first layer meets the dark around the field as well: whitened
    by tissue alone it would see little else.
    """
    count, total, square = 0, torch.zeros(0), torch.zeros(0)
    for cube in cubes:
        logs = log_reflectance(torch.as_tensor(cube).double())
        flat, inside = statistics.normalise(logs).flatten(1), lit(logs).flatten()
        flat = flat[:, inside] if tissue and bool(inside.any()) else flat
        flat = flat[:, :: max(1, flat.shape[1] // PIXELS)]
        if count == 0:
            total, square = flat.new_zeros(len(flat)), flat.new_zeros(len(flat), len(flat))
        count, total, square = count + flat.shape[1], total + flat.sum(1), square + flat @ flat.T
    mean = total / max(count, 1)
    return PixelSpectra(mean, square / max(count, 1) - torch.outer(mean, mean))


@torch.no_grad()
def whiten_first_layer(network: nn.Module, whitening: Tensor) -> bool:
    """Multiply the weights of the convolution that takes the bands by `whitening` [C, C]; False where there is none."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d) and layer.groups == 1 and layer.in_channels == len(whitening):
            layer.weight.copy_(torch.einsum("oihw,ij->ojhw", layer.weight, whitening.to(layer.weight)))
            return True
    return False
