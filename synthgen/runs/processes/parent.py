"""A process that a launcher has started ends with it: who kills the launcher, even by -9, leaves no training behind."""

from __future__ import annotations

import os
import signal
import threading
import time

PARENT = "SYNTHGEN_PARENT"  # the process that has started this one to work for it
LAUNCHERS = ("TORCHELASTIC_RUN_ID", "ACCELERATE_MIXED_PRECISION")  # set by torchrun, and by accelerate launch
POLL_SECONDS = 0.5


def launched() -> bool:
    """Whether torch's or accelerate's launcher has started this process."""
    return any(name in os.environ for name in LAUNCHERS)


def end_with_parent() -> None:
    """Where a launcher has started this process: when that is gone, as if SIGTERM had come, which ends in a checkpoint.

    `accelerate launch` dies of SIGTERM and Ctrl-C at once and tells its process nothing. What a shell has started goes
    on when the shell ends, as with `nohup`.
    """
    given = os.environ.pop(PARENT, None)  # not for the processes that this one starts
    watched = any(thread.name == PARENT for thread in threading.enumerate())
    if given or (launched() and not watched):
        parent = int(given or os.getppid())
        threading.Thread(target=_watch, args=(parent,), name=PARENT, daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(POLL_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
