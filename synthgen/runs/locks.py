"""One command at a time on a folder or a file: the second is refused instead of writing over the first."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from synthgen.errors import StorageError, writing


@contextmanager
def one_at_a_time(path: str | os.PathLike, *, make: bool = False) -> Iterator[None]:
    """Hold a folder, or the name of a file, while working on it; StorageError at once when another command holds it.

    The lock is the operating system's and ends with the process however that ends. A folder is locked itself; for a
    file it is `.<name>.lock` beside it, which is removed afterwards (one that a killed process has left locks nothing).
    Where there are no such locks (Windows, some network file systems) nothing is locked.

    Args:
        make: make the folder first where there is none, and then remove it afterwards if nothing was written into it.
    """
    path = Path(path)
    fresh = make and not path.exists()
    if make:
        with writing(path):
            if path.exists() and not path.is_dir():
                raise StorageError("is a file where a folder is to be written", path=path)
            path.mkdir(parents=True, exist_ok=True)
    place = path if path.is_dir() else path.with_name(f".{path.name}.lock")
    held = _taken(place, path, make)
    try:
        yield
    finally:
        if held is not None:
            with suppress(OSError):
                if place != path:
                    place.unlink(missing_ok=True)
                elif fresh:
                    path.rmdir()  # refused where something is in it
            os.close(held)


def _taken(place: Path, path: Path, make: bool) -> int | None:
    """The open and locked file or folder; None where the system has no such locks."""
    try:
        import fcntl
    except ImportError:
        return None
    while True:
        try:
            held = _opened(place, path, make)
        except PermissionError:
            return None
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(held)
            what = "folder" if place == path else "file"
            raise StorageError(
                f"another command is at work on this {what}",
                path=path,
                remedy="wait until it is done, or choose another --out",
            ) from None
        except OSError:
            return held
        if _still(held, place):  # else its holder has just removed it
            return held
        os.close(held)


def _opened(place: Path, path: Path, make: bool) -> int:
    if place != path:
        with writing(path):
            place.parent.mkdir(parents=True, exist_ok=True)
            return os.open(place, os.O_RDWR | os.O_CREAT, 0o600)
    if make:
        place.mkdir(parents=True, exist_ok=True)
    return os.open(place, os.O_RDONLY)


def _still(held: int, place: Path) -> bool:
    """Whether the name still belongs to what was opened."""
    try:
        return os.path.samestat(os.fstat(held), os.stat(place))
    except FileNotFoundError:
        return False
