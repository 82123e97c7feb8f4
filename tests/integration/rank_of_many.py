"""One of the processes of `test_integration_ranks`: draws batches, augments them, and leaves what it saw."""

import sys

import numpy as np
import torch

from synthgen.config import build
from synthgen.cubes.cohort.cohort import Cohort
from synthgen.cubes.cohort.splits import load_or_make_split
from synthgen.integration.mix import Mix, as_ratio
from synthgen.integration.options import GateOptions, Pretraining, SupplyOptions
from synthgen.integration.pretrain import draw_batch
from synthgen.integration.supply.open import open_supply
from synthgen.integration.supply.real import RealCubes
from synthgen.runs.folder import RunFolder
from synthgen.runs.processes.device import make_accelerator
from synthgen.ssl.augment.pipeline import Augmenter

data, generator, out, ratio = sys.argv[1:]
config = build(
    Pretraining,
    {"data": data, "generator": generator, "gates": "report", "batch_size": 6, "synthetic_ratio": ratio, "reuse": 2,
     "sampler": "euler", "sampler_steps": 1},
)  # fmt: skip
ranks = make_accelerator(cpu=True)
rank, world = ranks.process_index, ranks.num_processes
cohort = Cohort.open(data)
split = load_or_make_split(cohort)
mix = Mix(as_ratio(ratio), config.batch_size)
real = RealCubes(cohort, split.train, ranks.device)
run = RunFolder(out, config, main=rank == 0)
gates = config.part(GateOptions)
supply = open_supply(config.part(SupplyOptions), gates, config.seed, mix, cohort, split, ranks, run, None)
augmenter = Augmenter(config.augmentation, cohort.wavelengths, cohort.height)
seen = []
for step in range(9):
    batch = draw_batch(step, mix, real, supply, config.seed, rank, world)
    places = rank * config.batch_size + torch.arange(config.batch_size)
    views = augmenter.views(batch["cube"], config.seed, step, places)
    seen.append([batch["cube"], batch["id"], batch["is_synthetic"], *views])
np.savez(f"{out}/{rank}.npz", *[np.stack([part.numpy() for part in column]) for column in zip(*seen, strict=True)])
