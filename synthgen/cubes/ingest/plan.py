"""What an ingest agrees on before it reads everything: bands and image size, from the first file that can be used."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import Field

from synthgen.config import Config
from synthgen.cubes.ingest.options import Ingestion
from synthgen.cubes.ingest.patients import PatientRule
from synthgen.cubes.ingest.quality_control import Check, Refused
from synthgen.cubes.ingest.resize import patch_corners
from synthgen.cubes.readers.open import open_source
from synthgen.cubes.readers.scaling import full_scale_of
from synthgen.cubes.readers.source import Hints, Source, given_hints
from synthgen.cubes.wavelengths import resampling_matrix, same_wavelengths
from synthgen.errors import InputError, StorageError, SynthgenError

SAMPLE = 32  # files whose cubes are counted beforehand, evenly evenly


class Plan(Config):
    """The same for every cube of the cohort; kept in the head of the work folder, so that no file is asked twice."""

    wavelengths_nm: tuple[float, ...]
    height: int
    width: int
    expected_cubes: int = Field(description="in all files, going by those looked at")


def hints_of(options: Ingestion) -> Hints:
    return given_hints(options.variable, options.axes, options.source_wavelengths, options.wavelength_unit)


def patient_rule(options: Ingestion) -> PatientRule:
    return PatientRule(options.patient_table, options.patient_pattern, options.each_file_a_patient)


def make_plan(paths: Sequence[Path], options: Ingestion) -> Plan:
    """Open files until one can be used, and a sample of the others; InputError when none can be used.

    With one file alone its own error is the answer.
    """
    rule = patient_rule(options)
    errors: list[SynthgenError] = []
    first, tried = None, 0
    for tried, path in enumerate(paths, start=1):  # noqa: B007
        try:
            first = open_checked(path, options, rule)
            target = options.bands or first.wavelengths
            band_matrix(first, target, options)
            shape = image_shape(first, options)
            check_fits(first, shape, options)
            if options.white is None:
                with refusing("scale"):
                    full_scale_of(first, options.scale)
            break
        except StorageError:
            raise
        except SynthgenError as error:
            errors.append(error)
            first = None
    if first is None:
        raise nothing_usable(errors)
    last = len(paths) - 1
    evenly = (
        {round(k * last / max(1, SAMPLE - 1)) for k in range(SAMPLE)} if len(paths) > SAMPLE else set(range(len(paths)))
    )
    sample = [first]
    for k in sorted(evenly - set(range(tried))):
        try:
            sample.append(open_source(paths[k], hints_of(options)))
        except StorageError:
            raise
        except SynthgenError:
            continue  # refused, with its reason, when its turn comes
    counts = [s.layout.count for s in sample]
    return Plan(
        wavelengths_nm=target,
        height=shape[0],
        width=shape[1],
        expected_cubes=sum(counts) + round((len(paths) - len(counts)) * float(np.mean(counts))),
    )


def nothing_usable(errors: Sequence[SynthgenError]) -> SynthgenError:
    """The error of an ingest of which nothing is left: of one file its own."""
    if len(errors) == 1:
        return errors[0]
    return InputError(f"nothing usable was found: {errors[0]} (and {len(errors) - 1} more refused)")


def open_checked(path: Path, options: Ingestion, rule: PatientRule) -> Source:
    """Open a source and name the patient of its first cube; a refusal names which of the two failed."""
    with refusing("file"):
        source = open_source(path, hints_of(options))
    with refusing("patient"):
        rule.person(source, 0)
    return source


def band_matrix(source: Source, target: tuple[float, ...], options: Ingestion) -> np.ndarray | None:
    """Weights [T, S] that make the target bands of those of a source; None where they are the same."""
    if same_wavelengths(source.wavelengths, target) and (options.fwhm is None or options.bands is None):
        return None
    if options.bands is None:
        raise Refused(
            "bands",
            "wavelengths differ from those of the first file",
            path=source.path,
            found=f"{len(source.wavelengths)} bands",
            remedy="give --bands to resample all files to the same ones",
        )
    with refusing("bands", source.path):
        return resampling_matrix(source.wavelengths, target, options.fwhm)


def image_shape(source: Source, options: Ingestion) -> tuple[int, int]:
    size = options.size
    return (size, size) if size is not None else (source.layout.rows, source.layout.columns)


def check_fits(source: Source, shape: tuple[int, int], options: Ingestion) -> list[str]:
    """Notes on a source whose images can be brought to `shape`; Refused when they cannot."""
    rows, columns, size = source.layout.rows, source.layout.columns, options.size
    if size is None and (rows, columns) != shape:
        raise Refused(
            "size",
            "image size differs from the first file's",
            path=source.path,
            found=f"{rows}x{columns}",
            expected=f"{shape[0]}x{shape[1]}",
            remedy="give --size to resize all",
        )
    if options.patches and size is not None and not patch_corners(rows, columns, size, size):
        found, expected = f"{rows}x{columns}", f"{size}x{size}"
        raise Refused("size", "images are smaller than a patch", path=source.path, found=found, expected=expected)
    if size is not None and not options.patches and size > min(rows, columns):
        return [f"images of {rows}x{columns} were enlarged to {size}x{size}"]
    return []


class refusing:
    """Context: whatever a reader finds wrong becomes a refusal by the named check, with the path in front."""

    def __init__(self, check: Check, path: Path | None = None):
        self.check: Check = check
        self.path = path

    def __enter__(self) -> None: ...

    def __exit__(self, kind, error, traceback) -> None:
        if isinstance(error, SynthgenError) and not isinstance(error, StorageError | Refused):
            raise Refused(
                self.check,
                error.what,
                path=error.path or self.path,
                found=error.found,
                expected=error.expected,
                remedy=error.remedy,
            ) from error


def reason_of(error: SynthgenError, path: Path) -> str:
    """The error without the path in front, which stands beside it."""
    return str(error).removeprefix(f"{os.fspath(path)}: ")
