"""Sensor noise: Poisson-Gaussian, from a bank of normal numbers read at keyed offsets.

A fresh normal number per pixel would cost more than all other augmentations together. The bank holds 2^20 of them,
made once from a fixed key; each band of each view reads a run of H x W starting at an offset of its own. The offset
comes from the keyed table, so the noise is as reproducible as everything else, on every device.
Two bands share noise at the same pixel only when their offsets are equal: one pair in a million.
"""

from __future__ import annotations

import torch
from torch import Tensor

from synthgen.runs.randomness import stream

BANK = 2**20


def noise_bank(pixels: int, device: torch.device) -> Tensor:
    """Normal numbers [BANK + pixels] that continue from their start, so that a run may begin anywhere in BANK."""
    bank = torch.randn(BANK, generator=stream("sensor noise bank"))
    return bank.repeat(1 + -(-pixels // BANK))[: BANK + pixels].to(device)


def add_noise(cube: Tensor, strength: Tensor, offset: Tensor, shot: float, read: float, bank: Tensor) -> Tensor:
    """Add normal noise of variance strength^2 (shot * reflectance + read^2), in place.

    cube: [B, C, H, W], not negative. strength: [B]. offset: int64 [B, C], 0..BANK-1. shot: variance per reflectance.
    read: standard deviation in the dark.
    """
    b, c, h, w = cube.shape
    noise = bank.unfold(0, h * w, 1).index_select(0, offset.reshape(-1)).view(b, c, h, w)
    square = strength.square().view(-1, 1, 1, 1)
    deviation = (cube * (shot * square)).add_(read**2 * square).sqrt_()
    return cube.addcmul_(deviation, noise)
