"""`synthgen sweep`: many generators trained, judged and timed; what is done is not done again, what fails is recorded.

Autoencoders first, all of them; then the flows, those on the best autoencoders before the others; at the end every cell
is timed, one at a time, with nothing else at work. Every job is a process of its own.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from synthgen.cubes.cohort.cohort import Cohort
from synthgen.errors import MismatchError, Stopped, must_exist
from synthgen.experiments.jobs import Slot, deal, last_words, slots, start_module
from synthgen.experiments.sweep.messages import Clock, words_of
from synthgen.experiments.sweep.plan import Cell, Job, Sweep, asked, cells, jobs, ordered, record
from synthgen.quality.gates import load_gates
from synthgen.runs.files import read_json, write_json, write_text
from synthgen.runs.locks import one_at_a_time

Start = Callable[[Sweep, Job, Slot], "subprocess.Popen[bytes]"]


def run_sweep(sweep: Sweep, start: Start | None = None) -> list[Path]:
    """Train, screen, order, train, judge and time; returns the records, one JSON per cell and seed.

    Raises InputError (no such cohort), ConfigError (no cells), MismatchError (records of other eyes or gates), Stopped
    (after Ctrl-C; the same command goes on).
    """
    plan, results = cells(sweep), Path(sweep.results)
    must_exist(sweep.data)
    start = start or start_process
    with one_at_a_time(sweep.out, make=True):
        _check_kept(sweep, [found for c in plan if (found := record(sweep, c)) and "cohort" in found])
        write_text(Path(sweep.out) / "sweep.yaml", sweep.to_yaml())
        todo = [c for c in plan if record(sweep, c) is None]
        clock = Clock(sweep, todo)
        broken = _run(sweep, jobs("coder", todo), places(sweep), start, clock)
        for cell in todo:
            if cell.coder in broken:
                _failed(sweep, cell, f"autoencoder: {broken[cell.coder]}")
        rest = ordered([c for c in todo if c.coder not in broken], screened(sweep, todo))
        broken = _run(sweep, jobs("flow", rest), places(sweep), start, clock)
        for cell in rest:
            if cell.flow in broken and record(sweep, cell) is None:
                _failed(sweep, cell, broken[cell.flow])
        untimed = [c for c in plan if (found := record(sweep, c)) and (sweep.time_again or not found["speed"])]
        alone = slots(1, sweep.cpu)
        broken = _run(sweep, jobs("speed", untimed), alone, start, clock)
        for cell in untimed:
            found = record(sweep, cell)
            if found and not found["speed"] and cell.coder in broken:
                write_json(results / cell.file, {**found, "reason": f"timing: {broken[cell.coder]}"})
    return [results / c.file for c in plan]


def _check_kept(sweep: Sweep, kept: Sequence[dict[str, Any]]) -> None:
    """MismatchError where finished records are of other eyes or gates: they would pass for these."""
    if not kept:
        return
    mine = {"cohort": Cohort.open(sweep.data).content_hash, "gates_hash": load_gates(sweep.gates).hash}
    for what, key in (("another cohort", "cohort"), ("other gates", "gates_hash")):
        others = {found[key] for found in kept} - {mine[key]}
        if others:
            raise MismatchError(
                f"holds results of {what}",
                path=sweep.results,
                found=", ".join(sorted(others)),
                expected=mine[key],
                remedy="choose another `--results`",
            )


def screened(sweep: Sweep, some: Sequence[Cell]) -> dict[str, float]:
    """Interpolation distance of the autoencoders that have one."""
    paths = {c.coder: Path(sweep.out) / c.coder / "screen.json" for c in some}
    return {name: read_json(path)["interpolation_frechet"] for name, path in paths.items() if path.exists()}


def places(sweep: Sweep) -> list[Slot]:
    """Where its processes may run."""
    return slots(sweep.devices or 0, sweep.cpu)


def start_process(sweep: Sweep, job: Job, slot: Slot) -> subprocess.Popen[bytes]:
    """The job in a process of its own; its words go to `logs/`."""
    arguments = [str(Path(sweep.out) / "sweep.yaml"), job.kind, job.name]
    return start_module("synthgen.experiments.sweep.job", arguments, slot, _log(sweep, job))


def _run(sweep: Sweep, todo: Sequence[Job], free: list[Slot], start: Start, clock: Clock) -> dict[str, str]:
    """Run jobs in order, one in each slot at a time; returns why which failed."""
    failed = {}
    if todo:
        clock.total[todo[0].kind] = len(todo)
    stopped = lambda code: Stopped(
        "the sweep was asked to stop; finished cells and checkpoints are kept",
        path=sweep.out,
        exit_code=code,
        remedy="the same command goes on",
    )
    for job, code, seconds in deal(list(todo), free, lambda job, slot: start(sweep, job, slot), stopped):
        if code:
            failed[job.name] = last_words(_log(sweep, job), code)
        left = clock.ended(job, seconds)
        words = words_of(sweep, job, failed.get(job.name), clock.count(job.kind), left)
        print(words, file=sys.stderr, flush=True)
    return failed


def _failed(sweep: Sweep, cell: Cell, reason: str) -> None:
    write_json(Path(sweep.results) / cell.file, {"status": "failed", "reason": reason, **asked(sweep, cell)})


def _log(sweep: Sweep, job: Job) -> Path:
    return Path(sweep.out) / "logs" / f"{job.kind}_{job.name}.log"
