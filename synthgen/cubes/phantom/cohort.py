"""A whole cohort of simulated eyes, on all cores."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from itertools import islice

import numpy as np

from synthgen.cubes.cohort.cohort import Cohort
from synthgen.cubes.cohort.covariates import LOG as LOG_SCALE
from synthgen.cubes.cohort.writer import CohortWriter
from synthgen.cubes.phantom.camera import FWHM_NM
from synthgen.cubes.phantom.demographics import EYES, LOG, UNITS
from synthgen.cubes.phantom.simulate import LABELLED, WAVELENGTHS, PhantomCube, simulate_job
from synthgen.cubes.phantom.spectra import Signature
from synthgen.cubes.phantom.tables import LONGEST_NM, MARGIN_NM, SHORTEST_NM
from synthgen.errors import ConfigError
from synthgen.runs.cores import usable_cores
from synthgen.runs.progress import progress
from synthgen.runs.workers import interrupts_held, worker_pool

BATCH = 4  # cubes that a process makes before it hands them over
VERSION = 3  # raised whenever the same key gives another cube


def simulate_cohort(
    path: str | os.PathLike,
    patients: int = 64,
    size: int = 64,
    seed: int = 0,
    *,
    visits: int = 1,
    signature: Signature | float = LABELLED,
    prevalence: float = 0.5,
    age_gap: float = 0.0,
    wavelengths: Sequence[float] = WAVELENGTHS,
    fwhm_nm: float = FWHM_NM,
    workers: int | None = None,
) -> Cohort:
    """Simulate both eyes of `patients` patients at `visits` visits and write them as a cohort file, atomically.

    Every factor of the patient and every nuisance of the visit is a covariate of the cohort (see `demographics.UNITS`).

    Args:
        signature: the labelled patients' change of the spectrum, or its amplitude (see `Signature`); 0 for none.
        prevalence: share of labelled patients. age_gap: years that labelled patients are older.
        fwhm_nm: width of the camera's bands at half maximum.
        workers: processes; by default one per core. The cubes do not depend on it.

    Raises ConfigError for impossible numbers, StorageError when the disk is full.
    """
    mark = signature if isinstance(signature, Signature) else Signature(float(signature))
    if patients < 1 or size < 16 or visits < 1:
        raise ConfigError(
            "cannot simulate such a cohort",
            found=f"patients {patients}, size {size}, visits {visits}",
            expected="at least 1 patient, 16 pixels, 1 visit",
        )
    _check_bands(np.asarray(wavelengths, dtype=float), fwhm_nm)
    keys = [(p, eye, visit) for p in range(patients) for eye in EYES for visit in range(visits)]
    jobs = [(*key, size, seed, tuple(wavelengths), mark, prevalence, age_gap, fwhm_nm) for key in keys]
    about = {"source": "phantom", "phantom_version": VERSION, "seed": seed, "signature": mark.amplitude}
    about |= {f"signature_{k}": v for k, v in asdict(mark).items() if k != "amplitude"} | {"band_fwhm_nm": fwhm_nm}
    scale = {name: {"units": unit} | ({"scale": LOG_SCALE} if name in LOG else {}) for name, unit in UNITS.items()}
    with (
        CohortWriter(path, tuple(wavelengths), size, size, attributes=about, field_attributes=scale) as writer,
        progress("simulating eyes", len(jobs), "cube") as bar,
    ):
        for made in _simulated(jobs, workers):
            writer.append(
                made.cube, made.patient_id, eye=made.eye, visit=made.visit, label=made.label, masks=made.masks,
                fields=made.truth,
            )  # fmt: skip
            bar.advance()
    return Cohort.open(path)


def _check_bands(nm: np.ndarray, fwhm_nm: float) -> None:
    """ConfigError unless the bands increase and lie, to their half-maximum, where haemoglobin is tabulated (nearly)."""
    low, high = SHORTEST_NM - MARGIN_NM + fwhm_nm / 2, LONGEST_NM + MARGIN_NM - fwhm_nm / 2
    low, high = max(low, SHORTEST_NM), min(high, LONGEST_NM)
    if not (len(nm) and fwhm_nm >= 0 and nm.min() >= low and nm.max() <= high and (np.diff(nm) > 0).all()):
        raise ConfigError(
            "the phantom knows no such bands",
            found=f"{len(nm)} bands" + (f", {nm.min():g}-{nm.max():g} nm, {fwhm_nm:g} nm wide" if len(nm) else ""),
            expected=f"increasing wavelengths within {low:g}-{high:g} nm, where haemoglobin is tabulated",
        )


def _simulated(jobs: list[tuple], workers: int | None) -> Iterator[PhantomCube]:
    """The cubes in order, from as many processes as pay off."""
    cores = usable_cores()
    count = min(workers or cores, max(1, len(jobs) // 16))
    if count == 1:
        yield from map(simulate_job, jobs)
        return
    done, ahead = 0, 3 * count  # batches made but not yet written: memory stays bounded however slow the disk
    batches = (jobs[i : i + BATCH] for i in range(0, len(jobs), BATCH))
    try:
        with worker_pool(count) as pool:
            pending: deque[Future[list[PhantomCube]]] = deque()
            while True:
                with interrupts_held():
                    pending.extend(pool.submit(_simulate_batch, b) for b in islice(batches, ahead - len(pending)))
                if not pending:
                    break
                made = pending.popleft().result()
                yield from made
                done += len(made)
    except BrokenProcessPool:  # a script without `if __name__ == "__main__":` cannot start processes
        yield from map(simulate_job, jobs[done:])


def _simulate_batch(jobs: list[tuple]) -> list[PhantomCube]:
    return [simulate_job(job) for job in jobs]
