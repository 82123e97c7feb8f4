"""What else a cohort knows of its cubes: age, camera, site and the like, from the file or from a table of patients.

In the file it is any dataset of one number or text per cube beside the known ones (`age` [N], `camera` [N]); the table
is a CSV file with a column `patient` and any others.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping

import numpy as np

from synthgen.cubes.cohort.cohort import Cohort
from synthgen.cubes.cohort.hdf5 import open_hdf5, small
from synthgen.errors import InputError, must_exist

KNOWN = frozenset({"cubes", "wavelengths_nm", "patient_id", "eye", "visit", "label", "structures", "masks"})


def fields_of(cohort: Cohort) -> dict[str, np.ndarray]:
    """Every further dataset with one number or text per cube: name -> float64 or str [N]."""
    found = {}
    with open_hdf5(cohort.path) as file:
        for name in sorted(set(file.keys()) - KNOWN):
            item = file.get(name, getclass=True)
            if item is None or item.__name__ != "Dataset" or file[name].shape != (len(cohort),):
                continue
            values = small(file, name, cohort.path)
            assert values is not None
            found[name] = values.astype(str if values.dtype.kind == "U" else np.float64)
    return found


def fields_of_table(path: str | os.PathLike, cohort: Cohort) -> dict[str, np.ndarray]:
    """The columns of a CSV table of patients, dealt out to the cubes: name -> float64 (NaN: unknown) or str [N].

    A column is numbers where every entry is a number or empty. InputError without a column `patient`, for two rows of
    one patient that differ, and where none of the cohort's patients is in the table.
    """
    rows: dict[str, dict[str, str]] = {}
    try:
        with open(must_exist(path), newline="", encoding="utf-8-sig") as file:
            for line, row in enumerate(csv.DictReader(file), start=2):
                patient = (row.pop("patient", None) or "").strip()
                if not patient:
                    raise InputError(
                        f"line {line} has no patient", path=path, expected="columns patient,age,camera,..."
                    )
                plain = {str(k): (v or "").strip() for k, v in row.items() if isinstance(v, str | None)}
                if rows.setdefault(patient, plain) != plain:
                    raise InputError(f"line {line} contradicts an earlier one", path=path, found=patient)
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError("is not a CSV table", path=path, found=error) from None
    if not set(rows) & set(cohort.patients):
        raise InputError("has no row for any patient of the cohort", path=path, expected=f"{cohort.patients[0]}, ...")
    names = dict.fromkeys(name for row in rows.values() for name in row)
    return {name: _column(name, rows, cohort) for name in names}


def _column(name: str, rows: Mapping[str, Mapping[str, str]], cohort: Cohort) -> np.ndarray:
    texts = {patient: row.get(name, "") for patient, row in rows.items()}
    try:
        numbers = {patient: float(text) if text else float("nan") for patient, text in texts.items()}
    except ValueError:
        return np.array([texts.get(patient, "") for patient in cohort.patient_id])
    return np.array([numbers.get(patient, float("nan")) for patient in cohort.patient_id])
