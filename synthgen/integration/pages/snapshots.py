"""Pictures of cubes: what a training shows of itself, shards beside real cubes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from synthgen.contracts import Status, Verdict
from synthgen.cubes.cohort.cohort import Cohort
from synthgen.cubes.cohort.structures import region_spectra
from synthgen.integration.artifacts import find_generator
from synthgen.integration.pages.figure import origin
from synthgen.quality.gates import Gates
from synthgen.report.contact_sheet import contact_sheet
from synthgen.report.spectra import structure_spectra
from synthgen.report.wavelength_figure import wavelength_figure
from synthgen.runs.files import write_json
from synthgen.shards.reader import ShardFolder

KINDS = ("real", "reconstructed", "synthetic")
SHOWN = 4
RATIO, VERDICTS = "joint_frechet_ratio", "reconstructions.json"


def validation_callback(
    note: str = "", gates: Gates | None = None
) -> Callable[[str, dict[str, Any], Path, int], dict[str, float]]:
    """The `on_validation` callback of the two trainings: a contact sheet and the spectra of the structures.

    Writes `contact_sheet.png` and, where the cohort has masks, `spectra.png` into the run folder, anew each time.
    With gates it returns, for the run's metrics, which fractions of the synthetic cubes they reject, and call copies;
    of an autoencoder, how many of their checks fail its reconstructions or cannot decide (few cubes decide nothing),
    the same for the eyes themselves, which fractions they reject, and the reconstructions' joint Frechet ratio.
    `reconstructions.json` has both verdicts.
    """
    of_real: list[Verdict] = []

    def on_validation(kind: str, arrays: dict[str, Any], folder: Path, step: int) -> dict[str, float]:
        rows = {name: _some(arrays[name]) for name in KINDS if name in arrays}
        nm = arrays["wavelengths"]
        contact_sheet(folder / "contact_sheet.png", rows, nm, f"{kind}, step {step}", note)
        if arrays.get("masks"):
            spectra = {  # real and reconstructed cubes are pairs and share their masks
                name: reflectance_spectra(arrays[name], arrays["masks"]) for name in KINDS[:2] if name in arrays
            }
            structure_spectra(folder / "spectra.png", nm, spectra, f"{kind}, step {step}: spectra of the structures")
        if gates is None:
            return {}
        if "synthetic" not in arrays:
            if not of_real:
                of_real.append(gates.judge(arrays["real"])[0])
            reconstructed = gates.judge(arrays["reconstructed"])[0]
            verdicts = {"real": of_real[0], "reconstructed": reconstructed}
            write_json(folder / VERDICTS, {name: v.model_dump(mode="json") for name, v in verdicts.items()})
            return _failures(of_real[0], "_real") | _failures(reconstructed) | _ratio(reconstructed)
        admission = gates(torch.from_numpy(arrays["synthetic"]))
        return {
            "rejected_share": 1 - float(admission.accept.float().mean()),
            "copy_share": float(admission.scores["copy"].float().mean()),
        }

    return on_validation


def _some(cubes: np.ndarray) -> np.ndarray:
    """At most SHOWN of them, evenly spread."""
    return cubes[:: max(1, len(cubes) // SHOWN)][:SHOWN]


def _failures(verdict: Verdict, ending: str = "") -> dict[str, float]:
    outcomes = [check.status for check in verdict.checks]
    counts = {"gates_failed": outcomes.count(Status.FAIL), "gates_undecided": outcomes.count(Status.UNDECIDED)}
    rejected = 1 - verdict.accepted / max(1, verdict.proposed)
    return {f"{name}{ending}": float(n) for name, n in counts.items()} | {f"rejected_share{ending}": rejected}


def _ratio(verdict: Verdict) -> dict[str, float]:
    return {c.name: c.value for c in verdict.checks if c.name == RATIO and c.value is not None}


def reflectance_spectra(cubes: np.ndarray, masks: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Mean spectrum of each structure in each cube, as reflectance [N, C] (geometric mean over the pixels)."""
    return {name: np.exp(table) for name, table in region_spectra(cubes, masks).items()}


def shards_sheet(folder: str | os.PathLike, cohort: Cohort, path: str | os.PathLike) -> Path:
    """Draw the first cubes of a shard folder below real ones; returns the PNG file."""
    shards = ShardFolder.open(folder, accepted_only=False)
    generator = (
        find_generator(shards.manifest, folder, torch.device("cpu")) if shards.manifest.kind == "tokens" else None
    )
    cubes, _ = next(iter(shards.cubes(generator)))
    some = cohort.cubes(np.arange(0, min(len(cohort), 2 * SHOWN), 2))
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    wavelength_figure([Path(path)], {origin(cohort): some, "synthetic": cubes[:SHOWN].numpy()}, cohort.wavelengths)
    return Path(path)
