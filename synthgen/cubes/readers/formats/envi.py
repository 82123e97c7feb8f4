"""ENVI files: a text header, read by SPy (`spectral`), and a raw file beside it in one of three interleaves.

Only the header goes through SPy. Its images are memory maps, and it looks for files in the folders that the environment
names; the raw values are read here, from the one file beside the header, once its size is known to be enough.
"""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from spectral.io import envi as spy

from synthgen.cubes.cohort.hdf5 import MAX_CUBE_VALUES, in_one_line, reading
from synthgen.cubes.readers.layout import Layout
from synthgen.cubes.readers.raw import read_part
from synthgen.cubes.readers.sniff import HEAD_BYTES, is_envi_header
from synthgen.cubes.readers.source import Hints, Source, band_counts_of, resolve_wavelengths
from synthgen.errors import InputError, SynthgenError

logging.getLogger("spectral").setLevel(logging.CRITICAL + 1)  # what SPy has to say comes as an InputError

ORDERS = {"bsq": "CHW", "bil": "HCW", "bip": "HWC"}
_TYPES = {1: "u1", 2: "i2", 3: "i4", 4: "f4", 5: "f8", 12: "u2", 13: "u4", 14: "i8", 15: "u8"}
RAW_SUFFIXES = (".raw", ".img", ".dat", ".bsq", ".bil", ".bip", ".bin", ".cube", ".hyspex")
_MAX_HEADER, _MAX_LINES = 4 * 2**20, 20_000  # SPy takes the lines off the front of a list
# Factor to nm by the first letters of the unit; a unit of none of these is no length.
_UNITS = {"nano": 1, "nm": 1, "micro": 1e3, "um": 1e3, "ang": 0.1, "milli": 1e6, "mm": 1e6, "met": 1e9, "m": 1e9}


@dataclass(frozen=True)
class Header:
    """What an ENVI header says of its raw file."""

    axes: str
    shape: tuple[int, ...]
    dtype: np.dtype
    offset: int
    wavelengths: np.ndarray | None  # nm, or unstated
    unit: str
    full_scale: float | None
    ignored: float | None
    bad_bands: tuple[int, ...]  # from 1, as the header's `bbl` marks them

    @property
    def interleave(self) -> str:
        return next(name for name, axes in ORDERS.items() if axes == self.axes)

    @property
    def stored_bytes(self) -> int:
        return self.offset + prod(self.shape) * self.dtype.itemsize


def open_envi(path: Path, hints: Hints, raw: Path | None = None) -> Source:
    """The image of an ENVI header, its raw file found beside it or told.

    The header's interleave stands; `hints.axes` (CHW, HCW or HWC) is for a header that lacks it. Where the header has a
    `data ignore value` the cube reads as floating numbers with NaN for each value that is it, in that band only.
    """
    with reading(path):
        header = read_header(path, hints.axes)
        raw_file = raw if raw is not None else raw_of(path, header)
        extra = check_raw(raw_file, header)
        band_counts_of(path, hints, header.wavelengths, None)  # wavelengths are there or told
        by_letter = dict(zip(header.axes, header.shape, strict=True))
        layout = Layout(header.axes, header.shape, by_letter["H"], by_letter["W"])
        bands = resolve_wavelengths(path, layout.bands, hints, header.wavelengths, where=f"ENVI header{header.unit}")

    def read(i: int) -> np.ndarray:
        with reading(raw_file):
            check_raw(raw_file, header)
            with open(raw_file, "rb") as file:
                stored = read_part(file, raw_file, header.offset, header.shape, header.dtype, None)
            return bands.sort(_nan_where(layout.arrange(stored), header.ignored))

    kind = f"ENVI {header.interleave}"
    dtype, name = header.dtype, raw_file.name
    shown = raw if raw is not None else path
    listed = ", ".join(map(str, header.bad_bands[:10]))
    other_axes = hints.axes not in (None, header.axes)
    notes = (f"the header marks bands as bad, which are kept: {listed}",) * bool(header.bad_bands)
    notes += (f"axes {hints.axes} were told and not used: the header says {header.interleave}",) * other_axes
    notes += (f"the raw file goes on for {extra} bytes after the image, which are left out",) * bool(extra)
    return Source(
        shown,
        kind,
        name,
        layout,
        dtype,
        bands.nm,
        bands.origin,
        header.full_scale,
        read,
        ignored=header.ignored,
        notes=notes,
        order=bands.order,
    )


