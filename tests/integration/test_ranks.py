"""Two and four real processes: disjoint ids, the exact ratio on each, and the augmentations of a single process."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from synthgen.cubes.cohort.splits import load_or_make_split
from synthgen.integration.mix import Mix, as_ratio, real_indices
from synthgen.ssl.augment.pipeline import Augmentation, Augmenter

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize(("world", "ratio"), [(2, "1/3"), (4, "0.5")])
def test_processes_share_the_work_of_one(cohort, generator_folder, tmp_path, world, ratio):
    script = Path(__file__).with_name("rank_of_many.py")
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(world)]
    given = [str(script), str(cohort.path), str(generator_folder), str(tmp_path), ratio]
    done = subprocess.run(
        [*launch, "--main_process_port", "0", *given],
        capture_output=True, text=True, timeout=300, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    parts = [list(np.load(tmp_path / f"{rank}.npz").values()) for rank in range(world)]
    cubes, ids, synthetic, *views = (np.stack(column, 1) for column in zip(*parts, strict=True))  # [step, rank, B, ...]

    mix, batch = Mix(as_ratio(ratio), 6), 6
    index = cohort.index_of(load_or_make_split(cohort).train)
    assert synthetic.sum((0, 2)).tolist() == [mix.synthetic_before(9)] * world
    for step in range(9):
        assert synthetic[step].sum(1).tolist() == [mix.synthetic_in(step)] * world, "exact in every batch"
        for rank in range(world):
            wanted = index[real_indices(mix, step, len(index), 0, rank, world)]
            assert ids[step, rank][~synthetic[step, rank]].tolist() == wanted.tolist()
        made = ids[step][synthetic[step]]
        assert len(set(made.tolist())) == len(made), "no synthetic id twice in a global batch"
    by_rank = [set(ids[:, rank][synthetic[:, rank]].tolist()) for rank in range(world)]
    assert sum(map(len, by_rank)) == len(set().union(*by_rank)), "no id on two ranks"
    assert all(i % world == rank for rank, mine in enumerate(by_rank) for i in mine)

    augmenter = Augmenter(Augmentation(), cohort.wavelengths, cohort.height)
    for step in (0, 8):
        whole = torch.from_numpy(cubes[step].reshape(world * batch, *cubes.shape[3:]))
        alone = augmenter.views(whole, 0, step, np.arange(world * batch))
        for one, many in zip(alone, views, strict=True):
            assert np.array_equal(one.numpy(), many[step].reshape(one.shape)), "augmentations of one process"
