"""Training cubes: normalised, in memory where they fit, in an order that is a pure function of (seed, step, rank)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from synthgen.cubes.cohort.cohort import Cohort
from synthgen.cubes.cohort.splits import load_or_make_split
from synthgen.cubes.reflectance import BandStatistics
from synthgen.errors import InputError
from synthgen.generator.networks.autoencoder import base_field, coarse_base
from synthgen.generator.normalisation import eye_statistics, normalised
from synthgen.runs.randomness import stream
from synthgen.science.epoch_order import rank_order

MEMORY_BYTES = 4 * 2**30  # cubes that need less are kept as float32 tensors
STATISTICS_CUBES = 256  # band statistics of a larger cohort come from so many, evenly spread


class CubeSource:
    """Normalised log-reflectance of some cubes of a cohort.

    Args:
        cohort: an open cohort. index: the cubes to use. statistics: for the normalisation.
    """

    def __init__(self, cohort: Cohort, index: np.ndarray, statistics: BandStatistics):
        self.cohort, self.index, self.statistics = cohort, np.asarray(index), statistics
        fits = len(index) * cohort.bands * cohort.height * cohort.width * 4 <= MEMORY_BYTES
        self._kept = self._read(self.index) if fits else None

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, positions: Sequence[int] | np.ndarray) -> Tensor:
        """x float32 [n, C, H, W] at these positions of `index`."""
        positions = np.asarray(positions, dtype=np.int64)
        return self._kept[torch.from_numpy(positions)] if self._kept is not None else self._read(self.index[positions])

    def _read(self, index: np.ndarray) -> Tensor:
        x = torch.empty((len(index), self.cohort.bands, self.cohort.height, self.cohort.width))
        for start in range(0, len(index), 64):
            part = torch.from_numpy(self.cohort.cubes(index[start : start + 64]))
            x[start : start + 64] = normalised(part, self.statistics)
        return x


def split_index(cohort: Cohort, patients: str) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
    """The patients to learn from, the indices of their cubes, and those of the held-out (calibration) cubes.

    `patients`: "train", "known" (as train, but the held-out patients are among those named) or "all". Test patients are
    never held out for validation; with "all", or without calibration patients, the validation looks at the training
    cubes themselves.
    """
    if patients == "all":
        seen = cohort.patients
        return seen, cohort.index_of(seen), cohort.index_of(seen)
    split = load_or_make_split(cohort)
    if not split.train:
        raise InputError("the split leaves no patient to learn from", path=cohort.path, remedy="more patients")
    train = cohort.index_of(split.train)
    named = split.known if patients == "known" else split.train
    return named, train, cohort.index_of(split.calibration) if split.calibration else train


def statistics_of(cohort: Cohort, index: np.ndarray) -> BandStatistics:
    """Band statistics of these cubes (of an even selection where there are many); InputError for a constant band."""
    every = -(-len(index) // STATISTICS_CUBES)
    return eye_statistics(cohort.each(index[::every]))


def evenly_spaced(n: int, most: int) -> np.ndarray:
    """At most `most` positions out of n, evenly spread."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(np.int64))


def batch_positions(n: int, batch: int, *, seed: int, step: int, rank: int, world: int) -> np.ndarray:
    """The positions (0..n-1) that `rank` sees in `step`: epoch after epoch of seeded permutations, no rank the same."""
    return rank_order(n, step * batch, batch, "order", seed, rank=rank, world=world)


def training_view(
    x: Tensor, base_grid: int, crop: int | None, where: Tensor | None = None, *, seed: int, step: int, rank: int
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Flip and crop each cube; the base field is that of the whole cube, cropped along: as in use, whatever the crop.

    x [N, C, H, W] and `where`, the regions of its structures [N, R, H, W] -> x, base field (both [N, C, crop, crop] or
    whole) and the regions, cropped and flipped alike.
    """
    random = stream("view", seed, step, rank)
    n, _, height, width = x.shape
    flips = torch.rand(n, 2, generator=random) < 0.5
    tall, wide = (crop or height), (crop or width)
    tops = torch.randint(height - tall + 1, (n,), generator=random)
    lefts = torch.randint(width - wide + 1, (n,), generator=random)
    views, fields, places = [], [], []
    rows = zip(range(n), x, flips.tolist(), tops.tolist(), lefts.tolist(), strict=True)
    for k, cube, (vertical, horizontal), top, left in rows:
        axes = [axis for axis, flip in ((1, vertical), (2, horizontal)) if flip]
        cube = (cube.flip(axes) if axes else cube)[None]
        field = base_field(coarse_base(cube, base_grid), (height, width))
        views.append(cube[..., top : top + tall, left : left + wide])
        fields.append(field[..., top : top + tall, left : left + wide])
        if where is not None:
            place = where[k].flip(axes) if axes else where[k]
            places.append(place[..., top : top + tall, left : left + wide])
    return torch.cat(views), torch.cat(fields), torch.stack(places) if places else None
