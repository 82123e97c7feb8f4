"""Splits by patient: train, calibration and test never share a person, whatever eyes, visits and patches there are."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

import numpy as np

from synthgen.cubes.cohort.cohort import Cohort
from synthgen.errors import ConfigError, InputError, MismatchError, StorageError
from synthgen.runs.files import read_json, write_json

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
) -> Split:
    """Divide patients into train, calibration and test.

    The result depends on the set of patients, the seed and the labels, not on their order. Where labels are known
    (NaN or absent: unknown, a stratum of its own) each part gets its share of every label. Every part gets at least
    one patient; InputError with fewer than three patients, ConfigError for fractions that are not three positive
    numbers with sum 1.
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
            remedy="add patients, or check that the patient ids tell them apart",
        )
    strata = _strata(distinct, labels or {})
    # Stratum by stratum, in a random order within each, every patient goes to the part that lags behind its share most:
    # any run of neighbours, hence every stratum, is divided in proportion to within one patient.
    order = sorted(distinct, key=lambda p: (strata[p], _random_key(seed, p)))
    parts: tuple[list[str], ...] = ([], [], [])
    for done, patient in enumerate(order, start=1):
        lag = shares * done - [len(part) for part in parts]
        parts[int(np.argmax(lag.round(9)))].append(patient)
    for part in parts:
        if not part:
            part.append(max(parts, key=len).pop())
    return Split(*(tuple(sorted(part)) for part in parts))


def load_or_make_split(cohort: Cohort, fractions: Sequence[float] = (0.7, 0.15, 0.15), seed: int = 0) -> Split:
    """The split kept beside a cohort file as `<path>.split.json`; made, with `fractions` and `seed`, when absent.

    A split once made stays as it is, so that a test patient stays one; delete the file to draw another. Where the
    folder cannot be written the split is drawn again each time, from the same seed. MismatchError when the file belongs
    to other contents, InputError when it does not divide the patients of the cohort.
    """
    sidecar = cohort.path.with_name(cohort.path.name + ".split.json")
    if sidecar.exists():
        return _load(sidecar, cohort)
    try:
        split = split_patients(cohort.patients, fractions, seed, labels_by_patient(cohort))
    except InputError as error:
        raise InputError(
            error.what, path=cohort.path, found=error.found, expected=error.expected, remedy=error.remedy
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


def _load(sidecar, cohort: Cohort) -> Split:
    value = read_json(sidecar)
    remedy = f"delete {sidecar.name} to draw a new split"
    try:
        made_for = value["cohort_hash"]
        split = Split(*(tuple(str(p) for p in value[name]) for name in Split._fields))
    except (KeyError, TypeError) as error:
        raise InputError("is not a split", path=sidecar, found=f"no {error}", remedy=remedy) from None
    if made_for != cohort.content_hash:
        raise MismatchError(
            "the split belongs to other contents of the cohort",
            path=sidecar,
            found=made_for,
            expected=cohort.content_hash,
            remedy=remedy + " (patients seen before may then become test patients)",
        )
    listed = [patient for part in split for patient in part]
    if len(listed) != len(set(listed)) or set(listed) != set(cohort.patients) or not all(split):
        raise InputError("does not divide the patients of the cohort", path=sidecar, remedy=remedy)
    return split


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
