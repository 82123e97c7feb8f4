"""HDF5 files as sources of cubes: cohort files, MATLAB v7.3, and any layout identified by the names of its datasets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from synthgen.cubes.cohort.cohort import Cohort, mask_names_of
from synthgen.cubes.cohort.hdf5 import MAX_SMALL_VALUES, check_stored, dataset, open_hdf5, small
from synthgen.cubes.cohort.hdf5_heaps import text_attribute
from synthgen.cubes.readers.calibration import interpret
from synthgen.cubes.readers.formats.hdf5_declared import hdf5_statements
from synthgen.cubes.readers.layout import ARRAY_ORDERS, MATLAB_ORDERS, Layout
from synthgen.cubes.readers.source import (
    SELECTION_NAMES,
    Hints,
    Source,
    band_counts_of,
    choose_variable,
    native,
    resolve_wavelengths,
    wavelength_rank,
)
from synthgen.cubes.units import UNIT_NAMES, UNITS, Listed, read_list, stated_list, unit_of
from synthgen.errors import InputError


def open_hdf5_cubes(path: Path, hints: Hints, matlab: bool) -> Source:
    """An HDF5 file. Wavelengths from a dataset of such a name anywhere in the file, else from an attribute."""
    with open_hdf5(path) as file:
        variables = {name: (item.shape, item.dtype) for name, item in datasets(file, path)}
        is_cohort = hints.variable is None and "cubes" in variables and not matlab
        names = _by_leaf(variables)
        found = wavelengths_in(file, variables, hints.variable, path)
        selection = _vector(file, names, SELECTION_NAMES, path)
        image = _image(file, names, path) if matlab else None
        counts = band_counts_of(path, hints, found, selection)
        orders = MATLAB_ORDERS if matlab else ARRAY_ORDERS
        chosen = Hints("cubes", hints.axes or "NCHW") if is_cohort else hints
        name, layout = choose_variable(variables, path, chosen, counts, orders, image, backwards=matlab)
        ours = is_cohort and {"wavelengths_nm", "patient_id"} <= variables.keys()  # in nm, whatever they are
        bands = resolve_wavelengths(path, layout.bands, replace(hints, unit="nm") if ours else hints, found, selection)
        data = dataset(file, name, path)
        assert data is not None  # one of `variables`
        check_stored(data, path)
        dtype, statements = data.dtype, hdf5_statements(file, name, variables, path)
        declared = interpret(statements, path, layout.bands, dtype, bands.order)
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
        path, kind, name, layout, dtype, bands.nm, bands.origin, declared, read, masks,
        notes=bands.notes, order=bands.order, **people,
    )  # fmt: skip


def datasets(file: h5py.File, path: Path, limit: int = 1000) -> list[tuple[str, h5py.Dataset]]:
    """The datasets of the file by name (hard links only, at most `limit`), simple shapes only."""
    found: list[tuple[str, h5py.Dataset]] = []

    def visit(name: str, item) -> bool | None:
        if isinstance(item, h5py.Dataset) and item.shape is not None:
            found.append((name, item))
        return True if len(found) >= limit else None

    file.visititems(visit)
    return [(name, item) for name, item in found if not name.startswith("#")]  # "#refs#": MATLAB's cells


def hdf5_wavelengths(path: Path) -> Listed | None:
    """The wavelengths that the file gives, as they are; None where it gives none."""
    with open_hdf5(path) as file:
        variables = {name: (item.shape, item.dtype) for name, item in datasets(file, path)}
        return wavelengths_in(file, variables, None, path)


def wavelengths_in(file: h5py.File, variables: dict, given: str | None, path: Path) -> Listed | None:
    """The wavelengths of the file: a dataset, or an attribute of an array, of its group or of the file."""
    ranked = [(rank[0], name.count("/"), name, rank[1]) for name in variables if (rank := wavelength_rank(name))]
    for _, _, name, unit in sorted(ranked):
        if (values := _numbers(file, name, path)) is not None:
            return _with_unit(file, name, variables, values, unit, path)
    holders = (
        [given]
        if given is not None and given in variables
        else [n for n, (shape, _) in variables.items() if len(shape) > 1]
    )
    groups = dict.fromkeys(n.rpartition("/")[0] for n in holders)
    for holder in [*holders, *(g for g in groups if g), ""]:
        item = file[holder] if holder else file
        for _, name in sorted((rank[0], n) for n in item.attrs if (rank := wavelength_rank(n))):
            if (values := _attribute_numbers(item, name, path)) is not None:
                where = f"attribute of '{holder}'" if holder else "attribute of the file"
                beside = _unit_attribute(item, path, UNIT_NAMES[:4])
                in_name = (wavelength_rank(name) or (0, ""))[1]
                return stated_list(values[0], where, (beside, values[1], in_name), path)
    return None


def _with_unit(
    file: h5py.File, name: str, every: Iterable[str], values: tuple[np.ndarray, str], in_name: str, path: Path
) -> Listed:
    """Wavelengths of a dataset with its unit: an attribute of it, else a text beside it, or an attribute around it."""
    group = name.rpartition("/")[0]
    stated = _unit_attribute(file[name], path, UNIT_NAMES)
    parts = (n.rpartition("/") for n in every)
    texts = {leaf.lower(): leaf for around, _, leaf in parts if around == group}  # the datasets beside it
    for key in UNIT_NAMES if not stated else ():
        beside = f"{group}/{texts[key]}".lstrip("/") if key in texts else ""
        if beside and (found := _text(file, beside, path)) and (key in UNIT_NAMES[:4] or unit_of(found) in UNITS):
            stated = found  # a plain `units` may be that of the cube
            break
    for around in ([group] if group else []) + [""] if not stated else ():
        stated = stated or _unit_attribute(file[around] if around else file, path, UNIT_NAMES[:4])
    listed = stated_list(values[0], "file", (stated, values[1], in_name), path)
    return replace(listed, fwhm=_widths(file, group, texts, values[0].size, path))


def _widths(file: h5py.File, group: str, names: dict[str, str], count: int, path: Path) -> np.ndarray | None:
    """The dataset `fwhm` beside the wavelengths, where it has as many values and no unit of its own."""
    name = f"{group}/{names['fwhm']}".lstrip("/") if "fwhm" in names else ""
    data = dataset(file, name, path) if name and isinstance(file.get(name), h5py.Dataset) else None
    if data is None or data.size != count or data.dtype.kind not in "uif" or _unit_attribute(data, path, UNIT_NAMES):
        return None
    found = small(file, name, path)
    return None if found is None else found.ravel().astype(np.float64)


def _numbers(file: h5py.File, name: str, path: Path) -> tuple[np.ndarray, str] | None:
    """Wavelengths of a dataset of numbers or of texts, and the unit behind the texts."""
    data = dataset(file, name, path)
    if data is None or data.size is None or not 0 < data.size <= MAX_SMALL_VALUES or data.ndim > 2:
        return None
    if _is_char(data, path):
        return None if (text := _text(file, name, path)) is None else read_list(text)
    texts = h5py.check_string_dtype(data.dtype) is not None
    if not texts and data.dtype.kind not in "uif":
        return None
    values = small(file, name, path)
    if values is None:
        return None
    return read_list([str(v) for v in values.ravel()]) if texts else (values.ravel().astype(np.float64), "")


def _text(file: h5py.File, name: str, path: Path) -> str | None:
    """A short text kept as a dataset, of HDF5 or of MATLAB (its characters as numbers)."""
    item = file.get(name, getlink=True)
    data = (
        dataset(file, name, path) if isinstance(item, h5py.HardLink) and isinstance(file[name], h5py.Dataset) else None
    )
    if data is None or data.size is None or not 0 < data.size <= MAX_SMALL_VALUES:
        return None
    if h5py.check_string_dtype(data.dtype) is not None and data.size == 1:
        values = small(file, name, path)
        return None if values is None else str(values.ravel()[0])
    if _is_char(data, path) and data.dtype == np.uint16:
        values = small(file, name, path)
        return None if values is None else "".join(chr(c) for c in values.T.ravel())
    return None


def _is_char(data: h5py.Dataset, path: Path) -> bool:
    return "MATLAB_class" in data.attrs and text_attribute(data, "MATLAB_class", path) == "char"


def _unit_attribute(item: h5py.HLObject, path: Path, names: Sequence[str]) -> str:
    lowered = {name.lower().replace(" ", "_"): name for name in item.attrs}
    found = (text_attribute(item, lowered[name], path) for name in names if name in lowered)
    return next((text for text in found if text), "")


def _attribute_numbers(item: h5py.HLObject, name: str, path: Path) -> tuple[np.ndarray, str] | None:
    """Wavelengths kept as an attribute of numbers, or of one text."""
    header = item.attrs.get_id(name)
    if header.dtype.kind in "uif" and 0 < np.prod(header.shape, dtype=float) <= MAX_SMALL_VALUES:
        return np.asarray(item.attrs[name]).ravel().astype(np.float64), ""
    text = text_attribute(item, name, path) if header.dtype.kind in "SO" else None
    return None if text is None else read_list(text)


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
