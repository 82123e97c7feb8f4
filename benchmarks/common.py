"""What the benchmarks share: timing in turn, and results that later runs add to."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks import RESULTS, figures
from synthgen.generator.training.fidelity import oxygen_pairs
from synthgen.integration.artifacts import PACKAGED
from synthgen.quality.gates import Gates
from synthgen.quality.per_cube.memorization import MemorizationDetector
from synthgen.runs.files import json_text, write_json
from synthgen.runs.folder import environment
from synthgen.science.bootstrap import middle


def record(name: str, value: dict[str, Any]) -> None:
    """Add a run to `results/<name>.json`: the newest of each thing measured (`what`, `count`) and device.

    Earlier ones are in the history of the file. Pages that show it are written anew."""
    path = RESULTS / f"{name}.json"
    runs = json.loads(path.read_text()) if path.exists() else []
    where = {k: v for k, v in environment().items() if k in ("device", "threads", "python", "packages")}
    where["packages"] = {k: where["packages"][k] for k in ("torch", "lightly", "timm")}
    made = {"date": time.strftime("%Y-%m-%d"), **where, **value}
    same = lambda run: all(run.get(key) == made.get(key) for key in ("what", "count", "device"))
    write_json(path, [*(run for run in runs if not same(run)), made])
    figures.write()
    print(json_text(value, indent=2))


def subject(option: str, what: str, about: str | None) -> tuple[str, str]:
    """From the command line: what is measured (the packaged one by default), and what the record calls it."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument(option, default=PACKAGED, dest="measured", help=what)
    parser.add_argument("--name", default="packaged", help="what the record calls it")
    given = parser.parse_args()
    return given.measured, given.name


def peak_bytes(job: Callable[[], Any], device: str = "cpu") -> int:
    """The most memory that the job's tensors hold at once, beyond what is held before."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        job()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as measured:
        job()
    held = most = 0
    for event in sorted(measured.profiler.kineto_results.events(), key=lambda e: e.start_ns()):
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most


def with_detector(gates: Gates, bank: MemorizationDetector) -> Gates:
    """The same gates with another bank of training cubes."""
    return replace(gates, instruments=replace(gates.instruments, memorization=bank))


def oxygen_interval(real, reconstructed, masks, wavelengths_nm, repeats: int = 1000) -> tuple[float, float]:
    """95 % bootstrap interval, over cubes, of `fidelity.oxygen_contrast`."""
    a, b = oxygen_pairs(real, reconstructed, masks, wavelengths_nm).T
    draws = np.random.default_rng(0).integers(len(a), size=(repeats, len(a)))
    return middle(b[draws].mean(1) / a[draws].mean(1))


def in_turn(jobs: dict[str, Callable[[], Any]], rounds: int = 3, clock: Callable[[], float] = time.perf_counter):
    """Run every job once per round, one after the other: a busy machine is busy for all. Median seconds of each."""
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for job in jobs.values():
        job()  # warm up
    for _ in range(rounds):
        for name, job in jobs.items():
            start = clock()
            job()
            seconds[name].append(clock() - start)
    return {name: float(np.median(values)) for name, values in seconds.items()}
