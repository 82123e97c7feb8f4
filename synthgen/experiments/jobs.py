"""Jobs in processes of their own, each on a device and a share of the cores; those of a study and of a sweep."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch

from synthgen.errors import Stopped
from synthgen.runs.cores import usable_cores
from synthgen.runs.parent import PARENT
from synthgen.runs.signals import StopRequest

POLL_SECONDS = 0.2
PATIENCE_SECONDS = 120.0  # that a stopped process gets to write its checkpoint
LAUNCHED = ("RANK", "WORLD_SIZE", "LOCAL_RANK")  # of accelerate; a job is a launch of its own
J = TypeVar("J")


class Slot(NamedTuple):
    """A place for one process: its CUDA device ("" for none) and its CPU threads."""

    device: str
    threads: int


def slots(count: int = 0, cpu: bool = False) -> list[Slot]:
    """Where processes may run: `count` of them (0: one per CUDA device, else one per two cores)."""
    cores = usable_cores()
    cores = int(os.environ.get("SYNTHGEN_THREADS", cores))
    cards = 0 if cpu else torch.cuda.device_count()
    told = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = [name.strip() for name in told.split(",") if name.strip()] or [str(i) for i in range(cards)]
    count = count or cards or max(1, cores // 2)
    return [Slot(names[i % cards] if cards else "", max(1, cores // count)) for i in range(count)]


def start_module(module: str, arguments: Sequence[str], slot: Slot, log: Path) -> subprocess.Popen[bytes]:
    """`python -m module arguments` with this slot's device and threads; its words go to `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {k: v for k, v in os.environ.items() if k not in LAUNCHED}
    environment |= {"CUDA_VISIBLE_DEVICES": slot.device, "SYNTHGEN_QUIET": "1", PARENT: str(os.getpid())}
    environment |= {name: str(slot.threads) for name in ("SYNTHGEN_THREADS", "OMP_NUM_THREADS")}
    command = [sys.executable, "-m", module, *arguments]
    with log.open("wb") as words:  # a session of its own: Ctrl-C reaches it through us, once
        return subprocess.Popen(command, env=environment, stdout=words, stderr=words, start_new_session=True)


def deal(
    waiting: list[J],
    free: list[Slot],
    start: Callable[[J, Slot], subprocess.Popen[bytes]],
    stopped: Callable[[int], Stopped],
    ready: Callable[[J], bool] = lambda job: True,
) -> Iterator[tuple[J, int, float]]:
    """Run jobs in their order, one in each slot at a time; yields (job, exit code, seconds) of each that has ended.

    Args:
        waiting: jobs not begun; begun ones are taken out, and the caller may take out others.
        stopped: the error for an exit code, raised after Ctrl-C or SIGTERM, when the processes have been ended.
        ready: whether a job may begin; asked again whenever one has ended.
    """
    running: list[tuple[J, Slot, subprocess.Popen[bytes], float]] = []
    with StopRequest() as stop:
        try:
            while waiting or running:
                for job in [j for j in waiting if ready(j)][: len(free)]:
                    waiting.remove(job)
                    slot = free.pop(0)
                    running.append((job, slot, start(job, slot), time.monotonic()))
                    if stop:
                        break
                if not running and not stop:
                    return  # what is left will never be ready
                for entry in [e for e in running if e[2].poll() is not None]:
                    running.remove(entry)
                    job, slot, process, begun = entry
                    free.append(slot)
                    if not (stop and process.returncode):  # a process that was stopped with us has not failed
                        yield job, process.returncode, time.monotonic() - begun
                if stop:
                    raise stopped(stop.exit_code)
                time.sleep(POLL_SECONDS)
        finally:
            end([process for _, _, process, _ in running])


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
