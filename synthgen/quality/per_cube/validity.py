"""Validity of a single cube: finite, in range, no dead band, field of view and mean spectrum as in real ones."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from synthgen.config import Config
from synthgen.quality.features.handcrafted import Logs, filled_logs

_WIDEN = 0.5  # of the real span, added on both sides: unseen patients lie outside the span of a few dozen
_FLAT = 0.1  # of the least real contrast of a band; below it the band is constant


class ValidityLimits(Config):
    """What real cubes span, widened: nothing here judges a plausible cube, only a broken one."""

    highest: float = Field(description="largest reflectance")
    field_of_view: tuple[float, float] = Field(description="least and largest fraction of lit pixels")
    contrast: tuple[float, ...] = Field(
        description="per band, least standard deviation of the log-reflectance over pixels"
    )
    spectrum_low: tuple[float, ...] = Field(description="per band, least mean log-reflectance")
    spectrum_high: tuple[float, ...] = Field(description="per band, largest mean log-reflectance")

    @staticmethod
    def of(facts: Facts) -> ValidityLimits:
        """From the facts of real cubes: their 0.5 % and 99.5 % quantiles, widened by half of the span between."""
        low, high = np.quantile(facts.spectrum.cpu().double().numpy(), [0.005, 0.995], axis=0)
        share = facts.lit.cpu().double().numpy()
        room = _WIDEN * (share.max() - share.min()) + 0.02
        return ValidityLimits(
            highest=max(1.0, 1.1 * float(facts.highest.max())),
            field_of_view=(float(share.min() - room), float(share.max() + room)),
            contrast=tuple((_FLAT * facts.contrast.min(0).values).tolist()),
            spectrum_low=tuple((low - _WIDEN * (high - low)).tolist()),
            spectrum_high=tuple((high + _WIDEN * (high - low)).tolist()),
        )


class Facts(NamedTuple):
    """Of N cubes: finite bool [N], lowest and highest value [N], share lit [N], contrast and mean log [N, C]."""

    finite: Tensor
    lowest: Tensor
    highest: Tensor
    lit: Tensor
    contrast: Tensor
    spectrum: Tensor


@torch.no_grad()
def facts_of(cubes: Tensor) -> tuple[Facts, Logs]:
    """Facts of cubes float32 [N, C, H, W], and their logs; gaps in a cube that is not finite are taken as zeros."""
    lowest, highest = torch.aminmax(cubes.flatten(1), dim=1)  # both are NaN where any value is
    finite = torch.isfinite(lowest) & torch.isfinite(highest)
    if not bool(finite.all()):
        cubes = torch.nan_to_num(cubes, nan=0.0, posinf=0.0, neginf=0.0)
    logs = filled_logs(cubes)
    std = (logs.filled - logs.mean[:, :, None, None]).square_().mean((2, 3)).sqrt()
    return Facts(finite, lowest, highest, logs.inside.float().mean((1, 2)), std, logs.mean), logs


def faults(facts: Facts, limits: ValidityLimits) -> dict[str, Tensor]:
    """Which cubes fail for which reason: bool [N] each, in order of precedence."""

    def row(values: tuple[float, ...]) -> Tensor:
        return torch.tensor(values, dtype=facts.spectrum.dtype, device=facts.spectrum.device)

    low, high = limits.field_of_view
    outside = (facts.spectrum < row(limits.spectrum_low)) | (facts.spectrum > row(limits.spectrum_high))
    return {
        "not finite": ~facts.finite,
        "reflectance out of range": (facts.lowest < -1e-3) | (facts.highest > limits.highest),
        "constant band": (facts.contrast < row(limits.contrast)).any(1),
        "field of view unlike any real one": (facts.lit < low) | (facts.lit > high),
        "spectrum outside the real envelope": outside.any(1),
    }
