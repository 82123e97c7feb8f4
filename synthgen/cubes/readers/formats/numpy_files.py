"""NumPy files: an array (.npy), or several by name (.npz). Nothing is ever unpickled."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO

import numpy as np

from synthgen.cubes.cohort.hdf5 import MAX_PACKING, MAX_SMALL_VALUES, in_one_line
from synthgen.cubes.readers.calibration import interpret
from synthgen.cubes.readers.declarations import Statement, beside
from synthgen.cubes.readers.declared import NOTHING
from synthgen.cubes.readers.layout import ARRAY_ORDERS, Layout
from synthgen.cubes.readers.raw import read_part
from synthgen.cubes.readers.source import (
    Hints,
    Source,
    band_counts_of,
    choose_variable,
    resolve_wavelengths,
    wavelength_rank,
)
from synthgen.cubes.units import UNIT_NAMES, UNITS, Listed, read_list, stated_list, texts_of, unit_of
from synthgen.errors import InputError, SynthgenError

_MAX_MEMBERS = 1000


@dataclass(frozen=True)
class Header:
    """Of a stored array: where its values start, their shape, order and type."""

    start: int
    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype


def list_npy(path: Path) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Shape and type of the one array of a .npy file; InputError when it is damaged or would have to be unpickled."""
    with _npy(path) as (_, header):
        return {"array": (header.shape, header.dtype)}


def open_npy(path: Path, hints: Hints) -> Source:
    """A .npy file: one cube, or several with a fourth axis. Its wavelengths have to be given."""
    variables = list_npy(path)
    counts = band_counts_of(path, hints, None, None)
    _, layout = choose_variable(variables, path, Hints(None, hints.axes), counts, ARRAY_ORDERS)
    bands = resolve_wavelengths(path, layout.bands, hints, None)
    dtype = variables["array"][1]

    def read(i: int) -> np.ndarray:
        with _npy(path) as (file, header):  # opened anew for each cube: thousands of files must not stay open
            return bands.sort(_cube(file, path, header, layout, i))

    return Source(path, "NumPy", "array", layout, dtype, bands.nm, bands.origin, NOTHING, read, order=bands.order)


