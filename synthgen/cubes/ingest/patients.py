"""Whose cube it is: the patient of each file, from a table, from its name, or from the file itself."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from pathlib import Path

from synthgen.cubes.ingest.patient_table import PatientTable, Person
from synthgen.cubes.readers.folders import header_beside
from synthgen.cubes.readers.formats.envi_files import RAW_SUFFIXES, has_envi_mark
from synthgen.cubes.readers.source import Source
from synthgen.errors import ConfigError, InputError

GROUPS = ("patient", "eye", "visit", "label")  # names that groups of a patient pattern may have


class PatientRule:
    """Names the patient of each cube of a source. What the user gives wins over what the file holds.

    Args:
        table: CSV with the columns file, patient and optionally eye, visit, label; see `PatientTable`.
        pattern: regular expression searched in the file name (of a folder of pictures, the folder's name). Its groups
            may be named patient, eye, visit and label; without a group of that name the first group is the patient.
        each_file: without either, and without patients in the file, every file is a patient of its own.
    """

    def __init__(self, table: str | Path | None = None, pattern: str | None = None, each_file: bool = False):
        self.each_file = each_file
        self.table = None if table is None else PatientTable(Path(table))
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

    def check_sources(self, paths: Iterable[Path]) -> None:
        """InputError when the table, or the names that stand for patients, do not distinguish two of the sources."""
        if self.table is not None:
            self.table.check_names(paths)
        elif self.each_file and self.pattern is None:
            seen: dict[str, Path] = {}
            for path in paths:
                if (other := seen.setdefault(plain_name(path), path)) != path:
                    raise InputError(
                        "has the name of another source, so it would be the same patient",
                        path=path,
                        found=other,
                        remedy="name the patients with --patient-table FILE.csv or --patient-pattern REGEX",
                    )

    def person(self, source: Source, i: int) -> Person:
        """The person of cube `i` of a source; InputError when nothing names the patient."""
        own = _own(source, i)
        if self.table is not None:
            return _merged(self.table.person(source.path), own)
        if self.pattern is not None:
            return _merged(_from_name(source.path, self.pattern), own)
        if own.patient:
            return own
        if self.each_file:
            return own.model_copy(update={"patient": plain_name(source.path)})
        raise InputError(
            "patients unknown",
            path=source.path,
            expected="'patient_id' in the file, or given",
            remedy="give --patient-table FILE.csv or --patient-pattern REGEX, or --each-file-a-patient if that is so",
        )


def plain_name(path: Path) -> str:
    """The name of a source without its format: the same for an ENVI header as for its raw file."""
    if path.is_dir():
        return path.name
    header = path if has_envi_mark(path) else header_beside(path)
    if header is None:
        return path.stem
    stem = Path(header.stem)
    return stem.stem if stem.suffix.lower() in RAW_SUFFIXES else stem.name


def _own(source: Source, i: int) -> Person:
    """What the file itself states of cube `i`."""
    label = None if source.label is None else float(source.label[i])
    visit = None if source.visit is None or source.visit.dtype.kind not in "ui" else int(source.visit[i])
    return Person(
        patient="" if source.patient_id is None else str(source.patient_id[i]).strip(),
        eye=None if source.eye is None else str(source.eye[i]) or None,
        visit=None if visit is None or visit < 0 else visit,
        label=None if label is None or not math.isfinite(label) else label,
    )


def _merged(given: Person, own: Person) -> Person:
    """What the user gave, and where that states nothing what the file holds."""
    return own.model_copy(update=given.model_dump(exclude_none=True))


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
