"""The gates folder: gates.json and safetensors files, whole or absent, with one hash over all of it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from synthgen.config import Config, build
from synthgen.contracts import content_hash
from synthgen.errors import InputError, must_exist
from synthgen.runs.files import atomic, finite_or_none, read_json, write_json
from synthgen.runs.state import write_tensors, write_values

ABOUT = "gates.json"
MEASURED = ("reference",)  # a structure that a cube does not have is NaN there

L = TypeVar("L", bound=Config)
Files = Mapping[str, Mapping[str, Tensor]]


def write_folder(folder: str | os.PathLike | None, about: dict, files: Files) -> str:
    """Write `about` and each of `files` as <name>.safetensors; returns the hash. Without a folder only the hash."""
    digest = _hash(about, files)
    if folder is not None:
        with atomic(folder) as temporary:
            temporary.mkdir(parents=True)
            write_json(temporary / ABOUT, {**about, "hash": digest})
            for name, tensors in files.items():
                write = write_values if name in MEASURED else write_tensors
                write(temporary / f"{name}.safetensors", tensors)
    return digest


def read_folder(folder: str | os.PathLike, kind: type[L]) -> tuple[L, dict[str, dict[str, Tensor]], str]:
    """The limits (of class `kind`), the tensors by file, the hash; InputError when anything is missing or altered."""
    folder = must_exist(folder, "folder")
    if not (folder / ABOUT).exists():
        raise InputError(
            f"is not a gates folder: it has no {ABOUT}", path=folder, remedy="make one with `synthgen calibrate`"
        )
    about = read_json(folder / ABOUT)
    stated = about.pop("hash", None)
    files: dict[str, dict[str, Tensor]] = {}
    for path in sorted(Path(folder).glob("*.safetensors")):
        try:
            files[path.stem] = load_file(path)
        except (SafetensorError, OSError) as error:
            raise InputError("is damaged", path=path, found=str(error)[:200], remedy="calibrate again") from None
    if _hash(about, files) != stated:
        raise InputError(
            "the gates were altered or a file of them is missing",
            path=folder,
            found=f"hash {_hash(about, files)}",
            expected=f"hash {stated}",
            remedy="calibrate again, or restore the folder",
        )
    return build(kind, about, folder / ABOUT), files, stated


def _hash(about: dict, files: Files) -> str:
    tensors = [part for name in sorted(files) for key in sorted(files[name]) for part in (name, key, files[name][key])]
    return content_hash(json.dumps(finite_or_none(about), sort_keys=True), *tensors)
