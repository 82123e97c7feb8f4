"""`synthgen sweep`: many generators trained, judged and timed; what is done is not done again, what fails is recorded.

Autoencoders first, all of them; then the flows, those on the best autoencoders before the others; at the end every cell
is timed, one at a time, with nothing else at work. Every job is a process of its own.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from synthgen.cubes.cohort.cohort import Cohort
from synthgen.errors import MismatchError, must_exist
from synthgen.experiments.jobs import Runner, Slot, slots
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
    with one_at_a_time(sweep.out, make=True):
        _check_kept(sweep, [found for c in plan if (found := record(sweep, c)) and "cohort" in found])
        write_text(Path(sweep.out) / "sweep.yaml", sweep.to_yaml())
        todo = [c for c in plan if record(sweep, c) is None]
        clock, config = Clock(sweep, todo), Path(sweep.out) / "sweep.yaml"
        total, begin = sum(clock.total.values()), start and partial(start, sweep)
        runner = Runner[Job]("synthgen.experiments.sweep.job", config, total, start=begin)

        def run(kind: str, some: Sequence[Cell], free: list[Slot]) -> None:
            work = jobs(kind, some)
            clock.total[kind] = len(work)
            for job, seconds in runner.run(work, free):
                left = clock.ended(job, seconds)
                words = words_of(sweep, job, runner.failed.get(job.name), clock.count(kind), left)
                print(words, file=sys.stderr, flush=True)

        run("coder", todo, places(sweep))
        rest = ordered(todo, screened(sweep, todo))
        run("flow", rest, places(sweep))
        for cell in rest:
            if cell.flow in runner.failed and record(sweep, cell) is None:
                failure = {"status": "failed", "reason": runner.failed[cell.flow], **asked(sweep, cell)}
                write_json(results / cell.file, failure)
        untimed = [c for c in plan if (found := record(sweep, c)) and (sweep.time_again or not found["speed"])]
        run("speed", untimed, slots(1, sweep.cpu))
        for cell in untimed:
            found = record(sweep, cell)
            if found and not found["speed"] and cell.timing in runner.failed:
                write_json(results / cell.file, {**found, "reason": f"timing: {runner.failed[cell.timing]}"})
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
