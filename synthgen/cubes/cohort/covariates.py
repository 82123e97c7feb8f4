"""What else a cohort knows of its cubes: age, camera, site and the like, from the file or from a table of patients.

In the file it is any dataset of one number or text per cube beside the known ones (`age` [N], `camera` [N]). Its
attribute `units` says what the numbers are in, as in the CF conventions; `scale` = "log" that ratios count, not
differences. The table is a CSV file with a column `patient` and any others; `age [years]` is `age`, in years.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

import h5py
import numpy as np

from synthgen.cubes.cohort.cohort import Cohort
from synthgen.cubes.cohort.hdf5 import dataset, in_one_line, open_hdf5, small
from synthgen.cubes.cohort.hdf5_heaps import text_attribute
from synthgen.errors import InputError, must_exist

KNOWN = frozenset({"cubes", "wavelengths_nm", "patient_id", "eye", "visit", "label", "structures", "masks"})
LOG = "log"  # the attribute `scale` of a covariate whose logarithm is spread evenly, as that of a pigment's density is
_WITH_UNIT = re.compile(r"(.*\S)\s*\[([^\[\]]*)\]")


@dataclass(frozen=True, eq=False)
class Covariate:
    """values [N]: float64 (NaN: unknown) or str ("": unknown), one per cube. unit: of numbers, "" where none is given.
    log: ratios count, not differences."""

    values: np.ndarray
    unit: str = ""
    log: bool = False

    @property
    def is_number(self) -> bool:
        return self.values.dtype.kind in "uifb"

    @property
    def known(self) -> np.ndarray:
        """bool [N]: which cubes have a value."""
        return ~np.isnan(self.values.astype(np.float64)) if self.is_number else self.values.astype(str) != ""


def covariates_of(cohort: Cohort, table: str | os.PathLike | None = None) -> dict[str, Covariate]:
    """Every further dataset with one number or text per cube, and the columns of `table`, which come first; by name."""
    found = {}
    with open_hdf5(cohort.path) as file:
        for name in sorted(set(file.keys()) - KNOWN):
            item = file.get(name, getclass=True)
            if item is None or item.__name__ != "Dataset" or file[name].shape != (len(cohort),):
                continue
            data, values = dataset(file, name, cohort.path), small(file, name, cohort.path)
            assert data is not None and values is not None
            found[name] = _of_dataset(data, values, cohort)
    return found | (covariates_of_table(table, cohort) if table is not None else {})


def _of_dataset(data: h5py.Dataset, values: np.ndarray, cohort: Cohort) -> Covariate:
    if values.dtype.kind == "U":
        return Covariate(values.astype(str))
    unit, scale = (text_attribute(data, n, cohort.path) if n in data.attrs else None for n in ("units", "scale"))
    return Covariate(values.astype(np.float64), in_one_line(unit).strip() if unit else "", scale == LOG)


def covariates_of_table(path: str | os.PathLike, cohort: Cohort) -> dict[str, Covariate]:
    """The columns of a CSV table of patients, dealt out to the cubes.

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
    found = {}
    for name in names:
        with_unit = _WITH_UNIT.fullmatch(name)
        plain, unit = with_unit.groups() if with_unit is not None else (name, "")
        found[plain] = Covariate(_column(name, rows, cohort), unit.strip())
    return found


def _column(name: str, rows: Mapping[str, Mapping[str, str]], cohort: Cohort) -> np.ndarray:
    texts = {patient: row.get(name, "") for patient, row in rows.items()}
    try:
        numbers = {patient: float(text) if text else float("nan") for patient, text in texts.items()}
    except ValueError:
        return np.array([texts.get(patient, "") for patient in cohort.patient_id])
    return np.array([numbers.get(patient, float("nan")) for patient in cohort.patient_id])
