"""Folders of one JSON file and safetensors files under one hash: written whole, verified when read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from synthgen.errors import InputError, must_exist
from synthgen.runs.files import read_json, write_json
from synthgen.runs.state import write_tensors, write_values

Weights = Mapping[str, Mapping[str, Tensor]]  # file stem -> name -> tensor


@dataclass(frozen=True)
class FolderKind:
    """What a kind of folder holds, and the error for one that is not whole.

    name: in messages ("a gates folder"). about: its JSON file. digest: the hash of that JSON, without its "hash", and
    of the weights as stored. remedy: for a folder that is damaged. kind: what the JSON has under "kind", if it has one.
    measured: files of values that may be missing (NaN), unlike weights.
    """

    name: str
    about: str
    digest: Callable[[Mapping[str, Any], Weights], str]
    remedy: str
    kind: str | None = None
    measured: tuple[str, ...] = ()

    def hash_of(self, about: Mapping[str, Any], weights: Weights) -> str:
        return self.digest({k: v for k, v in about.items() if k != "hash"}, weights)

    def write(self, folder: Path, about: Mapping[str, Any], weights: Weights) -> str:
        """Write into an existing folder (use inside `runs.files.atomic`); returns the hash."""
        found = self.hash_of(about, weights)
        for stem, tensors in weights.items():
            write = write_values if stem in self.measured else write_tensors
            write(folder / f"{stem}.safetensors", tensors)
        write_json(folder / self.about, {**about, "hash": found})
        return found

    def read(
        self, folder: str | os.PathLike, stems: Iterable[str] | None = None
    ) -> tuple[dict[str, Any], dict[str, dict[str, Tensor]], str]:
        """The JSON without its hash, the weights of `stems` (of every file, if not given), the hash.

        InputError: not such a folder, a file missing, damaged or altered.
        """
        folder = must_exist(folder, "folder")
        if not (folder / self.about).exists():
            raise InputError(f"is not {self.name}: it has no {self.about}", path=folder, remedy=self.remedy)
        about = read_json(folder / self.about)
        if not isinstance(about, dict) or about.get("kind") != self.kind:
            found = about.get("kind") if isinstance(about, dict) else type(about).__name__
            raise InputError(
                f"does not describe {self.name}", path=folder / self.about, found=found, expected=self.kind
            )
        stated = about.pop("hash", None)
        found = sorted(p.stem for p in folder.glob("*.safetensors")) if stems is None else stems
        weights = {}
        for stem in found:
            path = folder / f"{stem}.safetensors"
            if not path.exists():
                raise InputError("weights are missing", path=path, remedy=self.remedy)
            weights[stem] = read_tensors(path, self.remedy)[0]
        if (found := self.digest(about, weights)) != stated:
            raise InputError(
                f"the files of {self.name} do not match its hash: one was altered, is missing or belongs elsewhere",
                path=folder,
                found=found,
                expected=stated,
                remedy=self.remedy,
            )
        return about, weights, stated


def read_tensors(path: str | os.PathLike, remedy: str | None = None) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors by name and the header of a safetensors file; InputError when it is missing or damaged."""
    path = must_exist(path)
    try:
        with safe_open(os.fspath(path), framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        found = str(error)[:200]
        raise InputError("is damaged or not a safetensors file", path=path, found=found, remedy=remedy) from None


def named(tensors: Mapping[str, Tensor]) -> list[str | Tensor]:
    """Names and tensors in the order of the names, as the parts of a `content_hash`."""
    return [part for name in sorted(tensors) for part in (name, tensors[name])]
