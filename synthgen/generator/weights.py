"""The folders of this room, `config.json` and safetensors under one hash, and weights in and out of modules."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from synthgen.contracts import content_hash
from synthgen.errors import InputError
from synthgen.runs.files import finite_or_none
from synthgen.science.weight_folders import FolderKind, Weights


def _digest(about: Mapping[str, Any], weights: Weights) -> str:
    parts = [(f"{stem}/{name}", value) for stem in sorted(weights) for name, value in sorted(weights[stem].items())]
    return content_hash(json.dumps(finite_or_none(about), sort_keys=True), *(half for part in parts for half in part))


_AGAIN = "copy the whole folder again"
GENERATOR = FolderKind("a generator folder", "config.json", _digest, _AGAIN, kind="generator")
AUTOENCODER = FolderKind("an autoencoder folder", "config.json", _digest, _AGAIN, kind="autoencoder")


def weights_of(module: nn.Module, half: bool) -> dict[str, Tensor]:
    """The tensors of a module on the CPU, contiguous; floating ones as float16 where `half`."""
    return {
        name: (value.half() if half and value.is_floating_point() else value).detach().cpu().contiguous().clone()
        for name, value in module.state_dict().items()
    }


def fill(module: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Load stored tensors strictly into a module (float16 is cast up); InputError names the first that does not fit."""
    own = module.state_dict()
    missing, foreign = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    if missing or foreign:
        raise InputError(
            "weights do not fit the configuration",
            path=path,
            found=f"without {missing[0]}" if missing else f"unknown {foreign[0]}",
            remedy=_AGAIN,
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