def list_npz(path: Path) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Shape and type of every array of an .npz file, from the headers alone."""
    found = {}
    with _damaged(path), zipfile.ZipFile(path) as archive:
        members = [info for info in archive.infolist() if info.filename.endswith(".npy")]
        if not members or len(members) > _MAX_MEMBERS:
            raise InputError("is no NumPy archive", path=path, found=f"{len(members)} arrays in a zip file")
        for info in members:
            with archive.open(info) as file:
                header = _header(file, info.file_size, path)
            found[info.filename.removesuffix(".npy")] = (header.shape, header.dtype)
    return found


def open_npz(path: Path, hints: Hints) -> Source:
    """An .npz file; wavelengths, and what is declared of the numbers, from arrays of such names."""
    variables = list_npz(path)
    found = _wavelengths(path, variables)
    counts = band_counts_of(path, hints, found, None)
    name, layout = choose_variable(variables, path, hints, counts, ARRAY_ORDERS)
    bands = resolve_wavelengths(path, layout.bands, hints, found)
    dtype, statements = variables[name][1], npz_statements(path, name, variables)
    declared = interpret(statements, path, layout.bands, dtype, bands.order)

    def read(i: int) -> np.ndarray:
        with _npz(path, name) as (file, header):
            return bands.sort(_cube(file, path, header, layout, i))

    return Source(
        path, "NumPy archive", name, layout, dtype, bands.nm, bands.origin, declared, read,
        notes=bands.notes, order=bands.order,
    )  # fmt: skip


def npz_statements(path: Path, cube: str, variables: dict) -> list[Statement]:
    """What arrays beside the cube declare of it."""
    plain = {name: shape for name, (shape, dtype) in variables.items() if dtype.kind in "uifbUS"}

    def load(name: str) -> np.ndarray:
        with _npz(path, name) as (file, header):
            return _whole(file, path, header)

    return beside(plain, cube, load)


def npz_wavelengths(path: Path) -> Listed | None:
    """The wavelengths that the file gives, as they are; None where it gives none."""
    return _wavelengths(path, list_npz(path))


def _wavelengths(path: Path, variables: dict) -> Listed | None:
    """The array of such a name, of numbers or texts, with the unit that another array states."""
    for _, name in sorted((rank[0], n) for n in variables if (rank := wavelength_rank(n))):
        rank, found = wavelength_rank(name), _small(path, variables, name)
        if found is None or found.ndim > 2:
            continue
        listed = (
            (found.ravel().astype(np.float64), "")
            if found.dtype.kind in "uif"
            else read_list(list(map(str, found.ravel())))
        )
        if listed is None:
            continue
        names = {n.lower(): n for n in variables}
        beside = {key: texts_of(_small(path, variables, names[key])) for key in UNIT_NAMES if key in names}
        # A plain `units` may be that of the cube.
        stated = next((text for key, text in beside.items() if text and ("_" in key or unit_of(text) in UNITS)), "")
        return stated_list(listed[0], f"array '{name}'", (stated, listed[1], rank[1] if rank else ""), path)
    return None


def _small(path: Path, variables: dict, name: str) -> np.ndarray | None:
    """A small array of numbers or texts, None for anything else."""
    shape, dtype = variables.get(name, ((0,), np.dtype("O")))
    if dtype.kind not in "uifUS" or not 0 < prod(shape) * max(1, dtype.itemsize // 8) <= MAX_SMALL_VALUES:
        return None
    with _npz(path, name) as (file, header):
        return _whole(file, path, header)


@contextmanager
def _npy(path: Path) -> Iterator[tuple[IO[bytes], Header]]:
    with _damaged(path), open(path, "rb") as file:
        yield file, _header(file, path.stat().st_size, path)


@contextmanager
def _npz(path: Path, name: str) -> Iterator[tuple[IO[bytes], Header]]:
    with _damaged(path), zipfile.ZipFile(path) as archive:
        info = archive.getinfo(f"{name}.npy")
        if info.file_size > max(1024, info.compress_size) * MAX_PACKING:
            found = f"{info.file_size} bytes out of {info.compress_size}"
            raise InputError(f"'{name}' declares more data than the file holds", path=path, found=found)
        with archive.open(info) as file:
            yield file, _header(file, info.file_size, path)


def _header(file: IO[bytes], size: int, path: Path) -> Header:
    version = np.lib.format.read_magic(file)
    read: Callable = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise InputError("NumPy file is damaged", path=path, found=f"version {version}", remedy="copy the file again")
    shape, fortran, dtype = read(file)
    if dtype.hasobject:
        raise InputError("holds pickled objects, which are never loaded", path=path, expected="numbers")
    shape = tuple(int(n) for n in shape)
    if min(shape, default=0) < 0 or file.tell() + prod(shape) * dtype.itemsize > size:
        found = f"shape {shape} in {size} bytes"
        raise InputError("declares more data than the file holds", path=path, found=found)
    return Header(file.tell(), shape, fortran, dtype)


def _cube(file: IO[bytes], path: Path, header: Header, layout: Layout, i: int) -> np.ndarray:
    if header.shape != layout.shape:
        raise InputError("the file has changed since it was opened", path=path, expected=f"shape {layout.shape}")
    axis = layout.axes.index("N") if "N" in layout.axes else None
    if not header.fortran:
        return layout.arrange(read_part(file, path, header.start, header.shape, header.dtype, axis, i))
    axis = None if axis is None else len(header.shape) - 1 - axis
    return layout.arrange(read_part(file, path, header.start, header.shape[::-1], header.dtype, axis, i).T)


def _whole(file: IO[bytes], path: Path, header: Header) -> np.ndarray:
    return read_part(file, path, header.start, header.shape, header.dtype, None)


@contextmanager
def _damaged(path: Path) -> Iterator[None]:
    """NumPy evaluates the header, so a damaged one raises what Python's parser does; zip files add their own."""
    try:
        yield
    except SynthgenError:
        raise
    except PermissionError as error:
        raise InputError("no permission to read", path=path) from error
    except Exception as error:
        found = in_one_line(error)
        raise InputError("NumPy file is damaged", path=path, found=found, remedy="copy the file again") from error
