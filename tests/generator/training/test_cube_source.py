"""The cubes that trainings see: each once in an epoch over all ranks, crops with the whole cube's base, few held."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from synthgen.cubes.cohort.cohort import Cohort
from synthgen.generator.training.cube_source import batch_positions, statistics_of, training_view


def test_statistics_of_many_cubes_hold_few(cohort_path: Path, monkeypatch):
    read, most = Cohort.cubes, []

    def spy(self, index=None):
        found = read(self, index)
        most.append(len(found))
        return found

    cohort = Cohort.open(cohort_path)
    monkeypatch.setattr("synthgen.cubes.cohort.cohort._READ_BYTES", 2 * 4 * cohort.bands * cohort.height * cohort.width)
    whole = statistics_of(cohort, np.arange(len(cohort)))
    monkeypatch.setattr(Cohort, "cubes", spy)
    assert statistics_of(cohort, np.arange(len(cohort))) == whole and max(most) <= 2


def test_the_order_covers_every_cube_once_per_epoch_over_all_ranks():
    seen = [
        position
        for step in range(6)
        for rank in range(2)
        for position in batch_positions(24, 2, seed=0, step=step, rank=rank, world=2)
    ]
    assert sorted(seen) == list(range(24))
    one = np.concatenate([batch_positions(24, 4, seed=0, step=s, rank=0, world=1) for s in range(6)])
    assert one.tolist() == seen  # two ranks see together what one sees alone


def test_a_crops_base_is_the_whole_cubes():
    x = torch.randn(3, 6, 32, 32)
    whole, field, _ = training_view(x, 4, None, seed=0, step=0, rank=0)
    part, part_field, _ = training_view(x, 4, 16, seed=0, step=0, rank=0)
    assert part.shape == part_field.shape == (3, 6, 16, 16)
    windows = field.unfold(2, 16, 1).unfold(3, 16, 1)  # [N, C, 17, 17, 16, 16]
    gap = (windows - part_field[:, :, None, None]).abs().amax((1, 4, 5)).flatten(1).amin(1)
    assert gap.max() == 0 and whole.shape == x.shape


def test_regions_are_flipped_and_cropped_with_their_cubes():
    x = torch.rand(8, 3, 32, 32)
    where = x[:, :2] > 0.5
    for crop in (None, 16):
        view, _, regions = training_view(x, 4, crop, where, seed=1, step=2, rank=0)
        assert regions is not None and torch.equal(regions, view[:, :2] > 0.5)
    assert training_view(x, 4, None, seed=1, step=2, rank=0)[2] is None
