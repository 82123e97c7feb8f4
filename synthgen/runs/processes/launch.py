"""Several processes of one command on this machine, which stop, fail and end as one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from synthgen.errors import EXIT_INTERRUPTED, EXIT_TERMINATED, ConfigError
from synthgen.runs.processes.parent import PARENT

POLL_SECONDS = 0.1
STOP_SECONDS = 120.0  # that all get to write a checkpoint
END_SECONDS = 10.0  # that the others get to end by themselves when one has failed, and again after SIGTERM


def in_processes(words: Sequence[str], count: int) -> None:
    """Return where one process was asked for, or this is one of them; else run `synthgen WORDS` in all and exit as they
    do.
    """
    if "RANK" in os.environ:
        world = int(os.environ.get("WORLD_SIZE", "1"))
        if count not in (1, world):
            raise ConfigError("--processes is not the launcher's number of processes", found=count, expected=world)
        return
    if count > 1:
        sys.exit(launch(["-m", "synthgen", *words], count))


def launch(words: Sequence[str], count: int) -> int:
    """Run `python WORDS` in `count` processes that torch.distributed joins, one for each GPU where there are some.

    SIGINT and SIGTERM go to every process, once, and this one waits for the last. When one fails the others are ended.
    The first process speaks; another one's words are shown when it is the first to fail.

    Returns: the exit code of the first that ended badly (128 + n for signal n), or 0.
    """
    asked: list[int] = []
    before = {n: signal.signal(n, lambda number, _: asked.append(number)) for n in (signal.SIGINT, signal.SIGTERM)}
    shared = {
        "WORLD_SIZE": count,
        "LOCAL_WORLD_SIZE": count,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": _free_port(),
    }
    processes: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory(prefix="synthgen") as folder:
        logs = [Path(folder) / f"{rank}.log" for rank in range(count)]
        try:
            for rank in range(count):
                own = {**shared, "RANK": rank, "LOCAL_RANK": rank, PARENT: os.getpid()}
                processes.append(_start(words, own, logs[rank] if rank else None))
            first = _first_failed(processes, asked)
            code = 0 if first is None else processes[first].wait()
            if first and code not in (EXIT_INTERRUPTED, EXIT_TERMINATED):  # a stop is reported by the first process
                print(logs[first].read_text(errors="replace"), end="", file=sys.stderr, flush=True)
            if code < 0 and not asked:
                text = f"error: process {first} of {count} was ended by signal {-code}"
                print(text + (" (most likely out of memory)" if code == -signal.SIGKILL else ""), file=sys.stderr)
            return 128 - code if code < 0 else code
        finally:
            for process in processes:
                process.kill()
            for number, handler in before.items():
                signal.signal(number, handler)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def _start(words: Sequence[str], own: dict[str, Any], log: Path | None) -> subprocess.Popen[bytes]:
    """One process in a session of its own: Ctrl-C reaches it through us, once."""
    environment = {**os.environ, **{name: str(value) for name, value in own.items()}}
    command = [sys.executable, *words]
    if log is None:
        return subprocess.Popen(command, env=environment, start_new_session=True)
    with log.open("wb") as out:
        return subprocess.Popen(command, env=environment, start_new_session=True, stdout=out, stderr=out)


def _first_failed(processes: list[subprocess.Popen[bytes]], asked: list[int]) -> int | None:
    """Wait for all, passing signals on as they come; the first that ended badly, None when all went well."""
    first, until, passed, last = None, float("inf"), 0, signal.SIGTERM
    while True:
        running = [process for process in processes if process.poll() is None]
        if first is None:
            first = next((rank for rank, process in enumerate(processes) if process.returncode), None)
            if first is not None:
                until = time.monotonic() + (STOP_SECONDS if asked else END_SECONDS)
        if not running:
            return first
        for number in asked[passed:]:
            _tell(running, number)
            passed += 1
        if time.monotonic() > until:
            _tell(running, last)
            until, last = time.monotonic() + END_SECONDS, signal.SIGKILL
        time.sleep(POLL_SECONDS)


def _tell(running: list[subprocess.Popen[bytes]], number: int) -> None:
    for process in running:
        process.send_signal(number)
