"""Sensor noise: Poisson-Gaussian, from a bank of normal numbers read at keyed offsets; and how much a camera has of it.

A fresh normal number per pixel would cost more than all other augmentations together. The bank holds 2^20 of them,
made once from a fixed key; each band of each view reads a run of H x W starting at an offset of its own. The offset
comes from the keyed table, so the noise is as reproducible as everything else, on every device.
Two bands share noise at the same pixel only when their offsets are equal: one pair in a million.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import binary_erosion
from scipy.optimize import nnls
from torch import Tensor
from torch.nn import functional as F

from synthgen.cubes.reflectance import LOG_FLOOR
from synthgen.errors import InputError
from synthgen.runs.randomness import stream

BANK = 2**20
BINS = 8  # levels of reflectance at which a band's noise is measured
LEAST = 1e-12  # reflectance that counts as light
PIXELS = 4000  # per cube and band: plenty for a variance, and quick


@dataclass(frozen=True)
class BandNoise:
    """Noise of C bands: variance = shot * reflectance + read^2.

    shot: [C], variance per unit of reflectance. read: [C], standard deviation in the dark.
    """

    shot: tuple[float, ...]
    read: tuple[float, ...]


def noise_bank(pixels: int, device: torch.device) -> Tensor:
    """Normal numbers [BANK + pixels] that continue from their start, so that a run may begin anywhere in BANK."""
    bank = torch.randn(BANK, generator=stream("sensor noise bank"))
    return bank.repeat(1 + -(-pixels // BANK))[: BANK + pixels].to(device)


def add_noise(cube: Tensor, strength: Tensor, offset: Tensor, shot: Tensor, read: Tensor, bank: Tensor) -> Tensor:
    """Add normal noise of variance strength^2 (shot * reflectance + read^2), in place.

    What is exactly 0, outside a masked field of view, stays 0: nothing was measured there. Less than 0 gets no noise.

    cube: [B, C, H, W]. strength: [B]. offset: int64 [B, C], 0..BANK-1. shot: [C], variance per reflectance. read: [C],
    standard deviation in the dark.
    """
    b, c, h, w = cube.shape
    noise = bank.unfold(0, h * w, 1).index_select(0, offset.reshape(-1)).view(b, c, h, w)
    square = strength.square()[:, None] / LEAST
    slope, dark = (square * shot)[..., None, None], (square * read.square())[..., None, None]
    seen = cube.clamp(0, LEAST)  # LEAST, or 0 where nothing was measured; the sign would take three times as long
    return cube.addcmul_((cube * slope).add_(dark).mul_(seen).sqrt_(), noise)


def measured_noise(cubes: np.ndarray) -> BandNoise:
    """The noise of float32 reflectance cubes [N, C, H, W], band by band; a few dozen cubes are plenty.

    A mask that annihilates planes (Immerkaer, 'Fast noise variance estimation', CVIU 1996) leaves noise and fine
    structure; structure is shared by neighbouring bands, so what a least-squares fit on the two neighbours explains is
    taken out, and the neighbours' own noise that comes in by it is accounted for. The robust variance of the rest, at
    eight levels of reflectance, gives shot and read noise. Noise that resizing has smeared over pixels is
    underestimated.

    InputError when no cube shows 3 x 3 pixels inside a field of view, and for fewer than 8 of them.
    """
    bands = cubes.shape[1]
    levels: list[np.ndarray] = []
    rests: list[np.ndarray] = []
    weights: list[np.ndarray] = []
    for cube in cubes:
        inside = binary_erosion(cube.mean(0) > LOG_FLOOR, np.ones((3, 3)))[1:-1, 1:-1]
        if inside.sum() < BINS:
            continue
        rough, level = _rough(cube, inside)
        rest, weight = _without_neighbours(rough)
        levels.append(level)
        rests.append(rest)
        weights.append(weight)
    if not levels:
        raise InputError("no noise can be measured", found=f"{len(cubes)} cubes", expected="some with a field of view")
    level, rest = np.concatenate(levels, 1), np.concatenate(rests, 1)
    own = _own_share(np.median(np.square(rest), 1), np.mean(np.square(weights), 0))
    fits = [_shot_and_read(level[band], rest[band], own[band]) for band in range(bands)]
    return BandNoise(tuple(shot for shot, _ in fits), tuple(read for _, read in fits))


def _rough(cube: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Second differences of unit noise gain and local means, [C, n] each, at up to PIXELS pixels spread evenly."""
    planes = torch.from_numpy(np.ascontiguousarray(cube, dtype=np.float32))[:, None].double()
    one = torch.tensor([1.0, -2.0, 1.0], dtype=torch.float64)
    rough = F.conv2d(planes, (one[:, None] * one / 6)[None, None])[:, 0].numpy()  # 6: root of the summed squares
    level = F.avg_pool2d(planes, 3, 1)[:, 0].numpy()
    at = np.flatnonzero(inside)
    at = at[:: max(1, len(at) // PIXELS)]
    return rough.reshape(len(cube), -1)[:, at], level.reshape(len(cube), -1)[:, at]


def _without_neighbours(rough: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the two nearest bands do not explain [C, n], and the weights [C, C] with which they explain the rest."""
    bands = len(rough)
    rest, weights = rough.copy(), np.zeros((bands, bands))
    for band in range(bands if bands > 2 else 0):
        first = min(max(band - 1, 0), bands - 3)
        near = [b for b in range(first, first + 3) if b != band]
        weights[band, near] = np.linalg.lstsq(rough[near].T, rough[band], rcond=None)[0]
        rest[band] -= weights[band, near] @ rough[near]
    return rest, weights


def _own_share(variance: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """Fraction of each residual variance [C] that is the band's own noise: variance = (1 + W o W) noise."""
    noise, _ = nnls(np.eye(len(variance)) + squares, variance)
    return np.clip(noise / np.maximum(variance, 1e-30), 0.2, 1)


def _shot_and_read(level: np.ndarray, rest: np.ndarray, own: float) -> tuple[float, float]:
    """Non-negative fit of variance = shot * level + read^2 over bins of equal count, each of equal relative weight."""
    order = np.argsort(level, kind="stable")
    bins = np.array_split(order, BINS)
    middle = np.array([level[part].mean() for part in bins]).clip(0)
    robust = np.array([own * (1.4826 * np.median(np.abs(rest[part]))) ** 2 for part in bins])
    scale = 1 / np.maximum(robust, 1e-12)
    (shot, dark), _ = nnls(np.stack([middle * scale, scale], 1), robust * scale)
    return float(shot), float(np.sqrt(dark))
