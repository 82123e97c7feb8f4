"""Opening a user's file as a source of raw cubes: cohort files and other HDF5, MATLAB v5 and v7.3, NumPy.

The format is told by the first bytes of the file, never by its name. Nothing in a file is executed: no pickle, no link
to another file, and no size is believed that the file cannot hold.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from synthgen.cubes.cohort import Cohort, mask_names_of
from synthgen.cubes.folders import SUFFIXES, find_sources
from synthgen.cubes.hdf5 import attribute, check_stored, dataset, open_hdf5, reading, small
from synthgen.cubes.layout import ARRAY_ORDERS, MATLAB_ORDERS
from synthgen.cubes.matlab import is_matlab5, open_matlab5
from synthgen.cubes.source import (
    FULL_SCALE_NAMES,
    SELECTION_NAMES,
    WAVELENGTH_NAMES,
    Hints,
    Source,
    band_counts_of,
    choose_variable,
    resolve_wavelengths,
)
from synthgen.errors import InputError, must_exist

FORMATS = "a cohort file or other HDF5, MATLAB (.mat v5 or v7.3) or NumPy (.npy)"

__all__ = ["FORMATS", "NO_HINTS", "SUFFIXES", "Hints", "find_sources", "open_source"]

NO_HINTS = Hints()


def open_source(path: str | os.PathLike, hints: Hints = NO_HINTS) -> Source:
    """Open a file of any known format; InputError names what is wrong with it."""
    path = must_exist(path)
    with reading(path):
        with open(path, "rb") as file:
            head = file.read(128)
        if not head:
            raise InputError("is empty", path=path, expected=FORMATS)
        if head.startswith(b"\x93NUMPY"):
            return _open_npy(path, hints)
        if h5py.is_hdf5(path):
            return _open_hdf5(path, hints, matlab=head.startswith(b"MATLAB"))
        if is_matlab5(head):
            return open_matlab5(path, hints)
    raise InputError("is of no format that can be read", path=path, found=f"first bytes {head[:8]!r}", expected=FORMATS)


def map_npy(path: Path) -> np.ndarray:
    """The array of a .npy file, mapped into memory; InputError when it is damaged or would have to be unpickled."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # NumPy evaluates the header: a damaged one raises what Python's parser does
        if "Python objects" in str(error):
            raise InputError("holds pickled objects, which are never loaded", path=path, expected="numbers") from None
        found = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise InputError("NumPy file is damaged", path=path, found=found, remedy="copy the file again") from error


def _open_npy(path: Path, hints: Hints) -> Source:
    array = map_npy(path)
    band_counts = band_counts_of(path, hints, None, None)
    variables = {"array": (array.shape, array.dtype)}
    _, layout = choose_variable(variables, path, Hints(None, hints.axes), band_counts, ARRAY_ORDERS)
    wavelengths, origin = resolve_wavelengths(path, layout.bands, hints, None, None)

    def read(i: int) -> np.ndarray:
        with reading(path):  # opened anew for each cube: thousands of files must not stay open
            return layout.arrange(np.array(map_npy(path)[layout.selection(i)]))

    return Source(path, "NumPy", "array", layout, array.dtype, wavelengths, origin, None, read)


def _open_hdf5(path: Path, hints: Hints, matlab: bool) -> Source:
    with open_hdf5(path) as file:
        variables = {name: (item.shape, item.dtype) for name, item in datasets(file, path)}
        is_cohort = hints.variable is None and "cubes" in variables and not matlab
        names = {n.lower(): n for n in variables if "/" not in n}
        found = _vector(file, names, WAVELENGTH_NAMES, path)
        selection = _vector(file, names, SELECTION_NAMES, path)
        image = _image(file, names, path) if matlab else None
        counts = band_counts_of(path, hints, found, selection)
        orders = MATLAB_ORDERS if matlab else ARRAY_ORDERS
        chosen = Hints("cubes", hints.axes or "NCHW") if is_cohort else hints
        name, layout = choose_variable(variables, path, chosen, counts, orders, image, backwards=matlab)
        wavelengths, origin = resolve_wavelengths(path, layout.bands, hints, found, selection)
        data = dataset(file, name, path)
        check_stored(data, path)
        full_scale = attribute(data, "scale")
        if full_scale is not None and full_scale <= 1:
            full_scale = 1 / full_scale if full_scale > 0 else None
        if full_scale is None and (limit := _vector(file, names, FULL_SCALE_NAMES, path)) is not None:
            full_scale = float(limit[0]) if np.isfinite(limit[0]) and limit[0] > 0 else None
        dtype, people = data.dtype, {}
        if is_cohort:
            for key in ("patient_id", "eye", "visit", "label"):
                values = small(file, key, path)
                if values is not None and values.shape != (layout.count,):
                    expected = f"{layout.count}, one per cube"
                    raise InputError(f"'{key}' has the wrong length", path=path, found=values.size, expected=expected)
                people[key] = values
        names_of_masks = mask_names_of(file, data, path) if is_cohort and layout.axes == "NCHW" else ()
    masks = None
    if names_of_masks:
        nobody = np.full(layout.count, "")  # the cohort stands for its masks only
        planes = Cohort(
            path, wavelengths, layout.rows, layout.columns, nobody, None, None, None, names_of_masks, divisor=1.0
        )
        masks = lambda i: {n: m[0] for n, m in planes.masks([i]).items()}

    def read(i: int) -> np.ndarray:
        with open_hdf5(path) as file:
            stored = dataset(file, name, path)
            if stored is None or stored.shape != layout.shape:
                expected = f"'{name}' {layout.shape}"
                raise InputError("the file has changed since it was opened", path=path, expected=expected)
            return layout.arrange(stored[layout.selection(i)])

    kind = "MATLAB v7.3" if matlab else "cohort HDF5" if is_cohort else "HDF5"
    return Source(path, kind, name, layout, dtype, wavelengths, origin, full_scale, read, masks, **people)


def datasets(file: h5py.File, path: Path, limit: int = 1000) -> list[tuple[str, h5py.Dataset]]:
    """The datasets of the file by name (hard links only, at most `limit`), simple shapes only."""
    found: list[tuple[str, h5py.Dataset]] = []

    def visit(name: str, item) -> bool | None:
        if isinstance(item, h5py.Dataset) and item.shape is not None:
            found.append((name, item))
        return True if len(found) >= limit else None

    file.visititems(visit)
    return [(name, item) for name, item in found if not name.startswith("#")]  # "#refs#": MATLAB's cells


def _vector(file: h5py.File, names: dict[str, str], wanted: Sequence[str], path: Path) -> np.ndarray | None:
    for name in wanted:
        if name in names:
            values = small(file, names[name], path)
            if values is not None and values.dtype.kind in "uif" and values.size:
                return values.ravel()
    return None


def _image(file: h5py.File, names: dict[str, str], path: Path) -> tuple[int, int] | None:
    rows, columns = _vector(file, names, ("nrow",), path), _vector(file, names, ("ncol",), path)
    return None if rows is None or columns is None else (int(rows[0]), int(columns[0]))
