"""How sharp the encoder is: the Frechet distance of planted faults over that of real eyes against real eyes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.common import record
from benchmarks.faults import CHANGES, LOSSES, Eyes
from synthgen.cubes.cohort import Cohort
from synthgen.cubes.phantom import simulate_cohort
from synthgen.quality.embedding import set_features
from synthgen.quality.encoder import Encoder
from synthgen.quality.gates import load_gates
from synthgen.quality.metrics import frechet_distance
from synthgen.runs.device import set_threads

Array = NDArray[np.float64]
Look = Callable[[Tensor], Tensor]

SEED = 9_271  # of patients that nothing has seen
BASIS = 180  # further patients, as many as half of the packaged training set: the components are fitted on them
DIMENSION = 64
_CHUNK = 128


def measure(encoder: Encoder | str = "phantom64", patients: int = 1000, name: str = "sharpness") -> dict[str, dict]:
    """FD(real, faulty) / FD(real, other real) for each fault, every set of `patients` patients with both eyes.

    Args:
        encoder: one given, or the name of the gates that hold it.
        name: of the results' file.

    Returns: by fault, the ratio in the encoder's space and beside it in the untrained one. Each space is 64 principal
        components, fitted on other patients. The patients of `real`, `other real` and the faulty set (made from the
        `other real`) are different; where a fault leaves cubes out, more patients stand in for them.
    """
    set_threads()
    found = load_gates(encoder).instruments.encoder if isinstance(encoder, str) else encoder
    looks: dict[str, Look] = {"encoder": found, "untrained": set_features}
    with tempfile.TemporaryDirectory() as folder:
        cohort = simulate_cohort(
            Path(folder) / "eyes.h5", patients=BASIS + 3 * patients + patients // 5, size=64, seed=SEED, workers=1
        )
        people = np.unique(cohort.patient_id, return_inverse=True)[1]
        basis, real, other = (np.flatnonzero((people >= a) & (people < b)) for a, b in _parts(patients))
        more = np.flatnonzero(people >= BASIS + patients)
        plain = {k: embedded(look, cohort, np.arange(len(people))) for k, look in looks.items()}
        axes = {k: components(x[basis]) for k, x in plain.items()}
        null = {k: frechet_distance(x[real] @ axes[k], x[other] @ axes[k]) for k, x in plain.items()}
        ratios: dict[str, dict[str, float]] = {}
        for fault, change in CHANGES.items():
            if fault == "none":
                continue
            cubes = [change(eyes) for eyes in _eyes(cohort, other)]
            faulty = {k: torch.cat([look(c) for c in cubes]).double().numpy() for k, look in looks.items()}
            ratios[fault] = _ratios(plain, faulty, axes, null, real)
        for fault, keeps in LOSSES.items():
            kept = more[keeps(cohort, SEED)[more]][: len(other)]
            assert len(kept) == len(other)
            ratios[fault] = _ratios(plain, {k: x[kept] for k, x in plain.items()}, axes, null, real)
    record(
        name,
        {
            "encoder": found.name,
            "hash": found.hash,
            "dimension": found.dimension,
            "patients": patients,
            "cubes": len(other),
            "real_against_real": {k: float(f"{v:.4g}") for k, v in null.items()},
            "ratios": ratios,
        },
    )
    return ratios


def _parts(patients: int) -> tuple[tuple[int, int], ...]:
    return (0, BASIS), (BASIS, BASIS + patients), (BASIS + patients, BASIS + 2 * patients)


def _eyes(cohort: Cohort, index: np.ndarray) -> Iterator[Eyes]:
    for start in range(0, len(index), _CHUNK):
        yield Eyes.read(cohort, SEED, index[start : start + _CHUNK])


def embedded(look: Look, cohort: Cohort, index: np.ndarray) -> Array:
    """Features [N, F] of some cubes, in blocks."""
    blocks = (torch.from_numpy(cohort.cubes(index[i : i + _CHUNK])) for i in range(0, len(index), _CHUNK))
    return torch.cat([look(block) for block in blocks]).double().numpy()


def components(features: Array) -> Array:
    """[F, 64] leading principal components."""
    return np.linalg.svd(features - features.mean(0), full_matrices=False)[2][:DIMENSION].T


def _ratios(plain, faulty, axes, null, real) -> dict[str, float]:
    found = {k: frechet_distance(plain[k][real] @ axes[k], x @ axes[k]) / null[k] for k, x in faulty.items()}
    return {k: float(f"{v:.3g}") for k, v in found.items()}
