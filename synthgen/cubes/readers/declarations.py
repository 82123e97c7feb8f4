"""The names by which files declare gain, offset, scale and missing numbers, and what they mean.

ENVI (NV5, "ENVI Header Files"), CF conventions 1.11 section 2.5 and 8.1 (netCDF, HDF5), GDAL, and the names that
airborne cameras and satellites write (NEON, PRISMA, EnMAP). A factor that only says "scale" divides where it is above 1
and multiplies where it is not: no encoding of reflectance gives its smallest step more than 1. `calibration` makes
one record of all of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from synthgen.cubes.cohort.hdf5 import in_one_line
from synthgen.cubes.readers.declared import shown

MOST = 100_000  # values of a declaration; a name beside the cube with more is an image
ROLES = {
    "gain": "gain", "gains": "gain", "gain_values": "gain", "data_gain_values": "gain", "slope": "gain",
    "offset": "offset", "offsets": "offset", "offset_values": "offset", "data_offset_values": "offset",
    "add_offset": "offset", "intercept": "offset",
    "data_reflectance_gain_values": "reflectance gain", "data_reflectance_offset_values": "reflectance offset",
    "scale_factor": "factor", "scale_factors": "factor", "scalefactor": "factor", "scaling_factor": "factor",
    "scale": "scale", "reflectance_scale_factor": "scale", "reflectance_scale": "scale",
    "reflectance_scalefactor": "scale", "quantification_value": "scale",
    "maxvalue": "full scale", "max_value": "full scale",
    "_fillvalue": "no data", "fillvalue": "no data", "fill_value": "no data", "missing_value": "missing values",
    "missingvalue": "missing values", "nodata": "no data", "no_data": "no data", "nodata_value": "no data",
    "no_data_value": "no data", "nodatavalue": "no data", "data_ignore_value": "no data", "ignore_value": "no data",
    "gdal_nodata": "no data",
    "valid_range": "valid range", "valid_min": "valid min", "valid_max": "valid max",
    "_unsigned": "unsigned", "units": "unit",
}  # fmt: skip
_NONE = ("", "none", "null", "n/a", "na", "{}", "unknown")
_NUMBER = re.compile(r"[-+]?(?:(?:\d+\.?\d*|\.\d+)(?:[ed][-+]?\d+)?|nan(?:\(\w*\))?|inf(?:inity)?)", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class Statement:
    """One declaration as it stands in a file."""

    name: str
    value: Any  # numbers or text
    where: str = ""
    level: int = 0  # 0: of the cube itself, 1: of what it lies in, 2: a variable beside it
    role: str = ""  # where the name alone does not tell it

    @property
    def meaning(self) -> str:
        return self.role or ROLES.get(plain_name(self.name), "")

    def text(self) -> str:
        numbers, value = parse(self.value), self.value
        value = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        text = shown(numbers) if numbers is not None and numbers.size else in_one_line(value)[:60]
        return f"{self.name} {text}" + (f" ({self.where})" if self.where else "")


def plain_name(name: str) -> str:
    """A name in small letters, its parts joined by _."""
    return re.sub(r"[\s\-]+", "_", name.strip().lower())


def named(values: Mapping[str, Any], where: str, level: int = 0) -> list[Statement]:
    """Those entries of a table whose names declare something."""
    return [Statement(str(k), v, where, level) for k, v in values.items() if plain_name(str(k)) in ROLES]


def beside(
    names: Mapping[str, tuple[int, ...]], cube: str, load: Callable[[str], Any], parted: str = "/"
) -> list[Statement]:
    """Variables (name: shape) in the group of the cube, or in one around it, whose names declare something."""
    group = cube.rpartition(parted)[0]
    found = []
    for name, shape in names.items():
        around, _, leaf = name.rpartition(parted)
        inside = not around or group == around or group.startswith(around + parted)
        if name == cube or not inside or plain_name(leaf) not in ROLES or plain_name(leaf) == "units":
            continue
        small = 0 < np.prod(shape, dtype=float) <= MOST and sum(n > 1 for n in shape) < 2
        value = load(name) if small else f"of shape {shape}"
        found.append(Statement(leaf, value, "beside the cube" if around == group else f"in '{around or '/'}'", 2))
    return found


def parse(value: Any) -> np.ndarray | None:
    """The numbers of a declaration, float64; empty where it says that there is none, None where it is no number."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str):
        plain = value.replace("\0", "").strip().strip("{}[]()").strip()
        if plain.lower() in _NONE:
            return np.empty(0)
        if re.fullmatch(r"-?[1-9]\d{0,2},\d{3}", value.strip()):
            return None  # 10,000: ten, or ten thousand
        decimal = re.fullmatch(r"-?\d+,\d+", value.strip())  # 0,0001: a list would stand in braces
        words = [word for word in re.split(r"[\s;,]+", plain.replace(",", ".") if decimal else plain) if word]
        if not all(_NUMBER.fullmatch(word) for word in words):
            return None
        return np.array([float(re.sub(r"\(.*", "", w) if "n" in w.lower() else re.sub("[dD]", "e", w)) for w in words])
    array = np.asarray(value)
    if array.dtype.kind in "uifb":
        return array.ravel().astype(np.float64)
    if array.dtype.kind in "OUS":
        parts = [parse(part) if isinstance(part, bytes | str) else None for part in array.ravel().tolist()]
        numbers = [part for part in parts if part is not None]
        return np.concatenate(numbers) if numbers and len(numbers) == len(parts) else None
    return None
