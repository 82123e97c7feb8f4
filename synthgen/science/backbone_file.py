"""The file of a backbone: its weights, and what belongs to them in the file's header, so both are replaced together."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from synthgen.contracts import Provenance, content_hash
from synthgen.errors import InputError, must_exist
from synthgen.runs.files import atomic, json_text, write_json
from synthgen.runs.finite import in_words, not_finite
from synthgen.runs.state import write_tensors
from synthgen.science.weight_folders import named, read_tensors

WEIGHTS, CARD = "backbone.safetensors", "backbone.json"


@dataclass(frozen=True)
class BackboneCard:
    """name: of the timm network. wavelengths [C]: nm. size: pixels per side that it was trained at. mean, std [C]: of
    log-reflectance, taken off and divided by. extra: plain values about the training. reading: stages or last, what the
    features are read from; files of earlier versions do not state it, and are read at the last layer."""

    name: str
    wavelengths: tuple[float, ...]
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    provenance: Provenance | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    reading: Literal["stages", "last"] = "last"

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "bands": len(self.wavelengths),
            "wavelengths_nm": list(self.wavelengths),
            "size": self.size,
            "mean": list(self.mean),
            "std": list(self.std),
            "provenance": self.provenance.model_dump(mode="json") if self.provenance is not None else None,
            "extra": self.extra,
            "reading": self.reading,
        }


def write_backbone(folder: str | os.PathLike, card: BackboneCard, weights: Mapping[str, Tensor]) -> Path:
    """Write `backbone.safetensors` and, for reading, its header as `backbone.json`; returns the path of the first."""
    folder = Path(folder)
    header = {**card.as_json(), "weights_hash": content_hash(*named(weights))}
    with atomic(folder / WEIGHTS) as temporary:
        write_tensors(temporary, weights, {"format": "pt", "backbone": json_text(header)})
    write_json(folder / CARD, header)
    return folder / WEIGHTS


def weights_file(path: str | os.PathLike) -> Path:
    """The file of the weights, given it or its folder; InputError where there is none."""
    path = must_exist(path, "any")
    return must_exist(path / WEIGHTS) if path.is_dir() else path


def read_backbone(path: str | os.PathLike) -> tuple[BackboneCard, dict[str, Tensor]]:
    """Card and weights from the folder or the file; InputError when missing, damaged, altered or not a backbone."""
    path = weights_file(path)
    tensors, header = read_tensors(path)
    if "backbone" not in header:
        raise InputError("is not a backbone of synthgen", path=path, expected="a description in its header")
    try:
        about = json.loads(header["backbone"])
        card = BackboneCard(
            about["name"],
            tuple(about["wavelengths_nm"]),
            int(about["size"]),
            tuple(about["mean"]),
            tuple(about["std"]),
            Provenance.model_validate(about["provenance"]) if about["provenance"] else None,
            about["extra"],
            "stages" if about.get("reading", "last") == "stages" else "last",
        )
        expected = about["weights_hash"]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError("has a damaged description", path=path, found=str(error)[:200]) from None
    if content_hash(*named(tensors)) != expected:
        raise InputError("has weights that differ from what was written", path=path, remedy="copy the file again")
    if bad := not_finite(tensors):
        raise InputError("holds weights that are not finite", path=path, found=in_words(bad), remedy="pretrain again")
    return card, tensors
