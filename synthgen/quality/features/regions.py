"""Spectra of the structures of a cube: vein, artery, disc and background, found by the one segmenter.

Confident pixels count, each with its probability; uncertain pixels and crossings belong to nothing. A structure with
too few pixels is absent, which is a state of its own: NaN, never a guess. Nothing is eroded but the disc: of a vessel
hardly a pixel would be left.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from synthgen.quality.features.handcrafted import Logs
from synthgen.quality.segmenter.segmenter import CONFIDENT, STRUCTURES

REGIONS = (*STRUCTURES, "background")
LEAST = {"artery": 0.002, "vein": 0.004, "disc": 0.004}  # fraction of the lit pixels below which a structure is absent
_RING = 0.05  # width of the surroundings that a structure is compared with, fractions of the image
_EDGE = 0.02  # of the disc, left out
_QUARTERS = 2  # cells per side in which vessels are counted


class Regions(NamedTuple):
    """spectra, contrast: [N, 4, C] mean log-reflectance of each of REGIONS, and that minus its surroundings'.

    The contrast of the background is its spectrum relative to its mean over bands. extent [N, 4]: log fraction of lit
    pixels. side [N]: -1 where the disc lies left of the middle, 1 right, 0 where it is absent. layout [N, 6]: where the
    centre of the disc is (right and down, -1 to 1), and the fraction of vessels in each quarter. NaN: absent.
    """

    spectra: Tensor
    contrast: Tensor
    extent: Tensor
    side: Tensor
    layout: Tensor


@torch.no_grad()
def regions_of(logs: Logs, probabilities: Tensor | None) -> Regions:
    """Regions of N cubes from their logs and the segmenter's probabilities [N, 3, H, W] (None: only the background)."""
    n, bands, height, width = logs.filled.shape
    if probabilities is None:
        probabilities = logs.filled.new_zeros(n, len(STRUCTURES), height, width)
    inside = logs.inside[:, None].float()
    p = probabilities * inside
    sure = p > CONFIDENT
    crossing = sure[:, :1] & sure[:, 1:2]
    vessels = p[:, :2] * (sure[:, :2] & ~crossing)
    disc = p[:, 2:] * _eroded(sure[:, 2:], _EDGE)
    nothing = ((p < 1 - CONFIDENT).all(1, keepdim=True) & logs.inside[:, None]).float()
    ring = _widened(sure, max(1, round(_RING * width))) * nothing
    weights = torch.cat([vessels, disc, nothing], 1)
    lit = inside.sum((2, 3)).clamp_min(1)
    share = weights.sum((2, 3)) / lit
    least = share.new_tensor([LEAST[name] for name in STRUCTURES] + [0.05])
    present = share >= least
    means = _means(logs.filled, torch.cat([weights, ring], 1))
    spectra = torch.where(present[..., None], means[:, :4], torch.nan)
    around = torch.cat([means[:, 4:], means[:, 3:4].mean(2, keepdim=True).expand(-1, -1, bands)], 1)
    ringed = torch.cat([ring.sum((2, 3)) >= least[:3] * lit / 2, torch.ones_like(present[:, :1])], 1)
    contrast = torch.where((present & ringed)[..., None], means[:, :4] - around, torch.nan)
    extent = torch.log(share + 4 / (height * width))  # a few pixels more keep an absent structure finite, and far off
    centre = torch.where(present[:, 2:3], _centre(disc[:, 0]), torch.nan)
    quarters = F.adaptive_avg_pool2d(p[:, :2].sum(1), _QUARTERS).flatten(1)
    return Regions(spectra, contrast, extent, torch.sign(centre[:, 0]).nan_to_num(), torch.cat([centre, quarters], 1))


def structure_features(regions: Regions) -> Tensor:
    """[N, C + 6]: how the contrast of veins differs from that of arteries, and the layout. NaN: absent."""
    artery, vein = (regions.contrast[:, REGIONS.index(name)] for name in ("artery", "vein"))
    return torch.cat([vein - artery, regions.layout], 1)


def structure_blocks(bands: int) -> tuple[int, int]:
    """Features per block of `structure_features`."""
    return bands, 2 + _QUARTERS**2


def _centre(weights: Tensor) -> Tensor:
    """[N, 2]: mean column and row, -1 to 1, of weights [N, H, W]."""
    total = weights.sum((1, 2)).clamp_min(1e-6)
    rows, columns = (torch.linspace(-1, 1, side, device=weights.device) for side in weights.shape[-2:])
    return torch.stack([weights.sum(1) @ columns / total, weights.sum(2) @ rows / total], 1)


def _means(logs: Tensor, weights: Tensor) -> Tensor:
    """[N, K, C]: means of logs [N, C, H, W] under weights [N, K, H, W]."""
    total = torch.bmm(weights.flatten(2), logs.flatten(2).transpose(1, 2))
    return total / weights.sum((2, 3))[..., None].clamp_min(1e-6)


def _eroded(mask: Tensor, share: float) -> Tensor:
    pixels = round(share * mask.shape[-1])
    return ~_widened(~mask, pixels) if pixels else mask


def _widened(mask: Tensor, pixels: int) -> Tensor:
    """bool [N, K, H, W] dilated by a square of so many pixels to each side.

    Counts in the square, as two products with banded matrices: three times faster on a CPU than pooling maxima.
    """
    counts = _near(mask.shape[-2], pixels, mask.device) @ (mask.float() @ _near(mask.shape[-1], pixels, mask.device))
    return counts > 0.5


def _near(side: int, pixels: int, device: torch.device) -> Tensor:
    """[side, side]: 1 where two places are at most `pixels` apart."""
    at = torch.arange(side, device=device)
    return ((at[:, None] - at).abs() <= pixels).float()
