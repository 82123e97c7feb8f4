"""Do cohorts larger than memory stream without stalls? `python -m benchmarks.speed.streaming`.

The steps of a pretraining on cubes of 672 pixels: from memory; from the file as it is written, mapped; from a
compressed one through HDF5; each with and without the next step's cubes read ahead, in turn. Then steps that only wait,
as long as a GPU would compute, to see how short a step may be before it waits for cubes. Before each turn the file is
dropped from the page cache, and each cube is read once.
"""

from __future__ import annotations

import argparse
import gc
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import torch

from benchmarks.common import record
from synthgen.cubes.cohort.cohort import Cohort
from synthgen.cubes.phantom.cohort import simulate_cohort
from synthgen.cubes.reflectance import band_statistics
from synthgen.integration.options import Pretraining
from synthgen.integration.supply.real import RealCubes
from synthgen.runs.processes.device import set_threads
from synthgen.ssl.augment.pipeline import Augmenter
from synthgen.ssl.backbone import make_backbone, standardise
from synthgen.ssl.methods.optim import make_optimizer
from synthgen.ssl.methods.simclr import SimCLR

AHEAD = ", read ahead"
ARMS = ("memory", "mapped", f"mapped{AHEAD}", "file", f"file{AHEAD}")
PAUSES = (0.1, 0.2, 0.4, 0.8)  # seconds that a step of a GPU takes
Train = Callable[[torch.Tensor, int], object]


class _Eyes:
    """A cohort as it is written, and compressed."""

    def __init__(self, folder: Path, count: int, size: int):
        self.plain = simulate_cohort(folder / "plain.h5", patients=(count + 1) // 2, size=size, seed=3)
        with h5py.File(self.plain.path) as theirs, h5py.File(folder / "packed.h5", "w") as ours:
            packing = {"compression": "gzip", "compression_opts": 2, "shuffle": True}  # as CohortWriter compresses
            cubes = theirs["cubes"]
            packed = ours.create_dataset("cubes", cubes.shape, "<u2", chunks=cubes.chunks, **packing)
            packed.attrs["scale"] = cubes.attrs["scale"]
            for i, cube in enumerate(cubes):
                packed[i] = cube
            for name in ("wavelengths_nm", "patient_id"):
                theirs.copy(name, ours)
        self.packed = Cohort.open(folder / "packed.h5")

    def of(self, arm: str) -> Cohort:
        return self.packed if arm.startswith("file") else self.plain

    def megabytes(self, arm: str) -> float:
        """Of one cube, on disk."""
        with h5py.File(self.of(arm).path) as file:
            return file["cubes"].id.get_storage_size() / len(file["cubes"]) / 1e6

    def steps(self, arm: str, order: np.ndarray, train: Train, device: str) -> tuple[list[float], list[float]]:
        """Seconds that each step waits for its cubes, and that it takes in all; the first, announced by none, apart."""
        gc.collect()  # pages that are mapped cannot be dropped
        _forget(self.of(arm).path)
        everybody = tuple(sorted(set(self.plain.patient_id)))
        real = RealCubes(self.of(arm), everybody, torch.device(device), free=None if arm == "memory" else 0)
        assert arm.startswith(real.kept), f"{arm} is {real.kept}"
        waits, wholes = [], []
        for step, positions in enumerate(order):
            begun = time.perf_counter()
            cubes, _ = real.draw(positions)
            if arm.endswith(AHEAD) and step + 1 < len(order):
                real.expect(order[step + 1])
            waits.append(time.perf_counter() - begun)
            train(cubes, step)
            wholes.append(time.perf_counter() - begun)
        return waits[1:], wholes[1:]


def measure(size: int = 672, batch: int = 4, steps: int = 10, turns: int = 2, device: str = "cpu") -> None:
    """Seconds of a step and the fraction of it that waits for cubes, by arm; then by the length of a step."""
    set_threads()
    waits: dict[str, list[float]] = {name: [] for name in ARMS}
    wholes: dict[str, list[float]] = {name: [] for name in ARMS}
    with tempfile.TemporaryDirectory() as folder:
        eyes = _Eyes(Path(folder), batch * steps, size)
        order = np.random.default_rng(0).permutation(batch * steps).reshape(steps, batch)
        train = _step(eyes.plain, device)
        for _ in range(turns):
            for arm in ARMS:
                waited, whole = eyes.steps(arm, order, train, device)
                waits[arm] += waited
                wholes[arm] += whole
        short = {arm: {} for arm in ARMS if arm.endswith(AHEAD)}
        for arm, found in short.items():
            for pause in PAUSES:
                waited, whole = eyes.steps(arm, order, lambda cubes, step, pause=pause: time.sleep(pause), device)
                found[f"{pause} s"] = round(sum(waited) / sum(whole), 3)
        disk = {arm: eyes.megabytes(arm) for arm in ("mapped", "file")}
    held = float(np.median(wholes["memory"]))
    record(
        "streaming",
        {
            "on": device,
            "what": f"cubes of {size} pixels, batch {batch}, resnet18, {steps} steps in {turns} turns",
            "mb_a_cube_on_disk": {k: round(v, 1) for k, v in disk.items()},
            "mb_a_second_from_a_cold_disk": {k: round(batch * v / float(np.median(waits[k]))) for k, v in disk.items()},
            "seconds_a_step": {k: round(float(np.median(v)), 3) for k, v in wholes.items()},
            "over_memory": {k: round(float(np.median(v)) / held, 3) for k, v in wholes.items()},
            "share_of_a_step_that_waits": {k: round(sum(waits[k]) / sum(v), 4) for k, v in wholes.items()},
            "longest_wait_s": {k: round(max(v), 3) for k, v in waits.items()},
            "share_that_waits_where_a_step_otherwise_takes": short,
        },
    )


def _step(cohort: Cohort, device: str) -> Train:
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
