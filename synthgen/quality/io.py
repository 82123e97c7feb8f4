"""What a gates folder holds: gates.json, and by instrument one safetensors file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from synthgen.errors import InputError
from synthgen.quality.features.encoder import Encoder
from synthgen.quality.features.handcrafted import block_sizes
from synthgen.quality.features.projection import Fingerprint, Space
from synthgen.quality.features.regions import structure_blocks
from synthgen.quality.folder import read_folder
from synthgen.quality.limits import Limits
from synthgen.quality.per_cube.extractor import Instruments
from synthgen.quality.per_cube.memorization import CopyDetector
from synthgen.quality.per_cube.plausibility import Plausibility
from synthgen.quality.segmenter.segmenter import Segmenter
from synthgen.quality.sets.statistics import SPACES
from synthgen.quality.sets.table import Rows

if TYPE_CHECKING:
    from synthgen.quality.gates import Gates

PACKAGED = Path(__file__).parent / "packaged"
HALF = SPACES  # columns of the reference that half precision does not hurt


def parts_of(gates: Gates) -> tuple[dict[str, Any], dict[str, dict[str, Tensor]]]:
    """What is written: the limits as JSON, the tensors by file."""
    own = gates.instruments
    reference = {"patients": torch.from_numpy(np.unique(gates.reference.patients, return_inverse=True)[1])}
    for name, column in gates.reference.columns.items():
        stored = torch.from_numpy(column)
        reference[name] = stored.half() if name in HALF else stored.float()
    reference["similarity"] = torch.from_numpy(gates.real_similarity).float()
    reference["image_range"] = gates.image_range.float().cpu()
    bases = {f"{name}.{key}": t for name, space in own.spaces.items() for key, t in space.tensors().items()}
    for kind, prints in (("fingerprint", gates.fingerprints), ("contrast", gates.contrasts)):
        for name, found in prints.items():
            bases |= {f"{kind}.{name}.{key}": t for key, t in found.tensors().items()}
    bases |= {f"plausible.{name}": t for name, t in own.plausibility.tensors.items()}
    files = {
        "encoder": own.encoder.tensors(),
        "copies": own.copies.tensors(),
        "bases": bases,
        "reference": reference,
    }
    if own.segmenter is not None:
        files["segmenter"] = own.segmenter.tensors()
    return gates.limits.model_dump(mode="json"), files


def read_parts(path_or_name: str | os.PathLike) -> tuple[dict[str, Any], str]:
    """The arguments of `Gates`, and the hash. InputError: missing, damaged, altered or not complete."""
    folder = Path(path_or_name)
    if not folder.exists() and (PACKAGED / folder).is_dir():
        folder = PACKAGED / folder
    limits, files, found = read_folder(folder, Limits)
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
            _under(bases, "plausible"), limits.plausible.signs, limits.plausible.spread, limits.wavelengths_nm
        )
        copies = CopyDetector.restored(networks["copies"], files["copies"])
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
        "instruments": Instruments(encoder, segmenter, spaces, copies, plausibility),
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
