"""The copy detector: how near a cube lies to its nearest training cube, whatever its gain, flip or small shift.

A cube is seen as a coarse log image of a few groups of bands, each with its mean taken off (so gain goes away),
whitened on the training cubes and brought to unit length. Flips and shifts sit in the bank: each training cube is held
in every such variant, and the query is embedded once.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from synthgen.quality.embedding import Logs, filled_logs

GRID = 16  # cells per side: vessels still show, noise averages out
GROUPS = 6  # groups of neighbouring bands; all sixteen would weigh the noise of the blue ones
SHIFT = 2  # pixels; shifts in between are near one of -SHIFT, 0, SHIFT
VARIANTS = 4 * 9  # flips times shifts
NOISE = 0.1  # of the mean variance: whitening further would magnify what differs between a copy and its original
_CHUNK = 256


@dataclass(frozen=True)
class CopyDetector:
    """Whitening and bank.

    mean [D], whiten [D, k]: from coarse image to embedding. bank [V*n, k] float16: unit vectors of all variants of the
    n training cubes; row r belongs to training cube r % n.
    """

    mean: Tensor
    whiten: Tensor
    bank: Tensor

    @property
    def count(self) -> int:
        return len(self.bank) // VARIANTS

    @staticmethod
    def fit(cubes: Tensor, dimension: int = 64) -> CopyDetector:
        """From training cubes float32 [n, C, H, W]: components of the flipped cubes, whitened down to a noise floor."""
        blocks = [cubes[i : i + _CHUNK] for i in range(0, len(cubes), _CHUNK)]
        flipped = torch.cat([_coarse(filled_logs(v)) for block in blocks for v in _variants(block)[::9]])
        mean = flipped.mean(0)
        variance, directions = torch.linalg.eigh(torch.cov(flipped.T, correction=0).double())
        k = min(dimension, len(flipped) - 1, len(variance))
        variance, directions = variance.flip(0)[:k], directions.flip(1)[:, :k]
        whiten = (directions / (variance + NOISE * variance.mean()).sqrt()).float()
        empty = CopyDetector(mean, whiten, whiten.new_zeros(0, k).half())
        bank = [torch.stack([empty.embed(filled_logs(v)).half() for v in _variants(block)]) for block in blocks]
        return CopyDetector(mean, whiten, torch.cat(bank, dim=1).flatten(0, 1))

    def embed(self, logs: Logs) -> Tensor:
        """Unit vectors [N, k]."""
        return F.normalize((_coarse(logs) - self.mean) @ self.whiten, dim=-1)

    @torch.no_grad()
    def nearest(self, logs: Logs) -> tuple[Tensor, Tensor]:
        """Distance [N] (0 for a copy, about 1.4 for the unrelated) to, and index [N] of, the nearest training cube."""
        cosine, row = (self.embed(logs) @ self.bank.float().T).max(1)
        return (2 - 2 * cosine).clamp_min(0).sqrt(), row % self.count

    def to(self, device: torch.device | str) -> CopyDetector:
        return CopyDetector(self.mean.to(device), self.whiten.to(device), self.bank.to(device))


def _coarse(logs: Logs) -> Tensor:
    """[N, D]: coarse log images of the groups of bands, each without its mean."""
    bands = logs.filled.shape[1]
    groups = min(GROUPS, bands)
    bounds = [math.ceil(g * bands / groups) for g in range(groups + 1)]
    small = F.adaptive_avg_pool2d(logs.filled, GRID)
    coarse = torch.stack([small[:, a:b].mean(1) for a, b in itertools.pairwise(bounds)], 1)
    return (coarse - coarse.mean((2, 3), keepdim=True)).flatten(1)


def _variants(cubes: Tensor) -> list[Tensor]:
    """Every flip and shift of the cubes; the unshifted one first of each nine."""
    shifts = sorted(((dy, dx) for dy in (0, -SHIFT, SHIFT) for dx in (0, -SHIFT, SHIFT)), key=lambda s: s != (0, 0))
    flips = ([], [3], [2], [2, 3])
    return [shift(cubes.flip(dims) if dims else cubes, dy, dx) for dims in flips for dy, dx in shifts]


def shift(cubes: Tensor, down: int, right: int) -> Tensor:
    """The cubes moved by whole pixels, edges repeated."""
    height, width = cubes.shape[-2:]
    rows = (torch.arange(height, device=cubes.device) - down).clamp(0, height - 1)
    columns = (torch.arange(width, device=cubes.device) - right).clamp(0, width - 1)
    return cubes[..., rows[:, None], columns]
