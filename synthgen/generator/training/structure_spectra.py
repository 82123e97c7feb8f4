"""A loss on the mean spectra of structures: what L1 per pixel cannot see, because structures are few pixels.

Vessels and disc are a few per cent of an eye, and what sets arteries off from veins is a hundredth of their brightness:
L1 draws it towards what is usual, for nearly nothing. Here the error of a structure's mean spectrum counts in units of
its standard deviation between eyes, along every axis of its covariance alike (Mahalanobis distance).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from synthgen.cubes.cohort.structures import region_masks

RING = 0.05  # width of a structure's surroundings, shares of the image's width
EDGE = 0.02  # of the disc, left out of its core, likewise
LEAST = 8  # pixels below which a structure is absent from a view
FLOOR = 0.006  # of normalised log-reflectance: axes along which eyes vary less do not count more
MEMORY = 0.95  # of the mean error along the axes, per batch

# What a region's mean is compared with: the mean itself, or its difference from another region's.
ALONE = ("artery", "vein", "disc", "core", "cup", "background", "whole core", "vessels of disc")
REGIONS = (*ALONE, "by artery", "by vein", "by disc")
DIFFERENCES = (
    ("artery", "by artery"),
    ("vein", "by vein"),
    ("disc", "by disc"),
    ("whole core", "by disc"),
    ("artery", "vein"),
)
FEATURES = len(ALONE) + len(DIFFERENCES)


def regions(masks: Mapping[str, np.ndarray], shape: tuple[int, ...]) -> Tensor:
    """bool [N, R, H, W], R as in REGIONS. core: the disc without its edge and vessels; whole core: with the vessels,
    which are half of it at 64 pixels, as the gates take it. by X: the tissue that surrounds X.

    Regions of several sets of masks stand one after the other, [N, R * sets, H, W].

    masks: bool [N, H, W] by name. shape: (N, H, W). A structure without mask has no pixels.
    """
    none, side = np.zeros(shape, bool), shape[-1]
    own = region_masks(masks, shape)
    known = [np.asarray(masks[name], bool) for name in ("artery", "vein", "disc", "cup", "crossing") if name in masks]
    tissue = np.asarray(masks.get("fov", ~none), bool) & ~np.logical_or.reduce([none, *known])
    core = ~_widened(~np.asarray(masks.get("disc", none), bool), EDGE * side)
    cup = np.asarray(masks.get("cup", none), bool)
    vessels = np.logical_or.reduce([none, *(masks[name] for name in ("artery", "vein", "crossing") if name in masks)])
    found = {**own, "core": core & ~vessels, "cup": cup & ~vessels, "background": tissue}
    found |= {"whole core": core, "vessels of disc": vessels & np.asarray(masks.get("disc", none), bool)}
    found |= {f"by {name}": _widened(own[name], RING * side) & tissue for name in ("artery", "vein", "disc")}
    return torch.from_numpy(np.stack([found[name] for name in REGIONS], 1))


class PackedRegions(NamedTuple):
    """The regions of all cubes of a training, packed: int32 [N, 1, H, W], and how many there are."""

    bits: Tensor
    count: int


def packed(where: Tensor) -> Tensor:
    """Regions bool [N, R, H, W], at most 31, as the bits of one number per pixel: int32 [N, 1, H, W]."""
    bits = torch.arange(where.shape[1], dtype=torch.int32, device=where.device)
    return torch.bitwise_left_shift(where.to(torch.int32), bits[:, None, None]).sum(1, keepdim=True, dtype=torch.int32)


def unpacked(bits: Tensor, count: int) -> Tensor:
    """The inverse of `packed` for so many regions."""
    of = torch.arange(count, dtype=torch.int32, device=bits.device)[:, None, None]
    return torch.bitwise_right_shift(bits, of).bitwise_and(1).bool()


def structure_means(x: Tensor, where: Tensor) -> tuple[Tensor, Tensor]:
    """Mean spectra of ALONE and the DIFFERENCES [N, F, C], and which of them there are, bool [N, F].

    x [N, C, H, W], its regions bool [N, R * sets, H, W]; F = FEATURES * sets.
    """
    n, bands = x.shape[:2]
    weights = where.to(x.dtype).flatten(2)
    count = weights.sum(2)
    means = torch.bmm(weights, x.flatten(2).transpose(1, 2)) / count.clamp(min=1)[..., None]
    means, there = means.view(n, -1, len(REGIONS), bands), (count >= LEAST).view(n, -1, len(REGIONS))
    a, b = (torch.tensor([REGIONS.index(pair[k]) for pair in DIFFERENCES], device=x.device) for k in (0, 1))
    alone = len(ALONE)
    return (
        torch.cat([means[:, :, :alone], means[:, :, a] - means[:, :, b]], 2).flatten(1, 2),
        torch.cat([there[:, :, :alone], there[:, :, a] & there[:, :, b]], 2).flatten(1, 2),
    )


def structure_axes(blocks: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """[F, C, C]: the axes of each feature of `structure_means` between eyes, each over its standard deviation; zeros
    for what too few eyes have. blocks: x [n, C, H, W] and regions [n, R, H, W] of some cubes, a few at a time."""
    parts = [structure_means(*block) for block in blocks]
    means, there = (torch.cat(part) for part in zip(*parts, strict=True))
    bands = means.shape[-1]
    axes = means.new_zeros(means.shape[1], bands, bands)
    for k in range(len(axes)):
        spectra = means[there[:, k], k].double()
        if len(spectra) > 2 * bands:
            values, vectors = torch.linalg.eigh(torch.cov(spectra.T))
            axes[k] = (vectors / (values.clamp(min=0) + FLOOR**2).sqrt()).T.float()
    return axes


class StructureError:
    """Errors of mean spectra along their axes [F, C, C]: of each cube, and of what is common to the last many cubes.

    A cube's error is bounded by what the codes can tell, and the other losses pull the rest towards what is usual: a
    shift that all cubes share, which a set of samples shows as another kind of eye. Its running mean is taken back by
    a weight of its own (integral control: what stays wrong counts until it is gone).
    """

    def __init__(self, axes: Tensor):
        self.axes = axes
        self.mean = axes.new_zeros(axes.shape[:2])
        self.known = axes.abs().sum((1, 2)) > 0

    def __call__(
        self, x: Tensor, remade: Tensor, where: Tensor, over_ranks: Callable[[Tensor], Tensor] = lambda t: t
    ) -> tuple[Tensor, Tensor]:
        """The mean square of the features' errors along their axes, and a term whose gradient is that of half the
        squared shift. x, remade [N, C, H, W], where bool [N, R, H, W]. over_ranks: means over processes."""
        error, there = structure_means((remade - x).float(), where)
        there = (there & self.known)[..., None].float()
        along = torch.einsum("kpc,nkc->nkp", self.axes, error)
        squared = (along.square() * there).sum() / there.sum().clamp(min=1) / along.shape[2]
        total = (along * there).mean(0)  # what few cubes have counts, and is believed, as much less
        with torch.no_grad():
            self.mean += (1 - MEMORY) * over_ranks(total - there.mean(0) * self.mean)
        return squared, (self.mean * total).sum() / self.known.sum().clamp(min=1)

    def shift(self) -> Tensor:
        """The squared length of the mean error, in standard deviations between eyes, averaged over the features."""
        return self.mean.square().sum() / self.known.sum().clamp(min=1)


def _widened(mask: np.ndarray, reach: float) -> np.ndarray:
    """bool [N, H, W] dilated by a square of so many pixels to each side, at least one."""
    side = 2 * max(1, round(reach)) + 1
    return ndimage.maximum_filter(mask.astype(np.uint8), (1, side, side)) > 0
