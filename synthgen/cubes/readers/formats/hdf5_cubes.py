"""HDF5 files as sources of cubes: cohort files, MATLAB v7.3, and any layout told by the names of its datasets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from synthgen.cubes.cohort.cohort import Cohort, mask_names_of
from synthgen.cubes.cohort.hdf5 import MAX_SMALL_VALUES, attribute, check_stored, dataset, open_hdf5, small
from synthgen.cubes.readers.layout import ARRAY_ORDERS, MATLAB_ORDERS, Layout
from synthgen.cubes.readers.source import (
    FULL_SCALE_NAMES,
    SELECTION_NAMES,
    WAVELENGTH_NAMES,
    Hints,
    Source,
    band_counts_of,
    choose_variable,
    native,
    resolve_wavelengths,
)
from synthgen.errors import InputError


def open_hdf5_cubes(path: Path, hints: Hints, matlab: bool) -> Source:
    """An HDF5 file. Wavelengths from a dataset of such a name anywhere in the file, else from an attribute."""
    with open_hdf5(path) as file:
        variables = {name: (item.shape, item.dtype) for name, item in datasets(file, path)}
        is_cohort = hints.variable is None and "cubes" in variables and not matlab
        names = _by_leaf(variables)
        where, found = wavelengths_in(file, names, variables, hints.variable, path)
        selection = _vector(file, names, SELECTION_NAMES, path)
        image = _image(file, names, path) if matlab else None
        counts = band_counts_of(path, hints, found, selection)
        orders = MATLAB_ORDERS if matlab else ARRAY_ORDERS
        chosen = Hints("cubes", hints.axes or "NCHW") if is_cohort else hints
        name, layout = choose_variable(variables, path, chosen, counts, orders, image, backwards=matlab)
        bands = resolve_wavelengths(path, layout.bands, hints, found, selection, where)
        data = dataset(file, name, path)
        assert data is not None  # one of `variables`
        check_stored(data, path)
        full_scale = attribute(data, "scale")
        if full_scale is not None and full_scale <= 1:
            full_scale = 1 / full_scale if full_scale > 0 else None
        if full_scale is None and (limit := _vector(file, names, FULL_SCALE_NAMES, path)) is not None:
            full_scale = float(limit[0]) if np.isfinite(limit[0]) and limit[0] > 0 else None
        dtype = data.dtype
        people = _people(file, layout, path) if is_cohort else {}
        names_of_masks = mask_names_of(file, data, path) if is_cohort and layout.axes == "NCHW" else ()
    masks = None
    if names_of_masks:
        nobody = np.full(layout.count, "")  # the cohort stands for its masks only
        planes = Cohort(
            path, bands.nm, layout.rows, layout.columns, nobody, None, None, None, names_of_masks, divisor=1.0
        )
        masks = lambda i: {n: m[0] for n, m in planes.masks([i]).items()}

    def read(i: int) -> np.ndarray:
        with open_hdf5(path) as file:
            stored = dataset(file, name, path)
            if stored is None or stored.shape != layout.shape:
                expected = f"'{name}' {layout.shape}"
                raise InputError("the file has changed since it was opened", path=path, expected=expected)
            return bands.sort(layout.arrange(native(stored[layout.selection(i)])))

    kind = "MATLAB v7.3" if matlab else "cohort HDF5" if is_cohort else "HDF5"
    return Source(
        path, kind, name, layout, dtype, bands.nm, bands.origin, full_scale, read, masks, order=bands.order, **people
    )


def datasets(file: h5py.File, path: Path, limit: int = 1000) -> list[tuple[str, h5py.Dataset]]:
    """The datasets of the file by name (hard links only, at most `limit`), simple shapes only."""
    found: list[tuple[str, h5py.Dataset]] = []

    def visit(name: str, item) -> bool | None:
        if isinstance(item, h5py.Dataset) and item.shape is not None:
            found.append((name, item))
        return True if len(found) >= limit else None

    file.visititems(visit)
    return [(name, item) for name, item in found if not name.startswith("#")]  # "#refs#": MATLAB's cells


def hdf5_wavelengths(path: Path) -> np.ndarray | None:
    """The wavelengths that the file gives, as they are; None where it gives none."""
    with open_hdf5(path) as file:
        variables = {name: (item.shape, item.dtype) for name, item in datasets(file, path)}
        return wavelengths_in(file, _by_leaf(variables), variables, None, path)[1]


def wavelengths_in(
    file: h5py.File, names: dict[str, str], variables: dict, told: str | None, path: Path
) -> tuple[str, np.ndarray | None]:
    """Where the file gives wavelengths, and what they are: a dataset, or an attribute of an array or of the file."""
    found = _vector(file, names, WAVELENGTH_NAMES, path)
    if found is not None:
        return "file", found
    for holder in (
        [told]
        if told is not None and told in variables
        else [n for n, (shape, _) in variables.items() if len(shape) > 1]
    ):
        if (item := dataset(file, holder, path)) is not None and (values := _listed(item)) is not None:
            return f"attribute of '{holder}'", values
    return "attribute of the file", _listed(file)


def _listed(item: h5py.Dataset | h5py.File) -> np.ndarray | None:
    """Wavelengths kept as an attribute of numbers."""
    for name in item.attrs:
        if name.lower() not in WAVELENGTH_NAMES:
            continue
        header = item.attrs.get_id(name)
        if header.dtype.kind in "uif" and 0 < np.prod(header.shape, dtype=float) <= MAX_SMALL_VALUES:
            return np.asarray(item.attrs[name]).ravel()
    return None


def _by_leaf(variables: dict) -> dict[str, str]:
    """Full names by the lower-case last part; the least deep wins."""
    deep_first = sorted(variables, key=lambda name: (-name.count("/"), name))
    return {name.rsplit("/", 1)[-1].lower(): name for name in deep_first}


def _people(file: h5py.File, layout: Layout, path: Path) -> dict[str, Any]:
    people = {}
    for key in ("patient_id", "eye", "visit", "label"):
        values = small(file, key, path)
        if values is not None and values.shape != (layout.count,):
            expected = f"{layout.count}, one per cube"
            raise InputError(f"'{key}' has the wrong length", path=path, found=values.size, expected=expected)
        people[key] = values
    return people


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
