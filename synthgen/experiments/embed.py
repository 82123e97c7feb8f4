"""`synthgen embed`: the features of every cube of a cohort in one file, for any other program."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import torch
from pydantic import Field

from synthgen.cubes.cohort.cohort import Cohort
from synthgen.errors import ConfigError
from synthgen.experiments.patient_features import blocks
from synthgen.integration.artifacts import check_belongs
from synthgen.runs.files import atomic
from synthgen.runs.processes.device import Device, pick_device
from synthgen.runs.progress import progress
from synthgen.ssl.backbone import load_backbone

SUFFIXES = (".npz", ".csv")


class Embedded(NamedTuple):
    """What was written: cubes and features per cube."""

    path: Path
    cubes: int
    features: int


def embed(
    backbone: Annotated[
        str | os.PathLike, Field(description="backbone.safetensors, the run folder that holds it, or phantom64")
    ],
    data: Annotated[str | os.PathLike, Field(description="cohort file (HDF5)")],
    out: Annotated[str | os.PathLike, Field(description="file to write: .npz, or .csv with a row for each cube")],
    device: Device = None,
) -> Embedded:
    """Write float32 features [N, D] as the backbone was exported, beside patient_id, eye, visit and label where the
    cohort has them, in the order of the cohort.

    Raises ConfigError for another suffix, MismatchError for a cohort of other bands or size, InputError for bad files.
    """
    path = Path(out)
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError("features go to a file of another kind", found=path.name, expected=" or ".join(SUFFIXES))
    place, cohort = pick_device(device), Cohort.open(data)
    network = load_backbone(backbone, place)
    check_belongs(cohort, network.wavelengths, network.size, "backbone", backbone)
    cohort.check_finite()
    found = []
    with progress("embed", len(cohort), "cube") as bar, torch.no_grad():
        for cubes in blocks(cohort, np.arange(len(cohort)), place):
            found.append(network(cubes).float().cpu().numpy())
            bar.advance(len(cubes))
    features = np.concatenate(found)
    about = {"patient_id": cohort.patient_id, "eye": cohort.eye, "visit": cohort.visit, "label": cohort.label}
    beside = {name: values for name, values in about.items() if values is not None}
    with atomic(path) as temporary:
        if path.suffix.lower() == ".npz":
            plain = {
                name: values.astype(str) if values.dtype.kind == "O" else values for name, values in beside.items()
            }
            with temporary.open("wb") as file:
                np.savez(file, features=features, **plain)
        else:
            temporary.write_text(_table(features, beside), encoding="utf-8")
    return Embedded(path, *features.shape)


def _table(features: np.ndarray, beside: dict[str, np.ndarray]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*beside, *(f"feature_{k}" for k in range(features.shape[1]))])
    for k, row in enumerate(features):
        writer.writerow([*(values[k] for values in beside.values()), *(f"{x:.9g}" for x in row)])
    return text.getvalue()
