r"""From a camera's files to a cohort file: read, scale, resample, resize or cut, and name the patient of every cube.

    synthgen ingest eyes_224.h5 eyes_64.h5 --size 64 --patches
    synthgen ingest jasperRidge2_R198.mat jasper.h5 --size 64 --bands 450:900:30 \
        --source-wavelengths 380:2490:9.46 --each-file-a-patient

(the second file keeps 198 of 224 bands and says which in `SlectBands`; the 224 wavelengths are told, and its nominal
maximum of 5000 is read from `maxValue`; `--scale 5000` would tell it).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from pydantic import Field

from synthgen.config import Config, build
from synthgen.cubes.cohort import CohortWriter
from synthgen.cubes.ingest_report import IngestReport, Refusal, SourceReport
from synthgen.cubes.patients import PatientRule, Person
from synthgen.cubes.readers import SUFFIXES, open_source
from synthgen.cubes.scaling import full_scales, told_full_scale
from synthgen.cubes.shaping import Masks, patch_corners, patches, resize, resize_masks
from synthgen.cubes.source import Hints, Source
from synthgen.cubes.wavelengths import checked, parse_bands, resampling_matrix, same_wavelengths
from synthgen.errors import ConfigError, InputError, SynthgenError
from synthgen.runs.files import write_json
from synthgen.runs.progress import progress

ABSURD = 1e4  # times full reflectance: a broken number, not a glint
MUCH_CLIPPED = 0.05  # a scale that fits clips only glints


class Ingestion(Config):
    """How to ingest."""

    size: int | None = Field(None, ge=1, le=16384, description="rows and columns of the cubes made; none: as they are")
    bands: tuple[float, ...] | None = Field(None, description="target wavelengths in nm; none: those of the first file")
    source_wavelengths: tuple[float, ...] | None = Field(None, description="wavelengths of the files in nm")
    patches: bool = Field(False, description="cut size x size patches instead of resizing")
    stride: int | None = Field(None, ge=1, description="distance of patches in pixels; none: size, no overlap")
    min_fov: float = Field(0.5, ge=0, le=1, description="smallest share of field of view in a patch that is kept")
    variable: str | None = Field(None, description="name of the array that holds the cubes")
    axes: str | None = Field(None, description="order of its axes, such as CHW or HWC; none: detected")
    scale: float | None = Field(None, description="the stored number of reflectance 1, or (up to 1) the factor to it")
    patient_table: Path | None = Field(None, description="table file,patient[,eye,visit,label]")
    patient_pattern: str | None = Field(None, description="regular expression; its first group in the file name")
    each_file_a_patient: bool = False


def ingest(sources: Sequence[str | os.PathLike], out: str | os.PathLike, **settings) -> IngestReport:
    """Read cubes of any known format into one cohort file at `out`, beside it `<out>.ingest_report.json`.

    Args:
        sources: files, or folders whose files of known suffix are taken in order of name.
        out: the cohort file to write; it appears whole or not at all.
        settings: fields of `Ingestion`; `bands` and `source_wavelengths` may be text ("450:900:30").

    A file that cannot be used, and a cube with NaN or an empty band, is left out and listed, the rest goes on.

    Raises:
        InputError: the only file cannot be used, or nothing usable remains.
        StorageError: `out` cannot be written.
    """
    start = time.monotonic()
    for key in ("bands", "source_wavelengths"):
        value = settings.get(key)
        if value is not None:
            settings[key] = parse_bands(value) if isinstance(value, str) else checked(value)
    options = build(Ingestion, settings)
    if options.patches and options.size is None:
        raise ConfigError("patches need a size", remedy="give --size 64")
    if options.scale is not None:
        told_full_scale(options.scale)
    out = Path(out)
    paths = _expand(sources, out)
    return _Run(options, paths, out).run(start)


class _Run:
    """One ingest: open every file, agree on scale and bands, then stream cube by cube."""

    def __init__(self, options: Ingestion, paths: list[Path], out: Path):
        self.options, self.paths, self.out = options, paths, out
        self.rule = PatientRule(options.patient_table, options.patient_pattern, options.each_file_a_patient)
        self.refused: list[Refusal] = []
        self.errors: list[SynthgenError] = []
        self.notes: list[str] = []
        self.dropped = self.above = self.below = self.values = 0

    def run(self, start: float) -> IngestReport:
        hints = Hints(self.options.variable, self.options.axes, self.options.source_wavelengths)
        opened = [source for path in self.paths if (source := self._try(path, lambda p=path: open_source(p, hints)))]
        usable = [s for s in opened if self._try(s.path, lambda s=s: self.rule.person(s, 0))]
        target = self.options.bands or (usable[0].wavelengths if usable else ())
        matrices = {s.path: self._try(s.path, lambda s=s: self._matrix(s, target)) for s in usable}
        usable = [s for s in usable if matrices[s.path] is not None]
        shape = self._image_shape(usable[0]) if usable else (0, 0)
        usable = [s for s in usable if self._try(s.path, lambda s=s: self._fits(s, shape))]
        if not usable:
            self._nothing_left()
        scales = full_scales(usable, self.options.scale)
        # The wavelengths are left to the report: a long list does not fit into an HDF5 attribute.
        kept_options = self.options.model_dump(mode="json", exclude_none=True, exclude={"bands", "source_wavelengths"})
        attributes = {"ingest": kept_options}
        people: set[str] = set()
        reports: list[SourceReport] = []
        total = sum(s.layout.count for s in usable)
        with (
            CohortWriter(self.out, target, *shape, attributes=attributes) as writer,
            progress(f"ingest {self.out.name}", total, "cube") as bar,
        ):
            for source, (full, origin) in zip(usable, scales, strict=True):
                before = len(writer)
                matrix = matrices[source.path]
                for i in range(source.layout.count):
                    for cube, masks, person in self._cubes(source, i, full, matrix):
                        writer.append(
                            cube, person.patient, eye=person.eye, visit=person.visit, label=person.label, masks=masks
                        )
                        self._count(cube)
                        people.add(person.patient)
                    bar.advance(1, kept=len(writer), refused=len(self.refused))
                reports.append(_report(source, len(writer) - before, full, origin, target))
            if len(writer) == 0:
                self._nothing_left()
            kept = len(writer)
        if self.above / self.values > MUCH_CLIPPED:
            self.notes.append(f"more than {MUCH_CLIPPED:.0%} of the values were above 1: tell the true --scale")
        report = IngestReport(
            out=str(self.out),
            kept=kept,
            patients=len(people),
            height=shape[0],
            width=shape[1],
            wavelengths_nm=target,
            sources=tuple(reports),
            refused=tuple(self.refused),
            dropped_patches=self.dropped,
            clipped_above=self.above / self.values,
            clipped_below=self.below / self.values,
            notes=tuple(dict.fromkeys(self.notes)),
            seconds=round(time.monotonic() - start, 2),
        )
        write_json(self.out.with_name(self.out.name + ".ingest_report.json"), report.model_dump(mode="json"))
        return report

    def _cubes(
        self, source: Source, i: int, full: float, matrix: np.ndarray
    ) -> Iterator[tuple[np.ndarray, Masks, Person]]:
        """Cube `i` of a source, ready to write: one, or its patches; none when it is refused."""
        try:
            person = self.rule.person(source, i)
            with np.errstate(over="ignore", invalid="ignore"):
                cube = source.read(i).astype(np.float32) / np.float32(full)
            _check(cube, source)
            masks = source.masks(i) if source.masks is not None else {}
        except InputError as error:
            self.refused.append(Refusal(path=str(source.path), cube=i, reason=_reason(error, source.path)))
            self.errors.append(error)
            return
        if not np.array_equal(matrix, np.eye(len(matrix))):
            cube = np.matmul(matrix.astype(np.float32), cube.reshape(len(cube), -1)).reshape(-1, *cube.shape[1:])
        size = self.options.size
        if self.options.patches and size is not None:
            for patch in patches(cube, masks, size, self.options.stride or size, self.options.min_fov):
                if patch is None:
                    self.dropped += 1
                else:
                    yield *patch, person
        elif size is not None:
            if cube.shape[1] != cube.shape[2]:
                self.notes.append(f"images of {cube.shape[1]}x{cube.shape[2]}: only the central square was kept")
            yield resize(cube, size), resize_masks(masks, size), person
        else:
            yield cube, masks, person

    def _count(self, cube: np.ndarray) -> None:
        self.above += int((cube > 1).sum())
        self.below += int((cube < 0).sum())
        self.values += cube.size

    def _matrix(self, source: Source, target: tuple[float, ...]) -> np.ndarray:
        if self.options.bands is None and not same_wavelengths(source.wavelengths, target):
            raise InputError(
                "wavelengths differ from those of the first file",
                path=source.path,
                found=f"{len(source.wavelengths)} bands",
                remedy="give --bands to resample all files to the same ones",
            )
        if same_wavelengths(source.wavelengths, target):
            return np.eye(len(target))
        try:
            return resampling_matrix(source.wavelengths, target)
        except InputError as error:
            raise InputError(
                error.what, path=source.path, found=error.found, expected=error.expected, remedy=error.remedy
            ) from None

    def _image_shape(self, source: Source) -> tuple[int, int]:
        size = self.options.size
        return (size, size) if size is not None else (source.layout.rows, source.layout.columns)

    def _fits(self, source: Source, shape: tuple[int, int]) -> bool:
        """True; InputError when the images of a source cannot be brought to `shape`."""
        rows, columns = source.layout.rows, source.layout.columns
        size = self.options.size
        if size is None and (rows, columns) != shape:
            raise InputError(
                "image size differs from the first file's",
                path=source.path,
                found=f"{rows}x{columns}",
                expected=f"{shape[0]}x{shape[1]}",
                remedy="give --size to resize all",
            )
        if self.options.patches and size is not None and not patch_corners(rows, columns, size, size):
            found, expected = f"{rows}x{columns}", f"{size}x{size}"
            raise InputError("images are smaller than a patch", path=source.path, found=found, expected=expected)
        if size is not None and not self.options.patches and size > min(rows, columns):
            self.notes.append(f"images of {rows}x{columns} were enlarged to {size}x{size}")
        return True

    def _try(self, path: Path, step):
        """The result of a step on a file; None when it is refused. With one file alone the error is the answer."""
        try:
            return step()
        except InputError as error:
            if len(self.paths) == 1:
                raise
            self.refused.append(Refusal(path=str(path), reason=_reason(error, path)))
            self.errors.append(error)
            return None

    def _nothing_left(self) -> None:
        if self.dropped and not self.errors:
            raise InputError(
                "no patch has enough field of view",
                path=self.paths[0],
                found=f"{self.dropped} patches dropped",
                remedy="choose a smaller --size",
            )
        more = f" (and {len(self.errors) - 1} more refused)" if len(self.errors) > 1 else ""
        raise InputError(f"nothing usable was found: {self.errors[0]}{more}") from self.errors[0]


def _check(cube: np.ndarray, source: Source) -> None:
    """InputError when a cube [C, H, W] holds NaN or absurd values, or a band of one value only."""
    usable = np.abs(cube) < ABSURD  # False for NaN as well
    if not usable.all():
        bad = ~usable.all(axis=(1, 2))
        nm = source.wavelengths[int(np.argmax(bad))]
        found = f"in {bad.sum()} bands, first at {nm:g} nm"
        raise InputError("holds NaN, infinite or absurd values", path=source.path, found=found)
    empty = cube.min(axis=(1, 2)) == cube.max(axis=(1, 2))
    if empty.any():
        nm = source.wavelengths[int(np.argmax(empty))]
        found = f"{empty.sum()}, first at {nm:g} nm"
        raise InputError("has empty bands (one value only)", path=source.path, found=found)


def _report(source: Source, kept: int, full: float, origin: str, target: tuple[float, ...]) -> SourceReport:
    return SourceReport(
        path=str(source.path),
        format=source.format,
        variable=source.variable,
        axes=source.layout.axes,
        dtype=str(source.dtype),
        cubes=source.layout.count,
        kept=kept,
        full_scale=full,
        scale_from=origin,
        wavelengths_nm=source.wavelengths,
        wavelengths_from=source.wavelengths_from,
        resampled=not same_wavelengths(source.wavelengths, target),
    )


def _reason(error: InputError, path: Path) -> str:
    return str(error).removeprefix(f"{os.fspath(path)}: ")


def _expand(sources: Sequence[str | os.PathLike], out: Path) -> list[Path]:
    """The files to read: folders opened, each file once; InputError when there is none or one of them is `out`."""
    found: dict[Path, Path] = {}
    for source in map(Path, sources):
        inside = sorted(p for p in source.iterdir() if p.suffix.lower() in SUFFIXES) if source.is_dir() else [source]
        if not inside:
            raise InputError("holds no files that can be read", path=source, expected=" ".join(SUFFIXES))
        for path in inside:
            found.setdefault(path.resolve(), path)
    if not found:
        raise InputError("no files to ingest", remedy="name at least one file or folder")
    if out.resolve() in found:
        raise InputError("is both source and result", path=out, remedy="choose another name for the result")
    return list(found.values())
