"""Do cohorts larger than memory stream without stalls? `python -m benchmarks.streaming`.

The steps of a pretraining on cubes of 672 pixels, from memory, from the file with the next step's cubes read ahead, and
from the file without; in turn. Before each turn the file is dropped from the page cache, and each cube is read once.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.common import record
from synthgen.cubes.cohort import Cohort
from synthgen.cubes.phantom import simulate_cohort
from synthgen.cubes.reflectance import band_statistics
from synthgen.integration.options import Pretraining
from synthgen.integration.sources import RealCubes
from synthgen.runs.device import set_threads
from synthgen.ssl.augment import Augmenter
from synthgen.ssl.backbone import make_backbone, standardise
from synthgen.ssl.optim import make_optimizer
from synthgen.ssl.simclr import SimCLR

ARMS = {"memory": (None, False), "file, read ahead": (0, True), "file": (0, False)}  # free bytes, reads ahead


def measure(size: int = 672, batch: int = 4, steps: int = 10, turns: int = 2, device: str = "cpu") -> None:
    """Seconds of a step and the share of it that waits for cubes, by arm."""
    set_threads()
    waits: dict[str, list[float]] = {name: [] for name in ARMS}
    wholes: dict[str, list[float]] = {name: [] for name in ARMS}
    with tempfile.TemporaryDirectory() as folder:
        cohort = simulate_cohort(Path(folder) / "eyes.h5", patients=(batch * steps + 1) // 2, size=size, seed=3)
        train = _step(cohort, device)
        order = np.random.default_rng(0).permutation(batch * steps).reshape(steps, batch)
        everybody = tuple(sorted(set(cohort.patient_id)))
        for _ in range(turns):
            for name, (free, ahead) in ARMS.items():
                real = RealCubes(cohort, everybody, torch.device(device), free=free)
                _forget(cohort.path)
                for step in range(steps):
                    begun = time.perf_counter()
                    cubes, _ = real.draw(order[step])
                    if ahead and step + 1 < steps:
                        real.expect(order[step + 1])
                    drawn = time.perf_counter()
                    train(cubes, step)
                    if step:  # nothing announces the first one
                        waits[name].append(drawn - begun)
                        wholes[name].append(time.perf_counter() - begun)
        disk = cohort.path.stat().st_size / len(cohort)
        rate = batch * disk / float(np.median(waits["file"]))
    held = float(np.median(wholes["memory"]))
    record(
        "streaming",
        {
            "on": device,
            "what": f"cubes of {size} pixels, batch {batch}, resnet18, {steps} steps in {turns} turns",
            "mb_a_cube_on_disk": round(disk / 1e6, 1),
            "read_and_unpacked_mb_of_file_a_second": round(rate / 1e6),
            "seconds_a_step": {k: round(float(np.median(v)), 3) for k, v in wholes.items()},
            "over_memory": {k: round(float(np.median(v)) / held, 3) for k, v in wholes.items()},
            "share_of_a_step_that_waits": {k: round(sum(waits[k]) / sum(v), 4) for k, v in wholes.items()},
            "longest_wait_s": {k: round(max(v), 3) for k, v in waits.items()},
        },
    )


def _step(cohort: Cohort, device: str):
    """A training step of SimCLR."""
    config = Pretraining()
    statistics = band_statistics(cohort.cubes(np.arange(4)))
    augmenter = Augmenter(config.augmentation, cohort.wavelengths, cohort.height)
    method = SimCLR(make_backbone("resnet18", cohort.bands, cohort.height), config.simclr).to(device)
    optimizer = make_optimizer(method.trainable_parameters())

    def train(cubes: torch.Tensor, step: int) -> None:
        views = augmenter.views(cubes, 0, step, np.arange(len(cubes)))
        loss, _ = method([standardise(view, statistics) for view in views])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if device != "cpu":
            torch.cuda.synchronize()

    return train


def _forget(path: Path) -> None:
    """Ask the system to drop a file from its page cache."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--size", type=int, default=672)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=10)
    args = parser.parse_args()
    measure(args.size, args.batch, args.steps, device=args.device)
