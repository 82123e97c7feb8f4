"""Whose cube it is: the patient of each file, from a table, from its name, or from the file itself."""

from __future__ import annotations

import csv
import math
import re
from pathlib import Path

from synthgen.config import Config
from synthgen.cubes.source import Source
from synthgen.errors import ConfigError, InputError, must_exist

GROUPS = ("patient", "eye", "visit", "label")  # names that groups of a patient pattern may have


class Person(Config):
    """Identity of one cube; what is not known is None."""

    patient: str
    eye: str | None = None
    visit: int | None = None
    label: float | None = None


class PatientRule:
    """Names the patient of each cube of a source. What the user tells wins over what the file holds.

    Args:
        table: CSV with the columns file, patient and optionally eye, visit, label; `file` is a name or a path.
        pattern: regular expression searched in the file name (of a folder of pictures, the folder's name). Its groups
            may be named patient, eye, visit and label; without a group of that name the first group is the patient.
        each_file: without either, and without patients in the file, every file is a patient of its own.
    """

    def __init__(self, table: str | Path | None = None, pattern: str | None = None, each_file: bool = False):
        self.each_file = each_file
        self.rows = None if table is None else _read_table(Path(table))
        self.table = table
        self.pattern = None
        if pattern is not None:
            try:
                self.pattern = re.compile(pattern)
            except re.error as error:
                found = f"{pattern}: {error}"
                raise ConfigError("'patient_pattern' is not a regular expression", found=found) from None
            if self.pattern.groups < 1:
                raise ConfigError(
                    "'patient_pattern' has no group", found=pattern, remedy=r"put the patient in brackets: 'eye_(\d+)_'"
                )
            if unknown := sorted(set(self.pattern.groupindex) - set(GROUPS)):
                raise ConfigError(
                    f"'patient_pattern' has a group of unknown name '{unknown[0]}'", expected=", ".join(GROUPS)
                )

    def person(self, source: Source, i: int) -> Person:
        """The person of cube `i` of a source; InputError when nothing names the patient."""
        own = _own(source, i)
        if self.rows is not None:
            row = self.rows.get(str(source.path.resolve())) or self.rows.get(source.path.name)
            if row is None:
                raise InputError("not in the table of patients", path=source.path, expected=f"a row in {self.table}")
            return _merged(row, own)
        if self.pattern is not None:
            return _merged(_from_name(source.path, self.pattern), own)
        if own.patient:
            return own
        if self.each_file:
            return own.model_copy(update={"patient": source.path.stem})
        raise InputError(
            "patients unknown",
            path=source.path,
            expected="'patient_id' in the file, or told",
            remedy="give --patient-table FILE.csv or --patient-pattern REGEX, or --each-file-a-patient if that is so",
        )


def _own(source: Source, i: int) -> Person:
    """What the file itself says of cube `i`."""
    label = None if source.label is None else float(source.label[i])
    visit = None if source.visit is None or source.visit.dtype.kind not in "ui" else int(source.visit[i])
    return Person(
        patient="" if source.patient_id is None else str(source.patient_id[i]).strip(),
        eye=None if source.eye is None else str(source.eye[i]) or None,
        visit=None if visit is None or visit < 0 else visit,
        label=None if label is None or not math.isfinite(label) else label,
    )


def _merged(told: Person, own: Person) -> Person:
    """What was told, and where it says nothing what the file holds."""
    return own.model_copy(update=told.model_dump(exclude_none=True))


def _from_name(path: Path, pattern: re.Pattern[str]) -> Person:
    """The person in a file's name; InputError when the name does not fit."""
    match = pattern.search(path.name)
    found = match.groupdict() if match is not None else {}
    patient = found.get("patient") if "patient" in pattern.groupindex else match and match.group(1)
    if not patient:
        raise InputError("file name does not fit the patient pattern", path=path, expected=pattern.pattern)
    try:
        visit = int(found["visit"]) if found.get("visit") else None
        label = float(found["label"]) if found.get("label") else None
    except ValueError as error:
        raise InputError("visit or label in the file name is no number", path=path, found=error) from None
    return Person(patient=patient, eye=found.get("eye") or None, visit=visit, label=label)


def _read_table(path: Path) -> dict[str, Person]:
    """CSV rows by file name and by absolute path (relative paths start at the table's folder)."""
    try:
        with open(must_exist(path), newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError("is not a CSV table", path=path, found=error) from None
    found: dict[str, Person] = {}
    for line, row in enumerate(rows, start=2):
        if not row.get("file") or not row.get("patient"):
            raise InputError(
                f"line {line} has no file or no patient",
                path=path,
                found="columns " + ", ".join(str(k) for k in row),
                expected="columns file,patient[,eye,visit,label]",
            )
        try:
            visit = int(row["visit"]) if row.get("visit") else None
            label = float(row["label"]) if row.get("label") else None
        except ValueError as error:
            raise InputError(f"line {line} has a visit or a label that is no number", path=path, found=error) from None
        if label is not None and not math.isfinite(label):
            label = None
        person = Person(patient=row["patient"].strip(), eye=row.get("eye") or None, visit=visit, label=label)
        keys = {str((path.parent / row["file"]).resolve()), Path(row["file"]).name}
        for key in keys:
            if found.setdefault(key, person) != person:
                raise InputError(f"line {line} contradicts an earlier one", path=path, found=row["file"])
    if not found:
        raise InputError("holds no rows", path=path, expected="columns file,patient[,eye,visit,label]")
    return found
