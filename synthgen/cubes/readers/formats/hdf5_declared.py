"""What an HDF5 file declares of a cube: attributes of its dataset, of the groups around it, and datasets beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from synthgen.cubes.cohort.hdf5 import attribute, dataset, small
from synthgen.cubes.cohort.hdf5_heaps import text_attribute
from synthgen.cubes.readers.calibration import interpret
from synthgen.cubes.readers.declarations import MOST, ROLES, Statement, beside, plain_name
from synthgen.errors import InputError

_OF_CUBE_ONLY = ("units", "_unsigned", "valid_range", "valid_min", "valid_max")  # around it they are of anything
_STATISTICS = ("maxvalue", "max_value")  # as attributes they tell the largest value that the cube happens to have


def hdf5_statements(file: h5py.File, cube: str, variables: dict, path: Path) -> list[Statement]:
    """What the file states of the numbers in the dataset `cube`; `variables` are all datasets, with shape and type."""
    data = dataset(file, cube, path)
    found = _attributes(data, f"'{cube}'", 0, path) if data is not None else []
    if data is not None and (fill := _fill_value(data)) is not None:
        found.append(Statement("HDF5 fill value", fill, f"'{cube}'", role="no data"))
    around = cube
    while around:
        around = around.rpartition("/")[0]
        found += _attributes(file[around] if around else file, f"'{around}'" if around else "the file", 1, path)
    found += _prisma(file, cube, path)
    return found + beside({n: shape for n, (shape, _) in variables.items()}, cube, lambda n: _beside(file, n, path))


def cohort_divisor(cubes: h5py.Dataset, path: Path) -> float:
    """The stored value of reflectance 1 in the cubes of a cohort file, by its attribute `scale`; 1 for floats.

    InputError for integers without it, and for any other calibration, which reading the cubes would leave aside.
    """
    others = [s for s in _attributes(cubes, "'cubes'", 0, path) if plain_name(s.name) != "scale"]
    declared = interpret(others, path, 1, cubes.dtype)
    missing = [listed for listed in declared.no_data if not np.isnan(listed).all()]  # NaN is missing, stated or not
    if (
        declared.is_calibrated
        or declared.full_scale
        or declared.conflict
        or missing
        or declared.valid
        or declared.unsigned
    ):
        raise InputError(
            "'cubes' declares what a cohort file has not",
            path=path,
            found=", ".join(declared.statements),
            expected="the attribute 'scale' alone",
            remedy="run `synthgen ingest` on the file, which applies it",
        )
    scale = attribute(cubes, "scale")
    if scale is None and cubes.dtype.kind == "f":
        return 1.0
    if scale is None or scale <= 0:
        raise InputError(
            "'cubes' holds integers without a usable attribute 'scale'",
            path=path,
            found=cubes.dtype,
            expected="scale = the value of reflectance 1",
            remedy="set the attribute, or run `synthgen ingest` with --scale",
        )
    return scale if scale > 1 else 1 / scale


def _attributes(item: h5py.HLObject, where: str, level: int, path: Path) -> list[Statement]:
    found = []
    for name in item.attrs:
        plain = plain_name(name)
        if plain not in ROLES or plain in _STATISTICS or (level and plain in _OF_CUBE_ONLY):
            continue
        value = _value(item, name, path)
        if value is not None:
            found.append(Statement(name, value, where, level))
        elif level:
            found.append(Statement(name, "that cannot be read", where, level))
        elif plain != "units":
            kind = item.attrs.get_id(name).dtype
            raise InputError(f"attribute '{name}' cannot be read", path=path, found=kind, expected="a number")
    return found


def _value(item: h5py.HLObject, name: str, path: Path) -> Any:
    """An attribute of numbers or of one text; None for any other."""
    header = item.attrs.get_id(name)
    size = int(np.prod(header.shape, dtype=np.int64))
    if header.dtype.kind in "uifbS" and header.dtype.itemsize * size <= 8 * MOST:
        value = np.asarray(item.attrs[name])
        return value.item().decode("utf-8", "replace") if value.dtype.kind == "S" and value.ndim == 0 else value
    return text_attribute(item, name, path)


def _fill_value(data: h5py.Dataset) -> np.ndarray | None:
    """What HDF5 gives where nothing was written, when the maker has chosen it and it is not 0, the usual one."""
    properties = data.id.get_create_plist()
    if properties.fill_value_defined() != h5py.h5d.FILL_VALUE_USER_DEFINED or data.dtype.kind not in "uif":
        return None
    value = np.asarray(data.fillvalue)
    return value if value != 0 else None


def _beside(file: h5py.File, name: str, path: Path) -> Any:
    """A small dataset; one of MATLAB's characters as text."""
    data = dataset(file, name, path)
    values = small(file, name, path) if data is not None and (data.dtype.kind in "uifb" or _is_text(data)) else None
    if values is None or data is None:
        return "no number"
    if "MATLAB_class" in data.attrs and text_attribute(data, "MATLAB_class", path) == "char":
        return "".join(chr(int(c)) for c in values.ravel())
    return values


def _is_text(data: h5py.Dataset) -> bool:
    return h5py.check_string_dtype(data.dtype) is not None


def _prisma(file: h5py.File, cube: str, path: Path) -> list[Statement]:
    """PRISMA keeps the calibration of its cubes in attributes of the file, by the name of the detector.

    L2: reflectance = min + stored * (max - min) / 65535. L1: radiance = stored / scale - offset (PRISMA Products
    Specification Document).
    """
    detector = next((d for d in ("Vnir", "Swir", "Pan") if d.upper() in cube.rpartition("/")[2].upper()), None)
    if detector is None:
        return []

    def number(name: str) -> float | None:
        value = _value(file, name, path) if name in file.attrs else None
        numbers = np.asarray(value)
        return float(numbers.ravel()[0]) if numbers.dtype.kind in "uif" and numbers.size else None

    low, high = number(f"L2Scale{detector}Min"), number(f"L2Scale{detector}Max")
    if low is not None and high is not None:
        names = f"L2Scale{detector}Min, Max"
        gain = Statement(f"{names}: gain", (high - low) / 65535, "the file", role="gain")
        return [gain, Statement(f"{names}: offset", low, "the file", role="offset")]
    scale, offset = number(f"ScaleFactor_{detector}"), number(f"Offset_{detector}")
    if scale is None or offset is None or scale <= 0:
        return []
    gain = Statement(f"ScaleFactor_{detector}: gain", 1 / scale, "the file", role="gain")
    unit = Statement("units", "radiance", "PRISMA L1", role="unit")
    return [gain, Statement(f"Offset_{detector}: offset", -offset, "the file", role="offset"), unit]