def read_header(path: Path, axes: str | None = None) -> Header:
    """The header at `path`; InputError where it cannot be read, or says what no image has."""
    fields = _fields(path)
    lowered = {str(key).lower(): value for key, value in fields.items()}

    def whole(name: str, default: int | None = None) -> int:
        text = lowered.get(name)
        if text is None and default is not None:
            return default
        try:
            return int(str(text))
        except ValueError:
            raise InputError(f"ENVI header: '{name}' is no whole number", path=path, found=in_one_line(text)) from None

    def number(name: str) -> float | None:
        try:
            value = float(lowered[name])
        except (KeyError, TypeError, ValueError):
            return None
        return value

    if "library" in str(lowered.get("file type", "")).lower():
        raise InputError("is a spectral library", path=path, expected="an image")
    if any(any(c in "123456789" for c in str(lowered.get(f"{m} frame offsets", ""))) for m in ("major", "minor")):
        raise InputError("ENVI frame offsets cannot be read", path=path, remedy="save the image without them")
    kind = whole("data type")
    if kind not in _TYPES:
        expected = "data type " + ", ".join(map(str, _TYPES))
        found = f"{kind}, complex" if kind in (6, 9) else kind
        raise InputError("ENVI data type cannot be read", path=path, found=found, expected=expected)
    dtype = np.dtype(_TYPES[kind])
    order = whole("byte order", 0 if dtype.itemsize == 1 else None)
    if order not in (0, 1):
        raise InputError("ENVI byte order is unknown", path=path, found=order, expected="0 (little) or 1 (big)")
    interleave = str(lowered.get("interleave", "")).lower()
    order_of_axes = ORDERS.get(interleave, axes if "interleave" not in lowered else None)
    if order_of_axes is None or order_of_axes not in ORDERS.values():
        expected, remedy = "bsq, bil or bip", "mend the header, or tell --axes CHW, HCW or HWC where it has none"
        found = in_one_line(lowered.get("interleave"))
        raise InputError("ENVI interleave is unknown", path=path, found=found, expected=expected, remedy=remedy)
    sizes = {"C": whole("bands"), "H": whole("lines"), "W": whole("samples")}
    shape, offset = tuple(sizes[axis] for axis in order_of_axes), whole("header offset", 0)
    if min(shape) < 1 or prod(shape) > MAX_CUBE_VALUES or not 0 <= offset < 2**62:
        found = f"{sizes['C']} bands, {sizes['H']} lines, {sizes['W']} samples, offset {offset}"
        raise InputError("ENVI header has absurd sizes", path=path, found=found[:200], expected="up to 2**30 values")
    wavelengths, unit = _wavelengths(lowered)
    full_scale = number("reflectance scale factor")
    return Header(
        axes=order_of_axes,
        shape=shape,
        dtype=dtype.newbyteorder(">" if order else "<"),
        offset=offset,
        wavelengths=wavelengths,
        unit=unit,
        full_scale=full_scale if full_scale is not None and 0 < full_scale < np.inf else None,
        ignored=number("data ignore value"),
        bad_bands=_bad_bands(lowered.get("bbl")),
    )


def raw_of(header: Path, read: Header) -> Path:
    """The raw file of a header; InputError when there is none, or several that fit it alike."""
    found = [path for path in raw_candidates(header) if path.is_file()]
    if len(found) > 1:
        found = [path for path in found if path.stat().st_size == read.stored_bytes] or found
    if not found:
        expected = f"{header.stem} or {header.stem}.raw, .img, .dat, .bsq, .bil, .bip"
        raise InputError("ENVI header without its raw file", path=header, expected=expected)
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise InputError("ENVI header with several raw files", path=header, found=names, remedy="name the raw file")
    return found[0]


def raw_candidates(header: Path) -> list[Path]:
    """Where the raw file of an ENVI header may lie: `a.img.hdr` beside `a.img`, `a.hdr` beside `a` or `a.img`."""
    stem = header.with_suffix("")
    if stem.suffix.lower() in RAW_SUFFIXES:
        return [stem]
    both = [s for suffix in RAW_SUFFIXES for s in (suffix, suffix.upper())]
    # A file system that ignores case shows one file under both names.
    unique = {p.resolve(): p for p in reversed([stem, *(stem.with_name(stem.name + s) for s in both)])}
    return list(unique.values())[::-1]


