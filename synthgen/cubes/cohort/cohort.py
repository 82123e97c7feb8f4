"""The cohort file: real cubes with their wavelengths, patients, structures and labels, in one HDF5 file.

Layout (N cubes, C bands, H x W pixels):

    cubes           [N, C, H, W], unsigned integers with attribute `scale`, or floats that are reflectance
    wavelengths_nm  [C], increasing
    patient_id      [N] text
    eye, visit      [N], optional; label [N] float, NaN where unknown, optional
    structures      uint8 [N, H, W], optional: 0 background, 1 artery, 2 vein, 3 disc, 4 crossing, 255 outside
    masks/<name>    bool [N, H, W], optional; may overlap, and take precedence over `structures`
    age, camera ... [N] numbers or text, optional: whatever else is known of a cube (see `covariates`)

`scale` is the value that stands for reflectance 1 (65535), or its reciprocal (1/65535): above 1 it divides, else it
multiplies. The two cannot be confused, since no integer encoding gives more than 1 to its smallest step.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np

from synthgen.cubes.cohort.hdf5 import MAX_CUBE_VALUES, check_stored, dataset, open_hdf5, small
from synthgen.cubes.cohort.structures import MASK_NAMES, masks_from_codes
from synthgen.cubes.cohort.writer import CohortWriter
from synthgen.cubes.readers.formats.hdf5_declared import cohort_divisor
from synthgen.cubes.wavelengths import checked
from synthgen.errors import InputError, MismatchError, SynthgenError
from synthgen.runs.files import read_json, write_json
from synthgen.runs.progress import progress

if TYPE_CHECKING:  # it needs torch, which a process that only reads cubes does without
    from synthgen.contracts import Provenance

__all__ = ["Cohort", "CohortWriter"]

_READ_BYTES = 64 * 2**20  # stored values held at once while reading many cubes
_LONG_SCAN = 5e8  # values that take more than a few seconds to read: shown with a progress bar
_RANGE = (-0.5, 1.5)  # what still counts as reflectance: calibration noise and specular glints, not percent or counts


@dataclass(frozen=True, eq=False)
class Cohort:
    """A cohort file opened for reading. It keeps no file handle, so it can be forked, pickled and shared by workers."""

    path: Path
    wavelengths: tuple[float, ...]
    height: int
    width: int
    patient_id: np.ndarray
    eye: np.ndarray | None
    visit: np.ndarray | None
    label: np.ndarray | None
    mask_names: tuple[str, ...]
    divisor: float  # stored value of reflectance 1

    @staticmethod
    def open(path: str | os.PathLike) -> Cohort:
        """Open a cohort file and validate all but the values of the cubes; InputError names what is wrong."""
        path = Path(path)
        with open_hdf5(path) as file:
            cubes = _cubes_of(file, path)
            n, bands, height, width = cubes.shape
            nm = small(file, "wavelengths_nm", path)
            if nm is None or nm.size == 0:
                raise InputError(
                    "wavelengths absent",
                    path=path,
                    expected=f"dataset 'wavelengths_nm' with {bands} values in nm",
                    remedy="run `synthgen ingest` with --source-wavelengths",
                )
            if nm.dtype.kind not in "uif":
                raise InputError("'wavelengths_nm' are not numbers", path=path, found=nm.dtype)
            if nm.shape != (bands,):
                raise InputError(
                    "wrong number of wavelengths", path=path, found=nm.size, expected=f"{bands}, one per band"
                )
            patients = _per_cube(file, "patient_id", n, path)
            if patients is None:
                raise InputError(
                    "patients absent",
                    path=path,
                    expected=f"dataset 'patient_id' with {n} values",
                    remedy="run `synthgen ingest` with --patient-pattern, or write the dataset",
                )
            label = _per_cube(file, "label", n, path)
            if label is not None and label.dtype.kind not in "uifb":
                raise InputError("'label' is not numeric", path=path, found=label.dtype, expected="NaN = unknown")
            return Cohort(
                path=path,
                wavelengths=checked(nm, path),
                height=height,
                width=width,
                patient_id=patients.astype(str),
                eye=_as_text(_per_cube(file, "eye", n, path)),
                visit=_per_cube(file, "visit", n, path),
                label=None if label is None else label.astype(np.float64),
                mask_names=mask_names_of(file, cubes, path),
                divisor=cohort_divisor(cubes, path),
            )

    @property
    def bands(self) -> int:
        return len(self.wavelengths)

    def __len__(self) -> int:
        return len(self.patient_id)

    @cached_property
    def patients(self) -> tuple[str, ...]:
        """The distinct patients, sorted."""
        return tuple(sorted(set(self.patient_id.tolist())))

    def index_of(self, patients: Iterable[str]) -> np.ndarray:
        """int64 indices, ascending, of the cubes of these patients; InputError for a patient who is not here."""
        wanted = set(patients)
        unknown = sorted(wanted - set(self.patients))
        if unknown:
            raise InputError("no such patient", path=self.path, found=", ".join(unknown[:3]))
        return np.flatnonzero(np.isin(self.patient_id, sorted(wanted))).astype(np.int64)

    def cubes(self, index: Sequence[int] | np.ndarray | None = None) -> np.ndarray:
        """Reflectance float32 [n, C, H, W] of the cubes of `index` (any order, repeats allowed), or of all."""
        wanted = self._index(index)
        out = np.empty((len(wanted), self.bands, self.height, self.width), dtype=np.float32)
        with open_hdf5(self.path) as file:
            data = self._unchanged(_cubes_of(file, self.path))
            for start, rows in self._runs(wanted, data.dtype.itemsize * self.bands * self.height * self.width):
                block = data[start : start + len(rows)]
                for value, places in zip(block, rows, strict=True):
                    out[places] = self._reflectance(value)
        return out

    def each(self, index: Sequence[int] | np.ndarray | None = None) -> Iterator[np.ndarray]:
        """Reflectance float32 [C, H, W] of one cube after another, holding a few tens of megabytes at a time."""
        wanted = self._index(index)
        few = max(1, _READ_BYTES // (4 * self.bands * self.height * self.width))
        for start in range(0, len(wanted), few):
            yield from self.cubes(wanted[start : start + few])

    def masks(self, index: Sequence[int] | np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Bool masks [n, H, W] by name, for every name of `mask_names`."""
        wanted = self._index(index)
        found: dict[str, np.ndarray] = {}
        with open_hdf5(self.path) as file:
            codes = dataset(file, "structures", self.path)
            if codes is not None:
                found |= masks_from_codes(self._planes(codes, wanted))
            for name in self.mask_names:
                plane = dataset(file, f"masks/{name}", self.path)
                if plane is not None:
                    found[name] = self._planes(plane, wanted).astype(bool)
        return {name: found[name] for name in self.mask_names}

    @property
    def content_hash(self) -> str:
        """Hash over reflectance, wavelengths and patients; the same whatever the chunks, compression or file name.

        The cubes are read once, one at a time; the result is kept in `<path>.hash.json` while size and time agree.
        """
        return self._contents["hash"]

    def check_finite(self) -> None:
        """InputError that names the first cube with NaN, infinite or absurd values (read once, then cached)."""
        bad = self._contents["bad_cube"]
        if bad is not None:
            raise InputError(
                f"cube {bad} cannot be used",
                path=self.path,
                found=self._contents["bad_reason"],
                expected="finite reflectance between 0 and 1",
                remedy="repair or remove the cube, or run `synthgen ingest` on the file, which drops such cubes",
            )

    def provenance(self, patients: Iterable[str] | None = None, also: Sequence[Provenance] = ()) -> Provenance:
        """Provenance of something made from these patients (all of them by default) of this cohort."""
        from synthgen.contracts import Provenance

        return Provenance.of(self.content_hash, self.patients if patients is None else patients, also)

    @cached_property
    def _contents(self) -> dict:
        stat = self.path.stat()
        key = {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
        sidecar = self.path.with_name(self.path.name + ".hash.json")
        try:
            cached = read_json(sidecar)
            if cached["key"] == key and isinstance(cached["hash"], str) and {"bad_cube", "bad_reason"} <= set(cached):
                return cached
        except (SynthgenError, OSError, KeyError, TypeError):
            pass  # absent, damaged or of another layout: made anew
        contents = {"key": key} | self._scan()
        with suppress(SynthgenError, OSError):  # a read-only folder costs a second reading another time, nothing else
            write_json(sidecar, contents)
        return contents

    def _scan(self) -> dict:
        from synthgen.runs.keys import content_hash

        parts, bad, reason = [], None, None
        values = len(self) * self.bands * self.height * self.width
        with progress(f"check {self.path.name}", len(self), "cube", show=values > _LONG_SCAN) as bar:
            for i in range(len(self)):
                cube = self.cubes([i])[0]
                parts.append(content_hash(cube))
                if bad is None:
                    reason = _unusable(cube)
                    bad = i if reason else None
                bar.advance()
        whole = content_hash(*parts, np.asarray(self.wavelengths, np.float64), np.asarray(self.patient_id, str))
        return {"hash": whole, "cubes": len(self), "bad_cube": bad, "bad_reason": reason}

    def _reflectance(self, stored: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):  # beyond float32 becomes infinite, which `check_finite` refuses
            return stored.astype(np.float32) / np.float32(self.divisor)

    def _index(self, index: Sequence[int] | np.ndarray | None) -> np.ndarray:
        wanted = np.arange(len(self)) if index is None else np.asarray(index, dtype=np.int64).ravel()
        if len(wanted) and (wanted.min() < 0 or wanted.max() >= len(self)):
            raise InputError("no such cube", path=self.path, found=wanted.max(), expected=f"0-{len(self) - 1}")
        return wanted

    def _runs(self, wanted: np.ndarray, bytes_each: int) -> Iterator[tuple[int, list[np.ndarray]]]:
        """Neighbouring cubes together: (first cube, for each cube of the run the places in the result)."""
        distinct, inverse = np.unique(wanted, return_inverse=True)
        places = np.split(np.argsort(inverse, kind="stable"), np.cumsum(np.bincount(inverse))[:-1])
        longest = max(1, _READ_BYTES // max(1, bytes_each))
        first = 0
        for i in range(1, len(distinct) + 1):
            if i == len(distinct) or distinct[i] != distinct[i - 1] + 1 or i - first >= longest:
                yield int(distinct[first]), places[first:i]
                first = i

    def _planes(self, data: h5py.Dataset, wanted: np.ndarray) -> np.ndarray:
        if data.shape != (len(self), self.height, self.width):
            raise InputError("the file has changed since it was opened", path=self.path, found=f"masks {data.shape}")
        out = np.empty((len(wanted), self.height, self.width), dtype=data.dtype)
        for start, rows in self._runs(wanted, self.height * self.width):
            for value, places in zip(data[start : start + len(rows)], rows, strict=True):
                out[places] = value
        return out

    def _unchanged(self, data: h5py.Dataset) -> h5py.Dataset:
        shape = (len(self), self.bands, self.height, self.width)
        if data.shape != shape:
            raise MismatchError(
                "the file has changed since it was opened", path=self.path, found=data.shape, expected=shape
            )
        return data


def _cubes_of(file: h5py.File, path: Path) -> h5py.Dataset:
    data = dataset(file, "cubes", path)
    if data is None:
        raise InputError(
            "no dataset 'cubes'",
            path=path,
            found=", ".join(list(file)[:8]) or "nothing",
            remedy="run `synthgen ingest` to make a cohort file of it",
        )
    if data.dtype.kind not in "uif" or data.dtype.itemsize > 8:
        raise InputError("'cubes' has an unusable type", path=path, found=data.dtype, expected="uint16 or float32")
    if data.ndim != 4:
        raise InputError("'cubes' is not 4-D", path=path, found=data.shape, expected="[cube, band, row, column]")
    if 0 in data.shape:
        raise InputError("'cubes' is empty", path=path, found=f"shape {data.shape}", expected="at least one cube")
    if int(np.prod(data.shape[1:], dtype=np.float64)) > MAX_CUBE_VALUES:
        raise InputError("a cube is too large", path=path, found=data.shape, expected="up to 2**30 values")
    check_stored(data, path)
    return data


def _per_cube(file: h5py.File, name: str, n: int, path: Path) -> np.ndarray | None:
    values = small(file, name, path)
    if values is not None and values.shape != (n,):
        raise InputError(f"'{name}' has the wrong length", path=path, found=values.shape, expected=f"{n}, one per cube")
    return values


def _as_text(values: np.ndarray | None) -> np.ndarray | None:
    return None if values is None else values.astype(str)


def mask_names_of(file: h5py.File, cubes: h5py.Dataset, path: Path) -> tuple[str, ...]:
    """Names of the masks beside the dataset `cubes`, in the order of MASK_NAMES; InputError when one does not fit."""
    n, _, height, width = cubes.shape
    planes = {}
    if (codes := dataset(file, "structures", path)) is not None:
        planes["structures"] = codes
    for name in _names_in(file, "masks", path):
        if (plane := dataset(file, f"masks/{name}", path)) is not None:
            planes[f"masks/{name}"] = plane
    for name, plane in planes.items():
        if plane.shape != (n, height, width) or plane.dtype.kind not in "uib":
            raise InputError(
                f"'{name}' does not fit the cubes",
                path=path,
                found=f"{plane.dtype} {plane.shape}",
                expected=f"bool or uint8 {(n, height, width)}",
            )
        _check_plane(plane, path)
    names = {name.removeprefix("masks/") for name in planes if name.startswith("masks/")}
    if codes is not None:
        names |= set(masks_from_codes(np.zeros(1, np.uint8)))
    order = {name: i for i, name in enumerate(MASK_NAMES)}
    return tuple(sorted(names, key=lambda name: (order.get(name, len(order)), name)))


def _check_plane(plane: h5py.Dataset, path: Path) -> None:
    """A mask may be unallocated (all fill value), but one plane of it must fit a cube's memory."""
    if int(np.prod(plane.shape[1:], dtype=np.float64)) > MAX_CUBE_VALUES:
        raise InputError(f"'{plane.name}' is too large", path=path, found=f"shape {plane.shape}")


def _names_in(file: h5py.File, group: str, path: Path) -> list[str]:
    if group not in file.keys():  # noqa: SIM118 - `in file` would follow a link
        return []
    if not isinstance(file.get(group, getlink=True), h5py.HardLink):
        raise InputError(f"'{group}' is a link", path=path, expected="data inside the file")
    item = file[group]
    return sorted(item.keys()) if isinstance(item, h5py.Group) else []


def _unusable(cube: np.ndarray) -> str | None:
    """Why a cube is no reflectance cube, or None."""
    low, high = float(cube.min()), float(cube.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        band = int(np.argmax(~np.isfinite(cube).all(axis=(1, 2))))
        return f"{int((~np.isfinite(cube)).sum())} NaN or infinite values, first in band {band}"
    if low < _RANGE[0] or high > _RANGE[1]:
        return f"values from {low:.3g} to {high:.3g}"
    return None
