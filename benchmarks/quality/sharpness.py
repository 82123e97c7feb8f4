"""How sharp each feature space is: the Frechet distance of planted faults over that of real eyes against real eyes.

python -m benchmarks.quality.sharpness [GATES]
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.common import record
from benchmarks.quality.power.faults import CHANGES, LOSSES, Eyes
from synthgen.cubes.cohort.cohort import Cohort
from synthgen.cubes.phantom.cohort import simulate_cohort
from synthgen.quality.gates import Gates, load_gates
from synthgen.quality.sets.moments import frechet_distance
from synthgen.quality.sets.statistics import Measure
from synthgen.quality.sets.table import Rows
from synthgen.runs.processes.device import set_threads

Array = NDArray[np.float64]

SEED = 9_271  # of patients that nothing has seen
_CHUNK = 128


def measure(gates_name: str = "phantom64", patients: int = 1000) -> dict[str, dict]:
    """FD(real, faulty) / FD(real, other real) for each fault in each space of the gates; recorded.

    `real`, `other real` and the faulty set, made from the `other real`, are both eyes of `patients` patients each;
    where a fault leaves cubes out, more patients stand in for them.
    """
    set_threads()
    gates = load_gates(gates_name)
    with tempfile.TemporaryDirectory() as folder:
        cohort = simulate_cohort(Path(folder) / "eyes.h5", patients=2 * patients + patients // 2, size=64, seed=SEED)
        people = np.unique(cohort.patient_id, return_inverse=True)[1]
        real, other = np.flatnonzero(people < patients), np.flatnonzero((people >= patients) & (people < 2 * patients))
        more = np.flatnonzero(people >= patients)
        plain = coordinates(gates, _cubes(cohort))
        null = {space: frechet_distance(x[real], x[other]) for space, x in plain.items()}

        def ratios(faulty: dict[str, Array]) -> dict[str, float]:
            found = {space: frechet_distance(plain[space][real], x) / null[space] for space, x in faulty.items()}
            return {space: float(f"{v:.3g}") for space, v in found.items()}

        found = {}
        for fault, change in CHANGES.items():
            if fault != "none":
                found[fault] = ratios(coordinates(gates, (change(eyes) for eyes in _eyes(cohort, other))))
        for fault, keeps in LOSSES.items():
            kept = more[keeps(cohort, SEED)[more]][: len(other)]
            found[fault] = {"cubes": len(kept)} | ratios({space: x[kept] for space, x in plain.items()})
    record(
        "sharpness",
        {
            "gates": gates.hash,
            "encoder": gates.instruments.encoder.name,
            "patients": patients,
            "cubes": len(other),
            "real_against_real": {space: float(f"{v:.4g}") for space, v in null.items()},
            "ratios": found,
        },
    )
    return found


def coordinates(gates: Gates, blocks: Iterable[Tensor]) -> dict[str, Array]:
    """Coordinates [N, d] of cubes in each space of the gates, as the set gates compare sets of a thousand."""
    with torch.no_grad():
        tables = [gates.instruments.columns(block, gates.wavelengths) for block in blocks]
    rows = Rows.of({name: torch.cat([table[name] for table in tables]).numpy() for name in tables[0]})
    clouds = gates.lens.clouds(rows, len(rows))
    return {name.of: cloud for name, cloud in clouds.items() if name.measure == Measure.FRECHET}


def _cubes(cohort: Cohort) -> Iterator[Tensor]:
    for start in range(0, len(cohort), _CHUNK):
        yield torch.from_numpy(cohort.cubes(np.arange(start, min(start + _CHUNK, len(cohort)))))


def _eyes(cohort: Cohort, index: np.ndarray) -> Iterator[Eyes]:
    for start in range(0, len(index), _CHUNK):
        yield Eyes.read(cohort, SEED, index[start : start + _CHUNK])


if __name__ == "__main__":
    for fault, by_space in measure(*sys.argv[1:]).items():
        print(fault, by_space)
