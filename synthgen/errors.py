"""What can go wrong, reported in one line: the file, what was found, what was expected, and the remedy."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from synthgen.runs.processes.parent import end_with_parent

EXIT_DONE, EXIT_BAD_INPUT, EXIT_GATE_FAILED, EXIT_UNDECIDED, EXIT_INTERRUPTED, EXIT_TERMINATED = 0, 2, 3, 4, 130, 143


class SynthgenError(Exception):
    """Base of every error that a user can cause or correct.

    Args:
        what: the finding, as a short clause without a full stop ("wrong number of bands").
        path: the file or folder it is about.
        found: what is there.
        expected: what should be there.
        remedy: what the user can do.
    """

    exit_code = EXIT_BAD_INPUT

    def __init__(
        self,
        what: str,
        *,
        path: str | os.PathLike | None = None,
        found: object = None,
        expected: object = None,
        remedy: str | None = None,
    ):
        self.what, self.path, self.found, self.expected, self.remedy = what, path, found, expected, remedy
        line = f"{os.fspath(path)}: {what}" if path is not None else what
        if found is not None:
            line += f"; found {found}"
        if expected is not None:
            line += f"; expected {expected}"
        if remedy is not None:
            line += f". {remedy[0].upper()}{remedy[1:]}"
        super().__init__(" ".join(line.split()))  # one line whatever the parts hold


class InputError(SynthgenError):
    """A file or an array that cannot be used as it is."""


class ConfigError(SynthgenError):
    """A configuration key or value that is not allowed."""


class MismatchError(SynthgenError):
    """Two things that do not belong together: bands, sizes, wavelengths, hashes, a world size."""


class LeakError(SynthgenError):
    """A patient kept for testing was seen in training."""


class StorageError(SynthgenError):
    """The disk is full, read-only or not writable."""


class NonFiniteError(SynthgenError):
    """A loss, a gradient or weights hold NaN or infinite values; what was written before is as it was."""


class GateError(SynthgenError):
    """A quality gate failed."""

    exit_code = EXIT_GATE_FAILED


class UndecidedError(SynthgenError):
    """A quality gate could not certify, for lack of data."""

    exit_code = EXIT_UNDECIDED


class Stopped(SynthgenError):
    """The run was asked to stop and has written a checkpoint."""

    def __init__(self, what: str, *, exit_code: int = EXIT_TERMINATED, **parts):
        super().__init__(what, **parts)
        self.exit_code = exit_code


_DISK = {
    errno.ENOSPC: "no space left on the device",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "no permission to write",
    errno.EPERM: "no permission to write",
}


@contextmanager
def writing(path: str | os.PathLike) -> Iterator[None]:
    """Turn the operating system's refusals to write `path` into a StorageError.

    h5py and safetensors do not always keep `errno`, so their text is looked at as well.
    """
    try:
        yield
    except SynthgenError:
        raise
    except Exception as error:
        number = getattr(error, "errno", None)
        if number not in _DISK and ("No space left" in str(error) or "errno = 28" in str(error)):
            number = errno.ENOSPC
        if number in _DISK:
            raise StorageError(
                f"could not be written: {_DISK[number]}",
                path=path,
                remedy="free some space or choose another place; what was complete before is kept",
            ) from error
        if isinstance(error, FileNotFoundError) and not Path(path).parent.exists():  # under /proc, say
            raise StorageError(
                "could not be written: its folder does not exist and cannot be made",
                path=path,
                remedy="choose another place",
            ) from error
        if isinstance(error, FileExistsError | NotADirectoryError):
            raise StorageError("could not be written: a file stands where a folder is needed", path=path) from error
        raise


@contextmanager
def one_line_errors(debug: bool = False) -> Iterator[None]:
    """Around a command: print a SynthgenError as one line on standard error and exit with its code.

    Ctrl-C before the first checkpoint ends with 130, SIGTERM with 143, after what was begun is cleared away. A command
    that a launcher has started ends with it. `debug` lets the traceback through.
    """
    interruptible = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # not begun in the background
    alone = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    global _dropped
    _dropped = None
    if alone:
        signal.signal(signal.SIGTERM, _terminate)
        sys.unraisablehook = _quiet
        if interruptible:
            signal.signal(signal.SIGINT, _interrupt)
    end_with_parent()
    try:
        yield
    except SynthgenError as error:
        if debug:
            raise
        label = "stopped" if isinstance(error, Stopped) else "error"
        print(f"{label}: {error}", file=sys.stderr, flush=True)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, Terminated) as interrupt:
        if debug and not isinstance(interrupt, Terminated):
            raise
        word, code = (
            ("terminated", EXIT_TERMINATED) if isinstance(interrupt, Terminated) else ("interrupted", EXIT_INTERRUPTED)
        )
        print(f"stopped: {word}; nothing half-written was left behind", file=sys.stderr, flush=True)
        sys.exit(code)
    except BrokenPipeError:  # `synthgen info ... | head`
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, sys.stdout.fileno())
        sys.exit(EXIT_DONE)
    finally:
        _dropped = None
        if alone:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            sys.unraisablehook = sys.__unraisablehook__
            if interruptible:
                signal.signal(signal.SIGINT, signal.default_int_handler)


class Terminated(BaseException):
    """SIGTERM where no training listens for it: it ends a command as Ctrl-C does."""


_dropped: BaseException | None = None  # of a signal whose exception may have been lost on its way


def _raise(asked: BaseException) -> None:
    global _dropped
    _dropped = asked
    raise asked


def _terminate(*_: object) -> None:
    _raise(Terminated())


def _interrupt(*_: object) -> None:
    _raise(KeyboardInterrupt())


def raise_dropped() -> None:
    """Raise the Ctrl-C or SIGTERM of a command again. Python drops an exception that is raised while an object is
    finalised or in the callback of a weak reference, so a signal may come and change nothing; work that goes on calls
    this as it advances."""
    if _dropped is not None:
        raise _dropped


def _quiet(unraisable: Any) -> None:
    """Say nothing of a dropped exception that `raise_dropped` will bring."""
    if not isinstance(unraisable.exc_value, KeyboardInterrupt | Terminated):
        sys.__unraisablehook__(unraisable)


def must_exist(path: str | os.PathLike, kind: str = "file") -> Path:
    """`path` as a Path, or InputError when no such file or folder exists. `kind`: file, folder or any."""
    p = Path(path)
    if not p.exists():
        raise InputError(f"no such {kind if kind != 'any' else 'file or folder'}", path=p, remedy="check the path")
    if kind == "file" and p.is_dir():
        raise InputError("is a folder", path=p, expected="a file")
    if kind == "folder" and not p.is_dir():
        raise InputError("is a file", path=p, expected="a folder")
    return p
