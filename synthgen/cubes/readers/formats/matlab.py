"""MATLAB files up to v7 (not HDF5), by scipy."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import scipy.io

from synthgen.cubes.cohort.hdf5 import MAX_PACKING, MAX_SMALL_VALUES, in_one_line
from synthgen.cubes.readers.calibration import interpret
from synthgen.cubes.readers.declarations import Statement, beside
from synthgen.cubes.readers.formats.matlab_elements import check_elements, read_cube
from synthgen.cubes.readers.formats.matlab_structs import contents_of, read_field
from synthgen.cubes.readers.layout import MATLAB_ORDERS
from synthgen.cubes.readers.source import (
    SELECTION_NAMES,
    Hints,
    Source,
    band_counts_of,
    choose_variable,
    resolve_wavelengths,
    wavelength_rank,
)
from synthgen.cubes.units import UNIT_NAMES, UNITS, Listed, read_list, stated_list, unit_of
from synthgen.errors import InputError, SynthgenError

MAX_BYTES = 8 * 2**30  # scipy reads a variable as a whole
_CLASSES = {"single": "f4", "double": "f8"} | {f"{u}int{b}": f"{u}int{b}" for u in ("", "u") for b in (8, 16, 32, 64)}


def is_matlab5(head: bytes) -> bool:
    """Whether the first 128 bytes are a MATLAB v5-v7 header: version 1.0 and the mark of the byte order."""
    return (head[126:128], head[124:126]) in ((b"IM", b"\0\1"), (b"MI", b"\1\0"))


def list_matlab5(path: Path) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Shape and type of every variable of real numbers, from the headers alone; fields of structs as `scan.cube`."""
    elements = _guarded(path, lambda: check_elements(path))
    listed = _guarded(path, lambda: scipy.io.whosmat(str(path), appendmat=False))
    inside = _guarded(path, lambda: contents_of(path)).fields
    return {
        name: (tuple(int(n) for n in shape), np.dtype(_CLASSES[kind]))
        for name, shape, kind in listed
        if kind in _CLASSES and not (name in elements and elements[name].is_complex) and all(n >= 0 for n in shape)
    } | {name: (field.shape, field.dtype) for name, field in inside.items()}


def open_matlab5(path: Path, hints: Hints) -> Source:
    """A MATLAB v5-v7 file; arrays of rows x columns x bands, or bands x pixels in MATLAB's column order.

    Wavelengths, selected bands (`SlectBands`, 1-based), image size (`nRow`, `nCol`) and what is declared of the numbers
    (`maxValue`, `scale_factor`, ...) are taken from variables, or fields of structs, of these names.
    """
    variables = list_matlab5(path)
    vector = lambda *wanted: _vector(path, variables, wanted)
    found, selection = _wavelengths(path, variables), vector(*SELECTION_NAMES)
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

    return Source(
        path, "MATLAB v5", name, layout, dtype, bands.nm, bands.origin, declared, read,
        notes=bands.notes, order=bands.order,
    )  # fmt: skip


def matlab5_statements(path: Path, cube: str, variables: dict) -> list[Statement]:
    """What variables beside the cube, of numbers or of one text, declare of it."""
    texts = _guarded(path, lambda: contents_of(path)).texts
    names = {n: shape for n, (shape, _) in variables.items()} | {n: (1,) for n in texts}
    return beside(names, cube, lambda n: texts[n] if n in texts else _load(path, n, *variables[n]), ".")


def matlab5_wavelengths(path: Path) -> Listed | None:
    """The wavelengths that the file gives, as they are; None where it gives none."""
    return _wavelengths(path, list_matlab5(path))


def _wavelengths(path: Path, variables: dict) -> Listed | None:
    """The variable or field of such a name, of numbers or of one text, with the unit that stands beside it."""
    texts = _guarded(path, lambda: contents_of(path)).texts
    names = [*variables, *texts]
    for _, _, name in sorted((rank[0], n.count("."), n) for n in names if (rank := wavelength_rank(_leaf(n)))):
        behind, group = "", name.rpartition(".")[0]
        if name in texts:
            if (listed := read_list(texts[name])) is None:
                continue
            values, behind = listed
        elif 0 < np.prod(variables[name][0], dtype=float) <= MAX_SMALL_VALUES and len(variables[name][0]) <= 2:
            values = np.asarray(_load(path, name, *variables[name])).ravel().astype(np.float64)
        else:
            continue
        beside = {_leaf(n).lower(): text for n, text in texts.items() if n.rpartition(".")[0] in (group, "")}
        # A plain `units` may be that of the cube.
        stated = [beside[k] for k in UNIT_NAMES if k in beside and ("_" in k or unit_of(beside[k]) in UNITS)]
        rank = wavelength_rank(_leaf(name))
        return stated_list(values, "file", (stated[0] if stated else "", behind, rank[1] if rank else ""), path)
    return None


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]


def _vector(path: Path, variables: dict, wanted: tuple[str, ...]) -> np.ndarray | None:
    names = {
        _leaf(name).lower(): name for name in sorted(variables, key=lambda n: -n.count("."))
    }  # the least deep wins
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
    if (field := _guarded(path, lambda: contents_of(path)).fields.get(name)) is not None:
        return _guarded(path, lambda: read_field(path, field))
    array = _guarded(path, lambda: scipy.io.loadmat(str(path), appendmat=False, mat_dtype=True, variable_names=[name]))
    array = array.get(name)
    if not isinstance(array, np.ndarray) or array.shape != shape or array.dtype.kind not in "uif":
        raise InputError(f"'{name}' cannot be read", path=path, found=type(array).__name__, expected=f"numbers {shape}")
    return array


def _part(path: Path, name: str, shape: tuple[int, ...], dtype: np.dtype, axis: int, index: int) -> np.ndarray:
    """One cube of several, which scipy could only read with all the others."""
    if (field := _guarded(path, lambda: contents_of(path)).fields.get(name)) is not None:
        return _guarded(path, lambda: read_field(path, field, axis, index))
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
