"""The jobs of a study or a sweep: processes with a log each, on a device and a share of the cores."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Generic, NamedTuple, Protocol, TypeVar

import torch

from synthgen.config import Config, load
from synthgen.errors import Stopped, one_line_errors
from synthgen.runs.locks import one_at_a_time
from synthgen.runs.processes.cores import usable_cores
from synthgen.runs.processes.parent import PARENT
from synthgen.runs.signals import StopRequest

POLL_SECONDS = 0.2
PATIENCE_SECONDS = 120.0  # that a stopped process gets to write its checkpoint
LAUNCHED = ("RANK", "WORLD_SIZE", "LOCAL_RANK")  # of accelerate; a job is a launch of its own


class Named(Protocol):
    """What the runner reads of a job."""

    @property
    def name(self) -> str: ...

    @property
    def needs(self) -> tuple[str, ...]: ...


J = TypeVar("J", bound=Named)
C = TypeVar("C", bound=Config)


class Slot(NamedTuple):
    """A place for one process: its CUDA device ("" for none) and its CPU threads."""

    device: str
    threads: int


def slots(count: int = 0, cpu: bool = False) -> list[Slot]:
    """Where processes may run: `count` of them (0: one per CUDA device, else one per two cores)."""
    cores = usable_cores()
    cores = int(os.environ.get("SYNTHGEN_THREADS", cores))
    cards = 0 if cpu else torch.cuda.device_count()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = [name.strip() for name in visible.split(",") if name.strip()] or [str(i) for i in range(cards)]
    count = count or cards or max(1, cores // 2)
    return [Slot(names[i % cards] if cards else "", max(1, cores // count)) for i in range(count)]


class Runner(Generic[J]):
    """Runs jobs, each after those it needs; a failed one fails those that need it, and the others go on.

    Args:
        module: what the process of a job runs: `python -m module CONFIG NAME`, which calls `run_named`.
        config: the file that says what the jobs are; logs go to `logs/` beside it.
        total: jobs there are, `done` of them (by name) before.
        finished: whether a job whose process ended well has left what it should.
        start: starts the process of a job, in place of the one above.
    """

    def __init__(
        self,
        module: str,
        config: Path,
        total: int,
        done: Iterable[str] = (),
        finished: Callable[[J], bool] = lambda job: True,
        start: Callable[[J, Slot], subprocess.Popen[bytes]] | None = None,
    ):
        self.module, self.config, self.total, self.finished = module, config, total, finished
        self.start = start or self._start
        self.done: set[str] = set(done)
        self.failed: dict[str, str] = {}  # why, by name

    def log(self, name: str) -> Path:
        return self.config.parent / "logs" / f"{name}.log"

    def run(self, jobs: Iterable[J], free: Sequence[Slot]) -> Iterator[tuple[J, float]]:
        """Run jobs in their order, one in each slot at a time; yields each that has ended, and its seconds.

        Raises Stopped after Ctrl-C or SIGTERM, when the processes have been ended.
        """
        waiting, free = list(jobs), list(free)
        known = {job.name for job in waiting} | self.done | self.failed.keys()
        assert all(set(job.needs) <= known for job in waiting), "a job needs what nobody makes"
        running: list[tuple[J, Slot, subprocess.Popen[bytes], float]] = []
        with StopRequest() as stop:
            try:
                while waiting or running:
                    for job in [j for j in waiting if set(j.needs) & self.failed.keys()]:  # in order: chains follow
                        waiting.remove(job)
                        need = next(name for name in job.needs if name in self.failed)
                        self.failed[job.name] = f"needs {need}: {self.failed[need]}"
                        yield job, 0.0
                    for job in [j for j in waiting if set(j.needs) <= self.done][: len(free)]:
                        waiting.remove(job)
                        slot = free.pop(0)
                        running.append((job, slot, self.start(job, slot), time.monotonic()))
                        if stop:
                            break
                    for entry in [e for e in running if e[2].poll() is not None]:
                        running.remove(entry)
                        job, slot, process, begun = entry
                        free.append(slot)
                        if not (stop and process.returncode):  # a process that was stopped with us has not failed
                            self._ended(job, process.returncode)
                            yield job, time.monotonic() - begun
                    if stop:
                        raise Stopped(
                            f"{len(self.done)} of {self.total} jobs are finished, in {self.config.parent}",
                            exit_code=stop.exit_code, remedy="the same command goes on",
                        )  # fmt: skip
                    time.sleep(POLL_SECONDS)
            finally:
                end([process for _, _, process, _ in running])

    def _ended(self, job: J, code: int) -> None:
        if code == 0 and self.finished(job):
            self.done.add(job.name)
        else:
            self.failed[job.name] = f"{last_words(self.log(job.name), code)} (see {self.log(job.name)})"

    def _start(self, job: J, slot: Slot) -> subprocess.Popen[bytes]:
        log = self.log(job.name)
        log.parent.mkdir(parents=True, exist_ok=True)
        environment = {k: v for k, v in os.environ.items() if k not in LAUNCHED}
        environment |= {"CUDA_VISIBLE_DEVICES": slot.device, "SYNTHGEN_QUIET": "1", PARENT: str(os.getpid())}
        environment |= {name: str(slot.threads) for name in ("SYNTHGEN_THREADS", "OMP_NUM_THREADS")}
        command = [sys.executable, "-m", self.module, str(self.config), job.name]
        with log.open("wb") as words:  # a session of its own: Ctrl-C reaches it through us, once
            return subprocess.Popen(command, env=environment, stdout=words, stderr=words, start_new_session=True)


def run_named(settings: type[C], jobs_of: Callable[[C], Iterable[J]], run: Callable[[C, J], object]) -> None:
    """The process of one job: its command line is `CONFIG NAME`, the job is held by one process at a time."""
    path, name = sys.argv[1:]
    with one_line_errors():
        config = load(settings, path)
        with one_at_a_time(Path(path).parent / "at_work" / name, make=True):
            run(config, next(job for job in jobs_of(config) if job.name == name))


def end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Ask processes to write their checkpoints and stop; those that do not are ended."""
    for process in processes:
        process.terminate()
    until = time.monotonic() + PATIENCE_SECONDS
    for process in processes:
        try:
            process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()


def last_words(log: Path, code: int) -> str:
    """Why a process failed: the error it has written, or how it ended."""
    if code < 0:
        return f"ended by signal {-code}" + (" (most likely out of memory)" if code == -9 else "")
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    errors = [line for line in lines if line.startswith("error: ")] or lines
    return errors[-1].removeprefix("error: ")[:500] if errors else f"exit code {code}"
