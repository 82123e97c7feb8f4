"""Reflectance and its logarithm: the space in which cubes are learned, because the blue is 10-40 times darker."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from synthgen.cubes.floor import LOG_FLOOR as LOG_FLOOR
from synthgen.errors import InputError


def log_reflectance(cube: Tensor) -> Tensor:
    """Natural logarithm of reflectance, `log(max(cube, 0) + LOG_FLOOR)`; any shape, 0 maps to about -7.6."""
    return torch.log(cube.clamp_min(0) + LOG_FLOOR)


def reflectance(log_cube: Tensor) -> Tensor:
    """Inverse of `log_reflectance`, clamped to [0, 1]."""
    return (torch.exp(log_cube) - LOG_FLOOR).clamp(0, 1)


@dataclass(frozen=True)
class BandStatistics:
    """Mean and standard deviation of the log-reflectance of each of C bands."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def normalise(self, log_cube: Tensor) -> Tensor:
        """Log-reflectance [..., C, H, W] to zero mean and unit standard deviation per band."""
        mean, std = self._tensors(log_cube)
        return (log_cube - mean) / std

    def denormalise(self, normalised: Tensor) -> Tensor:
        """Inverse of `normalise`."""
        mean, std = self._tensors(normalised)
        return normalised * std + mean

    def _tensors(self, like: Tensor) -> tuple[Tensor, Tensor]:
        def column(values: Sequence[float]) -> Tensor:
            return torch.tensor(values, dtype=like.dtype, device=like.device).view(-1, 1, 1)

        return column(self.mean), column(self.std)


def band_statistics(cubes: np.ndarray | Tensor | Iterable[np.ndarray | Tensor]) -> BandStatistics:
    """Statistics over all pixels of float32 cubes [N, C, H, W], or of an iterator of cubes [C, ...]; sums in float64.

    InputError when there is no cube, a value is not finite, or a band is constant (it would be divided by zero).
    """
    count, total, square = 0, torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    for cube in cubes:
        logs = log_reflectance(torch.as_tensor(cube).double()).flatten(1).cpu()
        count, total, square = count + logs.shape[1], total + logs.sum(1), square + logs.square().sum(1)
    if count == 0:
        raise InputError("no cubes to take band statistics of")
    mean = total / count
    std = (square / count - mean.square()).clamp_min(0).sqrt()
    if not torch.isfinite(mean).all():
        band = int((~torch.isfinite(mean)).int().argmax())
        raise InputError("a cube holds NaN or infinite values", found=f"in band {band}")
    if (std < 1e-5).any():  # below the rounding of the two sums: no variation at all
        band = int((std < 1e-5).int().argmax())
        raise InputError(
            f"band {band} is constant", expected="variation in every band", remedy="remove the band or check the file"
        )
    return BandStatistics(tuple(mean.tolist()), tuple(std.tolist()))
