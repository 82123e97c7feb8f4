"""MATLAB files up to v7 (not HDF5), by scipy."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import scipy.io

from synthgen.cubes.calibration import interpret
from synthgen.cubes.cohort.hdf5 import MAX_PACKING, MAX_SMALL_VALUES, in_one_line
from synthgen.cubes.declarations import Statement, beside
from synthgen.cubes.readers.formats.matlab_elements import check_elements, read_cube
from synthgen.cubes.readers.layout import MATLAB_ORDERS
from synthgen.cubes.readers.source import (
    SELECTION_NAMES,
    WAVELENGTH_NAMES,
    Hints,
    Source,
    band_counts_of,
    choose_variable,
    resolve_wavelengths,
)
from synthgen.errors import InputError, SynthgenError

MAX_BYTES = 8 * 2**30  # scipy reads a variable as a whole
_CLASSES = {"single": "f4", "double": "f8"} | {f"{u}int{b}": f"{u}int{b}" for u in ("", "u") for b in (8, 16, 32, 64)}


def is_matlab5(head: bytes) -> bool:
    """Whether the first 128 bytes are a MATLAB v5-v7 header: version 1.0 and the mark of the byte order."""
    return (head[126:128], head[124:126]) in ((b"IM", b"\0\1"), (b"MI", b"\1\0"))


def list_matlab5(path: Path) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Shape and type of every variable of real numbers, from the headers alone."""
    elements = _guarded(path, lambda: check_elements(path))
    listed = _guarded(path, lambda: scipy.io.whosmat(str(path), appendmat=False))
    return {
        name: (tuple(int(n) for n in shape), np.dtype(_CLASSES[kind]))
        for name, shape, kind in listed
        if kind in _CLASSES and not (name in elements and elements[name].is_complex) and all(n >= 0 for n in shape)
    }


def open_matlab5(path: Path, hints: Hints) -> Source:
    """A MATLAB v5-v7 file; arrays of rows x columns x bands, or bands x pixels in MATLAB's column order.

    Wavelengths, selected bands (`SlectBands`, 1-based), image size (`nRow`, `nCol`) and what is declared of the numbers
    (`maxValue`, `scale_factor`, ...) are taken from variables of these names.
    """
    variables = list_matlab5(path)
    vector = lambda *wanted: _vector(path, variables, wanted)
    found, selection = vector(*WAVELENGTH_NAMES), vector(*SELECTION_NAMES)
    rows, columns = vector("nrow"), vector("ncol")
    image = None if rows is None or columns is None else (int(rows[0]), int(columns[0]))
    counts = band_counts_of(path, hints, found, selection)
    name, layout = choose_variable(variables, path, hints, counts, MATLAB_ORDERS, image)
    bands = resolve_wavelengths(path, layout.bands, hints, found, selection)
    axis = layout.axes.index("N") if layout.count > 1 else None
    if axis is None:
        _load(path, name, *variables[name])  # now, so that a damaged file is refused at once
    dtype, statements = variables[name][1], matlab5_statements(path, name, variables)
    declared = interpret(statements, path, layout.bands, dtype, bands.order)

    def read(i: int) -> np.ndarray:
        if axis is None:
            return bands.sort(layout.arrange(_load(path, name, *variables[name])[layout.selection(i)]))
        return bands.sort(layout.arrange(_part(path, name, *variables[name], axis, i)))

    return Source(path, "MATLAB v5", name, layout, dtype, bands.nm, bands.origin, declared, read, order=bands.order)


def matlab5_statements(path: Path, cube: str, variables: dict) -> list[Statement]:
    """What variables beside the cube declare of it."""
    return beside({n: shape for n, (shape, _) in variables.items()}, cube, lambda n: _load(path, n, *variables[n]), ".")


def matlab5_wavelengths(path: Path) -> np.ndarray | None:
    """The wavelengths that the file gives, as they are; None where it gives none."""
    return _vector(path, list_matlab5(path), WAVELENGTH_NAMES)


def _vector(path: Path, variables: dict, wanted: tuple[str, ...]) -> np.ndarray | None:
    names = {name.lower(): name for name in variables}
    for name in wanted:
        if name in names and 0 < np.prod(variables[names[name]][0], dtype=float) <= MAX_SMALL_VALUES:
            return np.asarray(_load(path, names[name], *variables[names[name]])).ravel()
    return None


def _load(path: Path, name: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    stat = path.stat()
    return _cached(path, stat.st_size, stat.st_mtime_ns, name, shape, dtype)


@lru_cache(maxsize=1)  # a file is checked as a whole when it is opened: what that read is not read again
def _cached(path: Path, size: int, mtime_ns: int, name: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    declared = float(np.prod(shape, dtype=float)) * dtype.itemsize
    if declared > min(MAX_BYTES, size * MAX_PACKING):
        raise InputError(f"'{name}' declares more data than can be held", path=path, found=f"shape {shape}")
    array = _guarded(path, lambda: scipy.io.loadmat(str(path), appendmat=False, mat_dtype=True, variable_names=[name]))
    array = array.get(name)
    if not isinstance(array, np.ndarray) or array.shape != shape or array.dtype.kind not in "uif":
        raise InputError(f"'{name}' cannot be read", path=path, found=type(array).__name__, expected=f"numbers {shape}")
    return array


def _part(path: Path, name: str, shape: tuple[int, ...], dtype: np.dtype, axis: int, index: int) -> np.ndarray:
    """One cube of several, which scipy could only read with all the others."""
    element = _guarded(path, lambda: check_elements(path)).get(name)
    if element is None or element.is_complex or axis not in (0, len(shape) - 1):
        return _load(path, name, shape, dtype).take(index, axis)
    return _guarded(path, lambda: read_cube(path, element, shape, axis, index)).astype(dtype, copy=False)


def _guarded(path: Path, read):
    """scipy meets damaged files with errors of every class; each becomes an InputError."""
    try:
        return read()
    except SynthgenError:
        raise
    except Exception as error:
        raise InputError(
            "MATLAB file cannot be read; it is damaged",
            path=path,
            found=f"{type(error).__name__} {in_one_line(error)}",
            remedy="copy the file again, or save it again with -v7",
        ) from error
