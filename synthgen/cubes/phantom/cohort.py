"""A whole cohort of simulated eyes, on all cores."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from itertools import islice
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from synthgen.cubes.cohort.cohort import Cohort
from synthgen.cubes.cohort.covariates import LOG as LOG_SCALE
from synthgen.cubes.cohort.writer import CohortWriter
from synthgen.cubes.phantom.camera import FWHM_NM
from synthgen.cubes.phantom.demographics import EYES, LOG, UNITS
from synthgen.cubes.phantom.simulate import LABELLED, PhantomCube, simulate_job
from synthgen.cubes.phantom.spectra import Signature
from synthgen.cubes.phantom.tables import LONGEST_NM, MARGIN_NM, SHORTEST_NM
from synthgen.cubes.wavelengths import parse_bands
from synthgen.errors import ConfigError
from synthgen.runs.processes.cores import usable_cores
from synthgen.runs.processes.workers import interrupts_held, worker_pool
from synthgen.runs.progress import progress

BATCH = 4  # cubes that a process makes before it hands them over
VERSION = 3  # raised whenever the same key gives another cube


def simulate_cohort(
    path: Annotated[str | os.PathLike, Field(description="cohort file to write (HDF5)")],
    patients: Annotated[int, Field(ge=1, description="number of patients; both eyes of each")] = 64,
    size: Annotated[int, Field(ge=16, description="rows and columns")] = 64,
    seed: Annotated[int, Field(description="the same seed gives the same eyes")] = 0,
    *,
    visits: Annotated[int, Field(ge=1, description="visits per patient")] = 1,
    wavelengths: Annotated[
        str | Sequence[float], Field(description="wavelengths in nm: start:stop:step or a list")
    ] = "450:900:30",
    fwhm_nm: Annotated[float, Field(description="width of a band at half maximum, nm")] = FWHM_NM,
    signature: Annotated[
        float,
        Field(description="amplitude of the label's signature at 450 nm, fraction of log-reflectance, either sign"),
    ] = LABELLED.amplitude,
    signature_exponent: Annotated[
        float, Field(description="its law over wavelength: (nm / 450)^-exponent")
    ] = LABELLED.exponent,
    signature_cutoff: Annotated[float, Field(description="longest wavelength with a signature, nm")] = (
        LABELLED.cutoff_nm
    ),
    signature_region: Annotated[
        Literal["retina", "macula", "superior", "disc"], Field(description="where the signature is")
    ] = "retina",
    prevalence: Annotated[float, Field(ge=0, le=1, description="fraction of labelled patients")] = 0.5,
    age_gap: Annotated[float, Field(description="years that labelled patients are older")] = 0.0,
    workers: Annotated[
        int | None, Field(ge=1, description="processes, on which the cubes do not depend; one per core by default")
    ] = None,
) -> Cohort:
    """Simulate both eyes of `patients` patients at `visits` visits and write them as a cohort file, atomically.

    Every factor of the patient and every nuisance of the visit is a covariate of the cohort (see `demographics.UNITS`).
    The labelled patients differ by a signature (see `Signature`), of amplitude 0 for none.

    Raises ConfigError for impossible numbers, StorageError when the disk is full.
    """
    wavelengths = parse_bands(wavelengths) if isinstance(wavelengths, str) else tuple(wavelengths)
    mark = Signature(signature, signature_exponent, signature_cutoff, signature_region)
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
