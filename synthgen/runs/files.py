"""Writing files so that a reader sees the old one or the new one, never half of one."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from synthgen.errors import InputError, must_exist, writing


@contextmanager
def atomic(path: str | os.PathLike) -> Iterator[Path]:
    """Give a temporary path beside `path`; on success it is fsynced and renamed to `path`, on any error removed.

    Works for a file and for a folder (create it at the given path). A folder replaces an older one of the same name.
    """
    path = Path(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
        remove(temporary)
        try:
            yield temporary
            sync(temporary)
            if path.is_dir():
                old = Path(tempfile.mkdtemp(prefix=f".{path.name}.old", dir=path.parent))
                os.replace(path, old / path.name)
                os.replace(temporary, path)
                remove(old)
            else:
                os.replace(temporary, path)
            _fsync(path.parent)
        except BaseException:
            remove(temporary)
            raise


def sync(path: Path) -> None:
    """fsync a file, or a folder and all that is in it."""
    if path.is_dir():
        for child in path.iterdir():
            if not child.is_dir() or child.name.startswith("step_"):
                _fsync(child)
    _fsync(path)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def write_text(path: str | os.PathLike, text: str) -> None:
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def json_text(value: Any, **how: Any) -> str:
    """`value` as JSON that every parser reads: NaN and infinite numbers, which JSON does not have, become null.

    how: of `json.dumps`. Whatever this project writes or prints as JSON comes from here.
    """
    return json.dumps(finite_or_none(value), ensure_ascii=False, allow_nan=False, **how)


def finite_or_none(value: Any) -> Any:
    """Nested plain values with None in place of every number that is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite_or_none(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite_or_none(inner) for inner in value]
    return value


def write_json(path: str | os.PathLike, value: Any) -> None:
    write_text(path, json_text(value, indent=2) + "\n")


def read_json(path: str | os.PathLike) -> Any:
    """The value in a JSON file; InputError when the file is missing or is not JSON."""
    try:
        return json.loads(must_exist(path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError("is not valid JSON", path=path, found=str(error)) from None


def sha256(path: str | os.PathLike) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
