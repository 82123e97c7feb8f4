"""What an ingest reads: each source once, however it was named, and whether it is still what it was."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from synthgen.cubes.readers.folders import data_file, files_of, find_sources, header_beside, overlooked
from synthgen.cubes.readers.formats.envi_files import has_envi_mark
from synthgen.errors import ConfigError, InputError
from synthgen.runs.files import sha256


def expand(sources: Sequence[str | os.PathLike], out: Path, references: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """The sources to read, and notes on what was left out: folders opened, each cube once, no reference among them.

    An ENVI pair may be named by its header, by its raw file or by both. InputError when there is nothing to read or
    `out` is one of the sources.
    """
    named, notes = [], []
    for source in map(Path, sources):
        if not source.is_dir():
            named.append(source)
            continue
        inside = find_sources(source)
        named += inside
        if left := overlooked(source, inside, apart=out):
            notes.append(
                _note(left, "sub-folder that holds cubes was not read", "sub-folders that hold cubes were not read")
            )
    apart = {data_file(reference).resolve() for reference in references}
    headers = {path.resolve() for path in named if has_envi_mark(path)}
    kept: dict[Path, Path] = {}
    parts, again = [], []
    for path in named:
        key = data_file(path).resolve()
        if key in apart:
            continue
        header = header_beside(path)
        if header is not None and header.resolve() in headers:
            parts.append(path)
        elif kept.setdefault(key, path) is not path:
            again.append(path)
    if not kept:
        raise InputError("no files to ingest", remedy="name at least one file or folder")
    if out.resolve() in kept:
        raise InputError("is both source and result", path=out, remedy="choose another name for the result")
    if parts:
        notes.append(_note(parts, "file was read with its ENVI header", "files were read with their ENVI header"))
    if again:
        notes.append(_note(again, "source was named twice and read once", "sources were named twice and read once"))
    return list(kept.values()), notes


def mark(path: Path) -> list[Any]:
    """Path, and size and time of every file of a source: what tells that it is still the same."""
    return [str(path), *([file.name, *_state(file)] for file in files_of(path))]


def digest(path: Path) -> str:
    """Path and checksum of all files of a reference or a table."""
    contents = hashlib.sha256()
    for file in files_of(path):
        contents.update(f"{file.name} {sha256(file)}\n".encode())
    return f"{path} {contents.hexdigest()}"


def check_same(asked: dict[str, Any], head: dict[str, Any], folder: Path) -> None:
    """ConfigError when an unfinished ingest was asked something else."""
    remedy = "repeat the first command to go on with it, or add --restart to begin again"
    if head.get("version") != asked["version"] or not isinstance(head.get("options"), dict) or "plan" not in head:
        raise ConfigError("holds an unfinished ingest of another version", path=folder, remedy="add --restart")
    for name, value in asked["options"].items():
        if head["options"].get(name) != value:
            what = f"holds an unfinished ingest with another '{name}'"
            raise ConfigError(what, path=folder, found=head["options"].get(name), expected=value, remedy=remedy)
    if head["sources"] != asked["sources"]:
        before, now = ({path: files for path, *files in marks} for marks in (head["sources"], asked["sources"]))
        changed = sorted(path for path in before.keys() | now.keys() if before.get(path) != now.get(path))
        found = f"{len(changed)} sources new, gone or changed, first {changed[0]}" if changed else "another order"
        raise ConfigError("holds an unfinished ingest of other files", path=folder, found=found, remedy=remedy)


def _state(path: Path) -> list[int]:
    try:
        stat = path.stat()
    except OSError:
        return [-1, -1]
    return [stat.st_size, stat.st_mtime_ns]


def _note(paths: Sequence[Path], one: str, many: str) -> str:
    return f"1 {one}: {paths[0]}" if len(paths) == 1 else f"{len(paths)} {many}, first {paths[0]}"
