"""What a gates folder holds: gates.json, and by instrument one safetensors file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from synthgen.config import build
from synthgen.contracts import content_hash
from synthgen.errors import InputError
from synthgen.quality.features.encoder import Encoder
from synthgen.quality.features.handcrafted import block_sizes
from synthgen.quality.features.projection import Fingerprint, Space
from synthgen.quality.features.regions import structure_blocks
from synthgen.quality.limits import Limits
from synthgen.quality.per_cube.extractor import Instruments
from synthgen.quality.per_cube.memorization import MemorizationDetector
from synthgen.quality.per_cube.plausibility import Plausibility
from synthgen.quality.segmenter.segmenter import Segmenter
from synthgen.quality.sets.statistics import SPACES
from synthgen.quality.sets.table import Rows
from synthgen.runs.files import atomic, finite_or_none
from synthgen.science.weight_folders import FolderKind, Weights

PACKAGED = Path(__file__).parent / "packaged"
HALF = SPACES  # columns of the reference that half precision does not hurt


def _digest(about: Mapping[str, Any], files: Weights) -> str:
    tensors = [part for name in sorted(files) for key in sorted(files[name]) for part in (name, key, files[name][key])]
    return content_hash(json.dumps(finite_or_none(about), sort_keys=True), *tensors)


GATES = FolderKind(
    "a gates folder",
    "gates.json",
    _digest,
    "calibrate again, or copy the folder whole",
    measured=("reference",),  # a structure that a cube does not have is NaN there
)


def write_parts(folder: str | os.PathLike, about: dict[str, Any], files: Weights) -> str:
    """Write what `parts_of` gives, all or nothing; returns the hash."""
    with atomic(folder) as temporary:
        temporary.mkdir(parents=True)
        return GATES.write(temporary, about, files)


def parts_of(
    limits: Limits,
    instruments: Instruments,
    fingerprints: dict[str, Fingerprint],
    contrasts: dict[str, Fingerprint],
    reference: Rows,
    real_similarity: np.ndarray,
    image_range: Tensor,
) -> tuple[dict[str, Any], dict[str, dict[str, Tensor]]]:
    """What is written of `Gates` with these fields: the limits as JSON, the tensors by file."""
    rows = {"patients": torch.from_numpy(np.unique(reference.patients, return_inverse=True)[1])}
    for name, column in reference.columns.items():
        stored = torch.from_numpy(column)
        rows[name] = stored.half() if name in HALF else stored.float()
    rows["similarity"] = torch.from_numpy(real_similarity).float()
    rows["image_range"] = image_range.float().cpu()
    bases = {f"{name}.{key}": t for name, space in instruments.spaces.items() for key, t in space.tensors().items()}
    for kind, prints in (("fingerprint", fingerprints), ("contrast", contrasts)):
        for name, found in prints.items():
            bases |= {f"{kind}.{name}.{key}": t for key, t in found.tensors().items()}
    bases |= {f"plausible.{name}": t for name, t in instruments.plausibility.tensors.items()}
    files = {
        "encoder": instruments.encoder.tensors(),
        "copies": instruments.memorization.tensors(),
        "bases": bases,
        "reference": rows,
    }
    if instruments.segmenter is not None:
        files["segmenter"] = instruments.segmenter.tensors()
    return limits.model_dump(mode="json", by_alias=True), files


def read_parts(path_or_name: str | os.PathLike) -> tuple[dict[str, Any], str]:
    """The arguments of `Gates`, and the hash. InputError: missing, damaged, altered or not complete."""
    folder = Path(path_or_name)
    if not folder.exists() and (PACKAGED / folder).is_dir():
        folder = PACKAGED / folder
    about, files, found = GATES.read(folder)
    limits = build(Limits, about, folder / GATES.about)
    try:
        networks, bases, reference = limits.networks, files["bases"], dict(files["reference"])
        bands = len(limits.wavelengths_nm)
        blocks = {"spectra": block_sizes(bands), "structures": structure_blocks(bands)}
        encoder = Encoder.restored(networks["encoder"], files["encoder"])
        blocks["encoder"] = (encoder.dimension,)
        segmenter = Segmenter.restored(networks["segmenter"], files["segmenter"]) if "segmenter" in networks else None
        names = SPACES if segmenter is not None else SPACES[:2]
        spaces = {name: Space(**_under(bases, name), blocks=tuple(blocks[name])) for name in names}
        plausibility = Plausibility(
            _under(bases, "plausible"), limits.plausible.signs, limits.plausible.std, limits.wavelengths_nm
        )
        memorization = MemorizationDetector.restored(networks["copies"], files["copies"])
        patients = reference.pop("patients").numpy()
        similarity = reference.pop("similarity").double().numpy()
        image_range = reference.pop("image_range")
        rows = Rows.of({name: column.float().numpy() for name, column in reference.items()}, patients)
    except (KeyError, TypeError, RuntimeError, ValueError) as error:
        raise InputError(
            "the gates folder is not complete, or of another version",
            path=folder,
            found=str(error).splitlines()[0][:200],
            remedy="calibrate again",
        ) from None
    return {
        "limits": limits,
        "instruments": Instruments(encoder, segmenter, spaces, memorization, plausibility),
        "fingerprints": _prints(bases, "fingerprint"),
        "contrasts": _prints(bases, "contrast"),
        "reference": rows,
        "real_similarity": similarity,
        "image_range": image_range,
    }, found


def _under(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key.removeprefix(f"{name}."): t for key, t in tensors.items() if key.startswith(f"{name}.")}


def _prints(bases: dict[str, Tensor], kind: str) -> dict[str, Fingerprint]:
    found: dict[str, dict[str, np.ndarray]] = {}
    for key, tensor in _under(bases, kind).items():
        name, part = key.split(".")
        found.setdefault(name, {})[part] = tensor.double().numpy()
    return {name: Fingerprint(**parts) for name, parts in found.items()}
