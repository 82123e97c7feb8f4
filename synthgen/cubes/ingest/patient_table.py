"""The table of patients: which row belongs to which source."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterable
from pathlib import Path

from synthgen.config import Config
from synthgen.cubes.readers.folders import files_of
from synthgen.errors import InputError, must_exist

COLUMNS = "columns file,patient[,eye,visit,label]"


class Person(Config):
    """Identity of one cube; what is not known is None."""

    patient: str
    eye: str | None = None
    visit: int | None = None
    label: float | None = None


class PatientTable:
    """Rows of a CSV table, each for one source.

    Where the column `file` gives a folder, too, the row is for that path alone; a relative one starts at the folder of
    the table. A bare name is for the one source of that name. Of an ENVI pair the header or the raw file may be named.

    InputError when the table cannot be read, or has two entries for one file.
    """

    def __init__(self, path: Path):
        self.path = path
        self._by_path: dict[Path, Person] = {}
        self._by_name: dict[str, Person] = {}
        for line, row in _rows(path):
            person, name = _person(path, line, row), row["file"].rstrip("/")
            if os.path.dirname(name):
                earlier = self._by_path.setdefault((path.parent / name).resolve(), person)
            else:
                earlier = self._by_name.setdefault(name, person)
            if earlier != person:
                raise InputError(f"line {line} contradicts an earlier one", path=path, found=name)

    def person(self, source: Path) -> Person:
        """Who the row of a source names; InputError when there is no row, or rows that differ."""
        names = _names(source)
        found = [self._by_path[p.resolve()] for p in names if p.resolve() in self._by_path]
        found = found or [self._by_name[p.name] for p in names if p.name in self._by_name]
        if any(person != found[0] for person in found):
            expected = "the same patient, eye, visit and label for the header and its raw file"
            raise InputError(f"rows of {self.path} contradict each other", path=source, expected=expected)
        if not found:
            others = [path for path in self._by_path if path.name in {p.name for p in names}]
            raise InputError(
                "not in the table of patients",
                path=source,
                found=f"a row for {others[0]}" if others else None,
                expected=f"a row in {self.path}",
                remedy="relative paths start at the folder of the table" if others else None,
            )
        return found[0]

    def check_names(self, sources: Iterable[Path]) -> None:
        """InputError when the bare name of a row is that of two sources: they may be of two patients."""
        owner: dict[str, Path] = {}
        for source in sources:
            names = _names(source)
            if any(path.resolve() in self._by_path for path in names):
                continue
            for name in {path.name for path in names} & self._by_name.keys():
                if (other := owner.setdefault(name, source)) != source:
                    raise InputError(
                        f"'{name}' is the name of two sources",
                        path=self.path,
                        found=f"{other} and {source}",
                        remedy="give the folder, too, in the column file",
                    )


def _names(source: Path) -> list[Path]:
    """The paths by which a table may name a source: of a folder of pictures not those of its bands."""
    return [source] if source.is_dir() else files_of(source)


def _rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    try:
        with open(must_exist(path), newline="", encoding="utf-8-sig") as file:
            rows = list(enumerate(csv.DictReader(file), start=2))
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError("is not a CSV table", path=path, found=error) from None
    for line, row in rows:
        if not row.get("file") or not row.get("patient"):
            found = "columns " + ", ".join(str(k) for k in row)
            raise InputError(f"line {line} has no file or no patient", path=path, found=found, expected=COLUMNS)
    if not rows:
        raise InputError("holds no rows", path=path, expected=COLUMNS)
    return rows


def _person(path: Path, line: int, row: dict[str, str]) -> Person:
    try:
        visit = int(row["visit"]) if row.get("visit") else None
        label = float(row["label"]) if row.get("label") else None
    except ValueError as error:
        raise InputError(f"line {line} has a visit or a label that is no number", path=path, found=error) from None
    if label is not None and not math.isfinite(label):
        label = None
    return Person(patient=row["patient"].strip(), eye=row.get("eye") or None, visit=visit, label=label)
