"""A loss on the mean spectra of structures: what L1 per pixel cannot see, because structures are few pixels.

Vessels and disc are a few per cent of an eye, and what sets arteries off from veins is a hundredth of their brightness:
L1 draws it towards what is usual, for nearly nothing. Here the error of a structure's mean spectrum counts in units of
its standard deviation between eyes, along every axis of its covariance alike (Mahalanobis distance).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from synthgen.cubes.cohort.structures import region_masks

RING = 0.05  # width of a structure's surroundings, shares of the image's width
EDGE = 0.02  # of the disc, left out of its core, likewise
LEAST = 8  # pixels below which a structure is absent from a view
FLOOR = 0.002  # of normalised log-reflectance: axes along which eyes vary less do not count more

# What a region's mean is compared with: the mean itself, or its difference from another region's.
REGIONS = ("artery", "vein", "disc", "core", "cup", "background", "by artery", "by vein", "by disc")
DIFFERENCES = (("artery", "by artery"), ("vein", "by vein"), ("disc", "by disc"), ("artery", "vein"))
FEATURES = 6 + len(DIFFERENCES)


def regions(masks: Mapping[str, np.ndarray], shape: tuple[int, ...]) -> Tensor:
    """bool [N, R, H, W], R as in REGIONS; core is the disc without its edge, `by X` the tissue that surrounds X.

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
    found |= {f"by {name}": _widened(own[name], RING * side) & tissue for name in ("artery", "vein", "disc")}
    return torch.from_numpy(np.stack([found[name] for name in REGIONS], 1))


def structure_means(x: Tensor, where: Tensor) -> tuple[Tensor, Tensor]:
    """From x [N, C, H, W] and its regions bool [N, R, H, W]: mean spectra of the first six of REGIONS and the
    DIFFERENCES, [N, F, C], and which of them there are, bool [N, F]."""
    weights = where.to(x.dtype).flatten(2)
    count = weights.sum(2)
    means = torch.bmm(weights, x.flatten(2).transpose(1, 2)) / count.clamp(min=1)[..., None]
    there = count >= LEAST
    a, b = (torch.tensor([REGIONS.index(pair[k]) for pair in DIFFERENCES], device=x.device) for k in (0, 1))
    alone = FEATURES - len(DIFFERENCES)
    return (
        torch.cat([means[:, :alone], means[:, a] - means[:, b]], 1),
        torch.cat([there[:, :alone], there[:, a] & there[:, b]], 1),
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


def structure_error(x: Tensor, remade: Tensor, where: Tensor, axes: Tensor) -> Tensor:
    """Mean square of the error of the features along their axes [F, C, C], over the features that are there.

    x, remade [N, C, H, W], where bool [N, R, H, W]. Squared, so that the means come out right and not what is usual.
    """
    error, there = structure_means((remade - x).float(), where)
    there = there & (axes.abs().sum((1, 2)) > 0)
    along = torch.einsum("kpc,nkc->nkp", axes, error).square().mean(2)
    return (along * there).sum() / there.sum().clamp(min=1)


def _widened(mask: np.ndarray, reach: float) -> np.ndarray:
    """bool [N, H, W] dilated by a square of so many pixels to each side, at least one."""
    side = 2 * max(1, round(reach)) + 1
    return ndimage.maximum_filter(mask.astype(np.uint8), (1, side, side)) > 0
