"""One command at a time on a folder: the second is told so instead of writing over the first."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from synthgen.errors import StorageError


@contextmanager
def one_at_a_time(folder: str | os.PathLike) -> Iterator[None]:
    """Hold an existing folder while working in it; StorageError at once when another process holds it.

    The lock is the operating system's, on the folder itself: it leaves no file, and ends with the process however that
    ends. Where there is none (Windows, some network file systems) nothing is locked.
    """
    try:
        import fcntl

        held = os.open(folder, os.O_RDONLY)
    except (ImportError, PermissionError):
        yield
        return
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StorageError(
                "another command is at work on this folder", path=folder, remedy="wait until it is done"
            ) from None
        except OSError:
            pass
        yield
    finally:
        os.close(held)
