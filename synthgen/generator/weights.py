"""Folders of `config.json` and safetensors under one hash: written whole, verified when read."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from synthgen.contracts import content_hash
from synthgen.errors import InputError, must_exist
from synthgen.runs.files import finite_or_none, read_json, write_json
from synthgen.runs.state import write_tensors

Weights = Mapping[str, Mapping[str, Tensor]]  # file stem -> name -> tensor


def weights_of(module: nn.Module, half: bool) -> dict[str, Tensor]:
    """The tensors of a module on the CPU, contiguous; floating ones as float16 where `half`."""
    return {
        name: (value.half() if half and value.is_floating_point() else value).detach().cpu().contiguous().clone()
        for name, value in module.state_dict().items()
    }


def hash_of(about: Mapping[str, Any], weights: Weights) -> str:
    """One hash over a folder's configuration (without its "hash" key) and its weights as stored."""
    text = json.dumps(finite_or_none({k: v for k, v in about.items() if k != "hash"}), sort_keys=True)
    parts: list[Any] = [text]
    for stem in sorted(weights):
        for name in sorted(weights[stem]):
            parts += [f"{stem}/{name}", weights[stem][name]]
    return content_hash(*parts)


def write_weights(folder: Path, about: Mapping[str, Any], weights: Weights) -> None:
    """Write config.json and one safetensors file per stem into an existing folder (use inside `runs.files.atomic`)."""
    for stem, tensors in weights.items():
        write_tensors(folder / f"{stem}.safetensors", tensors)
    write_json(folder / "config.json", dict(about))


def read_weights(
    folder: Path, stems: tuple[str, ...], kind: str
) -> tuple[dict[str, Any], dict[str, dict[str, Tensor]]]:
    """Read and verify what `write_weights` wrote. InputError: a file missing or damaged, another kind, a wrong hash."""
    about = read_json(must_exist(folder, "folder") / "config.json")
    if not isinstance(about, dict) or about.get("kind") != kind:
        raise InputError(f"is not the configuration of a {kind}", path=folder / "config.json")
    weights = {}
    for stem in stems:
        path = folder / f"{stem}.safetensors"
        if not path.exists():
            raise InputError("weights are missing", path=path, remedy=f"copy the whole {kind} folder")
        try:
            weights[stem] = load_file(os.fspath(path))
        except (SafetensorError, OSError) as error:
            raise InputError("is damaged", path=path, found=str(error)[:120], remedy="copy the folder again") from None
    if (found := hash_of(about, weights)) != about.get("hash"):
        raise InputError(
            f"the {kind}'s files do not match its hash",
            path=folder,
            found=found,
            expected=about.get("hash"),
            remedy="a file was altered or belongs to another folder; copy the whole folder again",
        )
    return about, weights


def fill(module: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Load stored tensors strictly into a module (float16 is cast up); InputError names the first that does not fit."""
    own = module.state_dict()
    missing, foreign = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    if missing or foreign:
        raise InputError(
            "weights do not fit the configuration",
            path=path,
            found=f"without {missing[0]}" if missing else f"unknown {foreign[0]}",
            remedy="copy the whole folder again",
        )
    for name, value in tensors.items():
        found, expected = tuple(value.shape), tuple(own[name].shape)
        if found != expected:
            raise InputError(f"weight {name} has the wrong shape", path=path, found=found, expected=expected)
    with torch.no_grad():
        for name, value in tensors.items():
            own[name].copy_(value)


def round_to_half(module: nn.Module) -> None:
    """Round the floating-point tensors of a module to what float16 can hold, in place."""
    with torch.no_grad():
        for value in module.state_dict().values():
            if value.is_floating_point():
                value.copy_(value.half().to(value.dtype))
