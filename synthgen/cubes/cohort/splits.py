"""Splits by patient: train, calibration and test never share a person, whatever eyes, visits and patches there are."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from synthgen.cubes.cohort.cohort import Cohort
from synthgen.errors import ConfigError, InputError, StorageError
from synthgen.runs.files import read_json, write_json

_ANEW = "delete it to draw a new split (patients seen in training may then become test patients)"
_MANY_LABELS = 5  # more distinct labels than this are a measurement, stratified by quarters


class Split(NamedTuple):
    """Patients of each part, sorted."""

    train: tuple[str, ...]
    calibration: tuple[str, ...]
    test: tuple[str, ...]

    @property
    def known(self) -> tuple[str, ...]:
        """Everyone but the test patients: the training and the calibration patients, sorted."""
        return tuple(sorted((*self.train, *self.calibration)))


def split_patients(
    patients: Sequence[str],
    fractions: Sequence[float] = (0.7, 0.15, 0.15),
    seed: int = 0,
    labels: Mapping[str, float] | None = None,
    kept: Split | None = None,
) -> Split:
    """Divide patients into train, calibration and test.

    The result depends on the set of patients, the seed and the labels, not on their order. Where labels are known
    (NaN or absent: unknown, a stratum of its own) each part gets its part of every label. Patients of `kept` stay in
    the part that they are in there. Every part gets at least one patient; InputError with fewer than three patients, or
    where that would move a kept one, ConfigError for fractions that are not three positive numbers with sum 1.
    """
    shares = np.asarray(fractions, dtype=np.float64)
    if shares.shape != (3,) or not (shares > 0).all() or abs(shares.sum() - 1) > 1e-6:
        raise ConfigError(
            "fractions of a split must be three positive numbers with sum 1",
            found=tuple(fractions),
            expected="0.7,0.15,0.15, say",
        )
    distinct = sorted(set(patients))
    if len(distinct) < 3:
        raise InputError(
            "too few patients to split",
            found=len(distinct),
            expected="at least 3 (train, calibration and test each need one)",
            remedy="add patients, or check that the patient ids distinguish them",
        )
    strata = _strata(distinct, labels or {})
    # Stratum by stratum, in a random order within each, every patient goes to the part that lags behind its share most:
    # any run of neighbours, hence every stratum, is divided in proportion to within one patient.
    parts = tuple([p for p in part if p in strata] for part in kept) if kept is not None else ([], [], [])
    new = set(distinct).difference(*parts)
    order = sorted(new, key=lambda p: (strata[p], _random_key(seed, p)))
    for done, patient in enumerate(order, start=len(distinct) - len(new) + 1):
        lag = shares * done - [len(part) for part in parts]
        parts[int(np.argmax(lag.round(9)))].append(patient)
    for name, part in zip(Split._fields, parts, strict=True):
        if not part:
            largest = max(parts, key=len)
            if largest[-1] not in new:
                raise InputError(f"no {name} patient is left of the earlier split, and no new one could become one")
            part.append(largest.pop())
    return Split(*(tuple(sorted(part)) for part in parts))


def load_or_make_split(cohort: Cohort, fractions: Sequence[float] = (0.7, 0.15, 0.15), seed: int = 0) -> Split:
    """The split kept beside a cohort file as `<path>.split.json`; made, with `fractions` and `seed`, when absent.

    A split once made stays, so that a test patient stays one; delete the file to draw another. Where the contents of
    the cohort are others than it was made for (patients or visits were added, bands resampled), its patients stay in
    their parts and new ones are dealt out with its own fractions and seed. Where the folder cannot be written the split
    is drawn again each time, from the same seed. InputError when the file is not a split of these patients, or when one
    of its parts has lost all of them.
    """
    sidecar = cohort.path.with_name(cohort.path.name + ".split.json")
    kept = None
    if sidecar.exists():
        made_for, kept, fractions, seed = _load(sidecar, fractions, seed)
        if made_for == cohort.content_hash:
            if set(cohort.patients) != {patient for part in kept for patient in part}:
                raise InputError("does not divide the patients of the cohort", path=sidecar, remedy=_ANEW)
            return kept
    try:
        split = split_patients(cohort.patients, fractions, seed, labels_by_patient(cohort), kept)
    except InputError as error:
        raise InputError(
            error.what,
            path=cohort.path if kept is None else sidecar,
            found=error.found,
            expected=error.expected,
            remedy=error.remedy or _ANEW,
        ) from None
    value = {"cohort_hash": cohort.content_hash, "seed": seed, "fractions": list(fractions)}
    with suppress(StorageError):
        write_json(sidecar, value | {name: list(part) for name, part in split._asdict().items()})
    return split


def labels_by_patient(cohort: Cohort) -> dict[str, float]:
    """The known label of each patient (the first one among the patient's cubes)."""
    known: dict[str, float] = {}
    if cohort.label is not None:
        for patient, label in zip(cohort.patient_id.tolist(), cohort.label.tolist(), strict=True):
            if not np.isnan(label):
                known.setdefault(patient, label)
    return known


def _load(sidecar: Path, fractions: Sequence[float], seed: int) -> tuple[str, Split, Sequence[float], int]:
    """The content hash that a split was made for, the split, its fractions and its seed (those given where absent)."""
    value = read_json(sidecar)
    try:
        split = Split(*(tuple(str(p) for p in value[name]) for name in Split._fields))
        stated = str(value["cohort_hash"]), split, value.get("fractions", fractions), int(value.get("seed", seed))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError("is not a split", path=sidecar, found=f"no {error}", remedy=_ANEW) from None
    listed = [patient for part in split for patient in part]
    if len(listed) != len(set(listed)) or not all(split):
        raise InputError("is not a split: every patient belongs to one part", path=sidecar, remedy=_ANEW)
    return stated


def _strata(patients: Sequence[str], labels: Mapping[str, float]) -> dict[str, float]:
    known = {p: float(labels[p]) for p in patients if p in labels and not np.isnan(labels[p])}
    values = np.array(sorted(set(known.values())))
    if len(values) > _MANY_LABELS:
        quarters = np.quantile(list(known.values()), (0.25, 0.5, 0.75))
        known = {p: float(np.searchsorted(quarters, v)) for p, v in known.items()}
    return {p: known.get(p, float("inf")) for p in patients}


def _random_key(seed: int, patient: str) -> bytes:
    """A private random number of each patient: adding one patient does not reorder the others."""
    return hashlib.blake2b(f"{seed}/{patient}".encode(), digest_size=16).digest()
