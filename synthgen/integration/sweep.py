"""Running a sweep: one process per job and device; what is done is not done again; what fails is recorded."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue

from synthgen.integration.sweep_plan import Cell, Sweep, cells, ordered
from synthgen.runs.files import read_json, write_json, write_text

Run = Callable[[str, Cell, int], str | None]  # kind, cell, device -> the reason of a failure


def run_sweep(sweep: Sweep, run: Run | None = None) -> list[Path]:
    """Train, screen, order, train, time and judge; returns the records, one JSON per cell and seed.

    A cell whose record says done with the same settings is left alone; a failed one is tried again.
    """
    plan, results = cells(sweep), Path(sweep.results)
    config = Path(sweep.out) / "sweep.yaml"
    write_text(config, sweep.to_yaml())
    run, devices = run or _process(config), sweep.devices or _devices(sweep.cpu)
    todo = [c for c in plan if not done(results / c.file, c)]
    coders = list({c.coder: c for c in todo}.values())
    failed = dict(_in_parallel(run, "coder", coders, devices))
    broken = {cell.coder: reason for cell, reason in failed.items()}
    for c in todo:
        if c.coder in broken:
            _record(results, c, f"autoencoder: {broken[c.coder]}")
    screens = {c.coder: Path(sweep.out) / c.coder / "screen.json" for c in coders}
    screen = {name: read_json(path)["interpolation_frechet"] for name, path in screens.items() if path.exists()}
    rest, seen = ordered([c for c in todo if c.coder not in broken], screen), set()
    first = [c for c in rest if not (c.flow in seen or seen.add(c.flow))]  # those that share a training wait for it
    for part in (first, [c for c in rest if c not in first]):
        for cell, reason in _in_parallel(run, "cell", part, devices):
            _record(results, cell, reason)
    return [results / c.file for c in plan]


def done(path: Path, cell: Cell) -> bool:
    """Whether the record at `path` is of this cell, with these settings, and says done."""
    if not path.exists():
        return False
    found = read_json(path)
    return found["status"] == "done" and all(found.get(k) == v for k, v in cell._asdict().items())


def _record(results: Path, cell: Cell, reason: str) -> None:
    write_json(results / cell.file, {"status": "failed", "reason": reason, **cell._asdict()})


def _in_parallel(run: Run, kind: str, jobs: Sequence[Cell], devices: int) -> list[tuple[Cell, str]]:
    """Run jobs, one at a time on each device, in order; those that failed with their reasons."""
    free: Queue[int] = Queue()
    for device in range(devices):
        free.put(device)

    def one(cell: Cell) -> str | None:
        device = free.get()
        try:
            return run(kind, cell, device)
        finally:
            free.put(device)

    with ThreadPoolExecutor(devices) as pool:
        return [(c, reason) for c, reason in zip(jobs, pool.map(one, jobs), strict=True) if reason]


def _process(config: Path) -> Run:
    def run(kind: str, cell: Cell, device: int) -> str | None:
        command = [sys.executable, "-m", "synthgen.integration.sweep_cell", str(config), kind, cell.file]
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        gpu = visible[device] if device < len(visible) and visible[device] else str(device)
        ended = subprocess.run(
            command, env={**os.environ, "CUDA_VISIBLE_DEVICES": gpu}, stderr=subprocess.PIPE, text=True, check=False
        )
        if ended.returncode == 0:
            return None
        if ended.returncode < 0:
            return f"ended by signal {-ended.returncode} (9: most likely out of memory)"
        return (ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"])[-1][:500]

    return run


def _devices(cpu: bool) -> int:
    import torch

    return 1 if cpu else max(1, torch.cuda.device_count())