def header_of(raw: Path) -> Path | None:
    """The ENVI header of a raw file, or None: `<name>.hdr` or `<name without its last part>.hdr`."""
    for stem in (raw.name, raw.stem):
        for suffix in (".hdr", ".HDR"):
            path = raw.with_name(stem + suffix)
            if path != raw and path.is_file() and has_envi_mark(path):
                return path
    return None


def has_envi_mark(path: Path) -> bool:
    """Whether the file begins with ENVI's word."""
    try:
        with open(path, "rb") as file:
            return is_envi_header(file.read(HEAD_BYTES))
    except OSError:
        return False


def check_raw(raw: Path, header: Header) -> int:
    """Bytes of the raw file after the image, fewer than one line of samples has.

    InputError when the file is shorter than its header says, or longer by more: then the header describes another
    image, and bands or lines would be read from the wrong places.
    """
    size, line = raw.stat().st_size, header.shape[header.axes.index("W")] * header.dtype.itemsize
    extra = size - header.stored_bytes
    if 0 <= extra < line:
        return extra
    shape = " x ".join(f"{n} {'bands' if a == 'C' else a}" for a, n in zip(header.axes, header.shape, strict=True))
    raise InputError(
        f"ENVI raw file is {'shorter' if extra < 0 else 'longer'} than its header says",
        path=raw,
        found=f"{size} bytes",
        expected=f"{header.stored_bytes} bytes for {shape} {header.dtype.name}",
        remedy="copy the file again" if extra < 0 else "give it the header that belongs to it",
    )


def _fields(path: Path) -> dict[str, Any]:
    """The fields of the header by SPy, given plain text: it reads by the locale, which need not be the file's."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        data = file.read(_MAX_HEADER + 1)
    if size > _MAX_HEADER or data.count(b"\n") + data.count(b"\r") > _MAX_LINES:
        raise InputError("ENVI header is too long", path=path, found=f"{size} bytes")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    lines = (line.strip() for line in text.replace("\u00b5", "u").replace("\u03bc", "u").splitlines())
    plain = "\n".join(line for line in lines if line)
    with tempfile.TemporaryFile() as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SPy warns of keys with capitals
        file.write(plain.encode("ascii", "replace"))
        file.seek(0)
        try:
            fields = spy.read_envi_header(os.dup(file.fileno()))  # it closes what it opens
        except SynthgenError:
            raise
        except Exception as error:  # SPy's errors have no common base
            found, remedy = in_one_line(error), "mend the header: one 'key = value' per line, lists in braces"
            raise InputError("ENVI header cannot be read", path=path, found=found, remedy=remedy) from error
    missing = [name for name in ("samples", "lines", "bands", "data type") if name not in map(str.lower, fields)]
    if missing:
        raise InputError("ENVI header is incomplete", path=path, expected=", ".join(f"'{name}'" for name in missing))
    return fields


def _wavelengths(fields: dict[str, Any]) -> tuple[np.ndarray | None, str]:
    """The wavelengths in nm with a note on their unit; None where there are none, or not of a length."""
    listed, unit = fields.get("wavelength"), str(fields.get("wavelength units", "")).strip().lower()
    if listed is None:
        return None, ""
    try:
        values = np.array([float(text) for text in (listed if isinstance(listed, list) else [listed]) if text])
    except ValueError:
        return None, ""
    if unit in ("", "unknown"):
        return values, ", unit not stated"
    factor = next((f for name, f in _UNITS.items() if (unit == name if len(name) < 3 else unit.startswith(name))), None)
    return (None, "") if factor is None else (values * factor, f", {unit}")


def _bad_bands(listed: object) -> tuple[int, ...]:
    values = listed if isinstance(listed, list) else []
    return tuple(k + 1 for k, text in enumerate(values) if text.strip() in ("0", "0.0"))


def _nan_where(cube: np.ndarray, ignored: float | None) -> np.ndarray:
    """The cube with NaN for each value that stands for "no data"; as stored where there is no such value.

    Integers become the floating numbers that hold them: 16 bits float32, wider ones float64.
    """
    if ignored is None:
        return cube
    missing = np.isnan(cube) if np.isnan(ignored) else cube == ignored
    cube = cube.astype(np.result_type(cube.dtype, np.float32))
    cube[missing] = np.nan
    return cube
