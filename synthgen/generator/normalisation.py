"""The space that the generator learns in: log-reflectance, zero mean, unit standard deviation per band in the eye."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from synthgen.cubes.reflectance import LOG_FLOOR, BandStatistics, band_statistics, log_reflectance, reflectance
from synthgen.errors import InputError

# More than 3 standard deviations below the mean lies the black outside of a round field of view: it is folded to about
# -3.6, where an error of 0.1 is still a reflectance below 0.001.
KNEE, SLOPE = -3.0, 0.05


def normalised(cubes: Tensor, statistics: BandStatistics) -> Tensor:
    """Reflectance [..., C, H, W] in [0, 1] -> x, about [-4, 5].

    The black outside of a round field of view lies some 15 standard deviations below the retina; folded, its rim does
    not outweigh the vessels. Invertible: `denormalised`.
    """
    x = statistics.normalise(log_reflectance(cubes))
    return torch.where(x < KNEE, KNEE + SLOPE * (x - KNEE), x)


def denormalised(x: Tensor, statistics: BandStatistics) -> Tensor:
    """The inverse of `normalised`, clamped to [0, 1]."""
    x = torch.where(x < KNEE, KNEE + (x - KNEE) / SLOPE, x)
    return reflectance(statistics.denormalise(x))


def eye_statistics(cubes: Iterable[np.ndarray]) -> BandStatistics:
    """Band statistics over the pixels of float32 cubes [C, H, W] that are not black; one cube at a time.

    InputError when no pixel is left or a band is constant.
    """
    seen = (cube[:, cube.mean(0) > LOG_FLOOR] for cube in cubes)  # [C, pixels]
    bright = (pixels for pixels in seen if pixels.size)
    first = next(bright, None)
    if first is None:
        raise InputError("all cubes are black", expected="reflectance above 0", remedy="check the scale of the cubes")
    return band_statistics(itertools.chain([first], bright))
