"""The work folder of an ingest, `<out>.partial/`: what is done stays done, whatever ends the process.

    head.json     options, sources (size and time of each file) and what was agreed for all (bands, image size, scale)
    journal.jsonl one line for each finished block of cubes, written after its segment has reached the disk
    segments/     the cubes of each block, one file each, which appear whole or not at all
    lock          held while an ingest is at work

HDF5 is not used here: a process that is killed while it writes an HDF5 file loses all of it.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
from pydantic import Field, ValidationError

from synthgen.config import Config
from synthgen.cubes.ingest.patients import Person
from synthgen.cubes.ingest.quality_control import Finding
from synthgen.cubes.ingest.report import Refusal, SourceReport
from synthgen.errors import ConfigError, InputError, StorageError, writing
from synthgen.runs.files import read_json, remove, write_json

try:
    import fcntl
except ImportError:  # Windows: two ingests at once into one file are then not noticed
    fcntl = None


class BlockDone(Config):
    """What came of a block of cubes of one source; one line of the journal."""

    source: int = Field(description="index of the file")
    start: int = Field(description="first cube of the block")
    count: int = Field(default=0, description="cubes in the whole file; 0 where it was refused")
    kept: tuple[Person, ...] = Field(default=(), description="whose the cubes in the segment are")
    bytes: int = Field(default=0, description="size of the segment")
    report: SourceReport | None = Field(default=None, description="with the first block of a file")
    refused: tuple[Refusal, ...] = ()
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    dropped: int = 0
    no_data: int = Field(default=0, description="pixels in the fields of view that the file marks as missing")
    above: int = 0
    below: int = 0
    values: int = 0

    @property
    def key(self) -> tuple[int, int]:
        return self.source, self.start


class WorkFolder:
    """The folder of one ingest; a context manager that holds its lock and its journal open."""

    def __init__(self, out: Path):
        self.path = out.with_name(out.name + ".partial")
        self.done: dict[tuple[int, int], BlockDone] = {}
        self._bands: dict[tuple[float, ...], tuple[float, ...]] = {}
        self._journal: IO[bytes] | None = None
        self._lock: IO[bytes] | None = None

    def head(self) -> dict[str, Any] | None:
        """What an earlier ingest was asked, None when there was none; ConfigError when that cannot be read."""
        if not (self.path / "head.json").exists():
            return None
        try:
            return read_json(self.path / "head.json")
        except InputError as error:
            raise ConfigError(error.what, path=error.path, found=error.found, remedy="add --restart") from None

    def begin(self, head: dict[str, Any] | None) -> None:
        """Start afresh with a new head, or, with None, go on after the last line of the journal that is whole."""
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            self._take_lock()
            if head is not None:
                for old in ("head.json", "journal.jsonl", "segments"):
                    remove(self.path / old)
            (self.path / "segments").mkdir(exist_ok=True)
            for left in [*self.path.glob(".*.partial"), *(self.path / "segments").glob(".*.partial")]:
                remove(left)  # what was being written when an earlier process was killed
            if head is not None:
                write_json(self.path / "head.json", head)
            else:
                self._read_journal()
            self._journal = open(self.path / "journal.jsonl", "ab")  # noqa: SIM115 - open as long as the ingest

    def note(self, block: BlockDone) -> None:
        """Add a finished block to the journal; when this returns it survives the end of the process."""
        assert self._journal is not None
        with writing(self.path / "journal.jsonl"):
            self._journal.write(block.model_dump_json().encode() + b"\n")
            self._journal.flush()
            os.fsync(self._journal.fileno())
        self._keep(block)

    def close(self) -> None:
        for file in (self._journal, self._lock):
            if file is not None:
                with suppress(OSError):  # a full disk, reported already
                    file.close()
        self._journal = self._lock = None

    def discard(self) -> None:
        self.close()
        remove(self.path)

    def _keep(self, block: BlockDone) -> None:
        """Remember a finished block. Thousands of files share few sets of wavelengths: each is held once."""
        if block.report is not None:
            nm = block.report.wavelengths_nm
            report = block.report.model_copy(update={"wavelengths_nm": self._bands.setdefault(nm, nm)})
            block = block.model_copy(update={"report": report})
        self.done[block.key] = block

    def _take_lock(self) -> None:
        self._lock = open(self.path / "lock", "wb")  # noqa: SIM115
        if fcntl is not None:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise StorageError("another ingest is writing here", path=self.path, remedy="wait for it") from None

    def _read_journal(self) -> None:
        """Blocks whose line is whole and whose segment is there; a torn last line is cut off."""
        path = self.path / "journal.jsonl"
        sound = 0
        for line in path.read_bytes().splitlines(keepends=True) if path.exists() else []:
            try:
                block = BlockDone.model_validate_json(line) if line.endswith(b"\n") else None
            except ValidationError:
                block = None
            if block is None:
                break
            sound += len(line)
            if not block.kept or _size(segment_path(self.path, *block.key)) == block.bytes:
                self._keep(block)
        if path.exists():
            os.truncate(path, sound)


def segment_path(folder: Path, source: int, start: int) -> Path:
    return folder / "segments" / f"{source:07d}-{start:07d}.zip"


class SegmentWriter:
    """Cubes uint16 [C, H, W] and their masks, one after the other, in a plain zip of .npy members (CRC each)."""

    def __init__(self, file: zipfile.ZipFile):
        self.file, self.count = file, 0

    def append(self, cube: np.ndarray, masks: dict[str, np.ndarray]) -> None:
        self._put(f"{self.count}.npy", cube)
        for name, mask in masks.items():
            self._put(f"{self.count}/{name}.npy", np.packbits(mask.astype(bool), axis=1))
        self.count += 1

    def _put(self, name: str, array: np.ndarray) -> None:
        with self.file.open(name, "w", force_zip64=True) as member:
            np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)


@contextmanager
def segment_writer(path: Path) -> Iterator[SegmentWriter]:
    """Write a segment; it appears at `path`, on the disk, when the block ends well and holds a cube.

    Not by `files.atomic`, which brings all other files of the folder to the disk each time.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with writing(path):
        try:
            with open(temporary, "wb") as raw:
                with zipfile.ZipFile(raw, "w", zipfile.ZIP_STORED) as file:
                    writer = SegmentWriter(file)
                    yield writer
                if not writer.count:
                    return
                raw.flush()
                os.fsync(raw.fileno())
            os.replace(temporary, path)
            sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def sync_folder(path: Path) -> None:
    """Bring the names in a folder to the disk (not the contents of the files)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_segment(path: Path, count: int, columns: int) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """The cubes and masks of a segment in order; InputError when it is damaged."""
    try:
        with zipfile.ZipFile(path) as file:
            names = file.namelist()
            for i in range(count):
                masks = {
                    name.split("/", 1)[1].removesuffix(".npy"): np.unpackbits(_get(file, name), axis=1, count=columns)
                    for name in _of(names, i)
                }
                yield _get(file, f"{i}.npy"), {name: mask.astype(bool) for name, mask in masks.items()}
    except (zipfile.BadZipFile, KeyError, ValueError, EOFError, FileNotFoundError) as error:
        raise InputError(
            "a finished part is damaged", path=path, found=error, remedy="add --restart to read all files again"
        ) from None


def _get(file: zipfile.ZipFile, name: str) -> np.ndarray:
    with file.open(name) as member:
        return np.lib.format.read_array(member, allow_pickle=False)


def _of(names: Sequence[str], i: int) -> list[str]:
    return [name for name in names if name.startswith(f"{i}/")]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
