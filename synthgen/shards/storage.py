"""Where a folder of shards lives: on a file system, or under a URL of an object store that fsspec reaches.

On a file system a file is written aside, fsynced and renamed. An object store shows an object when it is whole; there
is no lock on one, so it is for the user to see that one command writes there at a time.
"""

from __future__ import annotations

import errno
import io
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from synthgen.errors import InputError, StorageError, SynthgenError, must_exist, writing
from synthgen.runs.files import atomic, remove
from synthgen.runs.locks import one_at_a_time

Where = str | os.PathLike


class Place(Protocol):
    """A folder by the names of its files. `str` gives it back as the user wrote it."""

    def make(self) -> None:
        """Make the folder. StorageError when that cannot be."""
        ...

    def could_be(self) -> bool:
        """Whether the folder is there; StorageError when it is not and could not be made. Changes nothing."""
        ...

    def must_exist(self) -> None:
        """InputError when there is no such folder."""
        ...

    def names(self) -> list[str]:
        """The names of its files, sorted."""
        ...

    def size(self, name: str) -> int | None:
        """Bytes of a file; None when it is not there."""
        ...

    def open(self, name: str) -> BinaryIO:
        """A file to read, from its start, that can be sought in. InputError when it is not there."""
        ...

    def write(self, name: str, fill: Callable[[BinaryIO], object]) -> None:
        """Let `fill` write a file; it is there whole or not at all. StorageError: no space, no permission."""
        ...

    def remove(self, name: str) -> None: ...

    def child(self, name: str) -> str:
        """The full name of a file, for messages."""
        ...

    def alone(self) -> Any:
        """A context in which no other command works here; StorageError when one does. It makes the folder, and removes
        it if it stays empty. Nothing on an object store."""
        ...


def place_of(where: Where) -> Place:
    """The place that a path or a URL (`s3://bucket/shards`) names.

    InputError: fsspec does not know the protocol, or the package for it is not installed.
    """
    return Remote(str(where)) if "://" in str(where) else Local(Path(where))


class Local:
    def __init__(self, path: Path):
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    def make(self) -> None:
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)

    def could_be(self) -> bool:
        with writing(self.path):
            above = next(p for p in (self.path, *self.path.absolute().parents) if p.exists())
            if not above.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, "not a folder", str(above))
            if not os.access(above, os.W_OK):
                raise PermissionError(errno.EACCES, "not writable", str(above))
        return self.path.exists()

    def must_exist(self) -> None:
        must_exist(self.path, "folder")

    def names(self) -> list[str]:
        return sorted(p.name for p in self.path.iterdir() if p.is_file())

    def size(self, name: str) -> int | None:
        path = self.path / name
        return path.stat().st_size if path.is_file() else None

    def open(self, name: str) -> BinaryIO:
        return must_exist(self.path / name).open("rb")

    def write(self, name: str, fill: Callable[[BinaryIO], object]) -> None:
        with atomic(self.path / name) as temporary, temporary.open("wb") as file:
            fill(file)

    def remove(self, name: str) -> None:
        remove(self.path / name)

    def child(self, name: str) -> str:
        return str(self.path / name)

    def alone(self):
        return one_at_a_time(self.path, make=True)


class Remote:
    def __init__(self, url: str):
        import fsspec

        self.url = url.rstrip("/")
        try:
            self.system, self.path = fsspec.core.url_to_fs(self.url)
        except (ValueError, ImportError) as error:
            raise InputError("the store cannot be reached", path=url, found=str(error)) from None

    def __str__(self) -> str:
        return self.url

    def make(self) -> None:
        with self._writing(""):
            self.could_be()
            if self.system.root_marker:  # elsewhere it would make the bucket, misspelt or not
                self.system.makedirs(self.path, exist_ok=True)

    def could_be(self) -> bool:
        with self._writing(""):
            if self.system.root_marker:  # paths from a root, as on a disk
                return bool(self.system.exists(self.path))
            bucket = self.path.split("/", 1)[0]
            if not self.system.exists(bucket):  # or one may not ask: then the first write tells
                try:
                    self.system.ls(self.path, refresh=True)
                except FileNotFoundError as error:
                    if _NO_BUCKET in str(error):
                        remedy = "check the URL, or make it"
                        raise StorageError("no such bucket", path=self.url, found=bucket, remedy=remedy) from None
                except PermissionError:
                    pass
            return True

    def must_exist(self) -> None:
        with self._reading(""):
            if not self.system.exists(self.path):
                raise InputError("no such folder", path=self.url, remedy="check the URL")

    def names(self) -> list[str]:
        with self._reading(""):
            try:
                found = self.system.ls(self.path, detail=True, refresh=True)
            except FileNotFoundError:
                return []
        return sorted(str(f["name"]).rsplit("/", 1)[-1] for f in found if f["type"] == "file")

    def size(self, name: str) -> int | None:
        with self._reading(name):
            try:
                return int(self.system.info(f"{self.path}/{name}")["size"])
            except FileNotFoundError:
                return None

    def open(self, name: str) -> BinaryIO:
        with self._reading(name):
            try:
                return io.BytesIO(self.system.cat_file(f"{self.path}/{name}"))
            except FileNotFoundError:
                raise InputError("no such file", path=self.child(name), remedy="check the URL") from None

    def write(self, name: str, fill: Callable[[BinaryIO], object]) -> None:
        with tempfile.TemporaryDirectory(prefix="synthgen") as folder, self._writing(name):
            whole = Path(folder) / "file"
            with whole.open("wb") as file:
                fill(file)
            self.system.put_file(str(whole), f"{self.path}/{name}")

    def remove(self, name: str) -> None:
        with self._writing(name), suppress(FileNotFoundError):
            self.system.rm_file(f"{self.path}/{name}")

    def child(self, name: str) -> str:
        return f"{self.url}/{name}" if name else self.url

    @contextmanager
    def alone(self) -> Iterator[None]:
        yield

    @contextmanager
    def _reading(self, name: str) -> Iterator[None]:
        try:
            yield
        except SynthgenError:
            raise
        except Exception as error:  # each store's driver has errors of its own
            raise InputError(
                "the store could not be read", path=self.child(name), found=_in_words(error), remedy=_STORE
            ) from error

    @contextmanager
    def _writing(self, name: str) -> Iterator[None]:
        with writing(self.child(name)):
            try:
                yield
            except SynthgenError:
                raise
            except Exception as error:
                raise StorageError(
                    "the store could not be written", path=self.child(name), found=_in_words(error), remedy=_STORE
                ) from error


_NO_BUCKET = "does not exist"  # "the specified bucket does not exist": S3, GCS; "container": Azure
_STORE = "check the URL, the credentials and the network"


def _in_words(error: Exception) -> str:
    """The first line of the error of a store's driver."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
