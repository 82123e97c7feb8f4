"""`synthgen sweep`: many generators trained, judged and timed; what is done is not done again, what fails is recorded.

Autoencoders first, all of them; then the flows, those on the best autoencoders before the others; at the end every cell
is timed, one at a time, with nothing else at work. Every job is a process of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from synthgen.config import from_command_line
from synthgen.errors import Stopped, must_exist, one_line_errors, writing
from synthgen.integration.sweep_plan import Cell, Job, Sweep, asked, cells, jobs, ordered, record
from synthgen.integration.sweep_words import Clock, words_of
from synthgen.runs.files import read_json, write_json, write_text
from synthgen.runs.lock import one_at_a_time
from synthgen.runs.signals import StopRequest

POLL_SECONDS = 0.2
PATIENCE_SECONDS = 60.0  # that a stopped process gets to write its checkpoint


class Slot(NamedTuple):
    """A place for one process: its CUDA device ("" for none) and its CPU threads."""

    device: str
    threads: int


Start = Callable[[Sweep, Job, Slot], "subprocess.Popen[bytes]"]


def run_sweep(sweep: Sweep, start: Start | None = None) -> list[Path]:
    """Train, screen, order, train, judge and time; returns the records, one JSON per cell and seed.

    Raises InputError (no such cohort), ConfigError (no cells), Stopped (after Ctrl-C; the same command goes on).
    """
    plan, results = cells(sweep), Path(sweep.results)
    must_exist(sweep.data)
    start = start or start_process
    with writing(sweep.out):
        Path(sweep.out).mkdir(parents=True, exist_ok=True)
    with one_at_a_time(sweep.out):
        write_text(Path(sweep.out) / "sweep.yaml", sweep.to_yaml())
        todo = [c for c in plan if record(sweep, c) is None]
        clock = Clock(sweep, todo)
        broken = _run(sweep, jobs("coder", todo), slots(sweep), start, clock)
        for cell in todo:
            if cell.coder in broken:
                _failed(sweep, cell, f"autoencoder: {broken[cell.coder]}")
        rest = ordered([c for c in todo if c.coder not in broken], screened(sweep, todo))
        broken = _run(sweep, jobs("flow", rest), slots(sweep), start, clock)
        for cell in rest:
            if cell.flow in broken and record(sweep, cell) is None:
                _failed(sweep, cell, broken[cell.flow])
        untimed = [c for c in plan if (found := record(sweep, c)) and (sweep.time_again or not found["speed"])]
        alone = slots(sweep.model_copy(update={"devices": 1}))[:1]
        broken = _run(sweep, jobs("speed", untimed), alone, start, clock)
        for cell in untimed:
            found = record(sweep, cell)
            if found and not found["speed"] and cell.coder in broken:
                write_json(results / cell.file, {**found, "reason": f"timing: {broken[cell.coder]}"})
    return [results / c.file for c in plan]


def screened(sweep: Sweep, some: Sequence[Cell]) -> dict[str, float]:
    """Interpolation distance of the autoencoders that have one."""
    paths = {c.coder: Path(sweep.out) / c.coder / "screen.json" for c in some}
    return {name: read_json(path)["interpolation_frechet"] for name, path in paths.items() if path.exists()}


def slots(sweep: Sweep) -> list[Slot]:
    """Where processes may run: `devices` of them, on the GPUs in turn, each with its share of the cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    cores = int(os.environ.get("SYNTHGEN_THREADS", cores))
    cards = 0 if sweep.cpu else torch.cuda.device_count()
    told = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = [name.strip() for name in told.split(",") if name.strip()] or [str(i) for i in range(cards)]
    count = sweep.devices or max(1, cards)
    return [Slot(names[i % cards] if cards else "", max(1, cores // count)) for i in range(count)]


def start_process(sweep: Sweep, job: Job, slot: Slot) -> subprocess.Popen[bytes]:
    """`python -m synthgen.integration.sweep_job` with this slot's device and threads; its words go to `logs/`."""
    log = _log(sweep, job)
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    environment |= {"CUDA_VISIBLE_DEVICES": slot.device, "SYNTHGEN_QUIET": "1"}
    environment |= {name: str(slot.threads) for name in ("SYNTHGEN_THREADS", "OMP_NUM_THREADS")}
    command = [sys.executable, "-m", "synthgen.integration.sweep_job", str(Path(sweep.out) / "sweep.yaml")]
    with log.open("wb") as words:  # a session of its own: Ctrl-C reaches it through us, once
        return subprocess.Popen(
            [*command, job.kind, job.name], env=environment, stdout=words, stderr=words, start_new_session=True
        )


def _run(sweep: Sweep, todo: Sequence[Job], free: list[Slot], start: Start, clock: Clock) -> dict[str, str]:
    """Run jobs in order, one in each slot at a time; returns why which failed."""
    waiting, running, failed = list(todo), {}, {}
    if todo:
        clock.total[todo[0].kind] = len(todo)
    with StopRequest() as stop:
        try:
            while waiting or running:
                while waiting and free and not stop:
                    job, slot = waiting.pop(0), free.pop(0)
                    running[job.name] = (job, slot, start(sweep, job, slot), time.monotonic())
                for name, (job, slot, process, begun) in list(running.items()):
                    if process.poll() is None:
                        continue
                    del running[name]
                    free.append(slot)
                    if process.returncode and not stop:
                        failed[name] = _last_words(_log(sweep, job), process.returncode)
                    left = clock.ended(job, time.monotonic() - begun)
                    print(
                        words_of(sweep, job, failed.get(name), clock.count(job.kind), left), file=sys.stderr, flush=True
                    )
                if stop:
                    raise Stopped(
                        "the sweep was asked to stop; finished cells and checkpoints are kept",
                        path=sweep.out,
                        exit_code=stop.exit_code,
                        remedy="the same command goes on",
                    )
                if running:
                    time.sleep(POLL_SECONDS)
        finally:
            _end([process for _, _, process, _ in running.values()])
    return failed


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Ask processes to write their checkpoints and stop; those that do not are ended."""
    for process in processes:
        process.terminate()
    until = time.monotonic() + PATIENCE_SECONDS
    for process in processes:
        try:
            process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()


def _failed(sweep: Sweep, cell: Cell, reason: str) -> None:
    write_json(Path(sweep.results) / cell.file, {"status": "failed", "reason": reason, **asked(sweep, cell)})


def _log(sweep: Sweep, job: Job) -> Path:
    return Path(sweep.out) / "logs" / f"{job.kind}_{job.name}.log"


def _last_words(log: Path, code: int) -> str:
    if code < 0:
        return f"ended by signal {-code}" + (" (most likely out of memory)" if code == -9 else "")
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    errors = [line for line in lines if line.startswith("error: ")] or lines
    return errors[-1].removeprefix("error: ")[:500] if errors else f"exit code {code}"


def main(argv: Sequence[str] | None = None) -> None:
    """`synthgen sweep`: one flag per field."""
    argv = sys.argv[1:] if argv is None else argv
    with one_line_errors("--debug" in argv):
        words = "Train, judge and time many generators: a grid, or named variants."
        sweep, _ = from_command_line(Sweep, argv, "synthgen sweep", words)
        records = [read_json(path) for path in run_sweep(sweep) if path.exists()]
        done = sum(r["status"] == "done" for r in records)
        print(
            f"{sweep.results}: {done} cells done, {len(records) - done} failed; see `synthgen pareto {sweep.results}`"
        )


if __name__ == "__main__":
    main()
