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
from synthgen.cubes.readers.calibration import interpret
from synthgen.cubes.readers.declarations import Statement, named
from synthgen.cubes.readers.formats.envi_files import raw_candidates
from synthgen.cubes.readers.formats.esri import esri_fields, is_esri_header
from synthgen.cubes.readers.formats.raw_packed import is_packed, opened, unpacked_size
from synthgen.cubes.readers.layout import Layout
from synthgen.cubes.readers.raw import read_part
from synthgen.cubes.readers.sniff import header_text
from synthgen.cubes.readers.source import Hints, Source, band_counts_of, resolve_wavelengths, wavelength_rank
from synthgen.cubes.units import UNIT_NAMES, UNITS, Listed, in_texts, read_list, stated_list, unit_of
from synthgen.errors import InputError, SynthgenError

logging.getLogger("spectral").setLevel(logging.CRITICAL + 1)  # what SPy reports comes as an InputError

ORDERS = {"bsq": "CHW", "bil": "HCW", "bip": "HWC"}
_TYPES = {1: "u1", 2: "i2", 3: "i4", 4: "f4", 5: "f8", 12: "u2", 13: "u4", 14: "i8", 15: "u8"}
DECLARING = (
    "data gain values", "data offset values", "data reflectance gain values", "data reflectance offset values",
    "reflectance scale factor", "data ignore value",
)  # fmt: skip
_MAX_HEADER, _MAX_LINES = 4 * 2**20, 20_000  # SPy takes the lines off the front of a list


@dataclass(frozen=True)
class Header:
    """What an ENVI header states of its raw file."""

    axes: str
    shape: tuple[int, ...]
    dtype: np.dtype
    offset: int
    wavelengths: Listed | None
    statements: tuple[Statement, ...]  # on gain, offset, scale and no data
    bad_bands: tuple[int, ...]  # from 1, as the header's `bbl` marks them
    packed: bool = False  # by gzip, as `file compression` says
    dialect: str = "ENVI"
    notes: tuple[str, ...] = ()

    @property
    def interleave(self) -> str:
        return next(name for name, axes in ORDERS.items() if axes == self.axes)

    @property
    def stored_bytes(self) -> int:
        return self.offset + prod(self.shape) * self.dtype.itemsize


def open_envi(path: Path, hints: Hints, raw: Path | None = None) -> Source:
    """The image of an ENVI header, its raw file found beside it or given.

    The header's interleave stands; `hints.axes` (CHW, HCW or HWC) is for a header that lacks it.
    """
    with reading(path):
        header = read_header(path, hints.axes)
        raw_file = raw if raw is not None else raw_of(path, header)
        extra = check_raw(raw_file, header)
        band_counts_of(path, hints, header.wavelengths, None)  # wavelengths are there or given
        by_letter = dict(zip(header.axes, header.shape, strict=True))
        layout = Layout(header.axes, header.shape, by_letter["H"], by_letter["W"])
        bands = resolve_wavelengths(path, layout.bands, hints, header.wavelengths)

    def read(i: int) -> np.ndarray:
        with reading(raw_file):
            check_raw(raw_file, header)
            packed = is_packed(raw_file, header.stored_bytes, header.packed)
            with opened(raw_file, packed) as file:
                stored = read_part(file, raw_file, header.offset, header.shape, header.dtype, None)
            return bands.sort(layout.arrange(stored))

    kind = f"{header.dialect} {header.interleave}"
    dtype, name = header.dtype, raw_file.name
    shown = raw if raw is not None else path
    listed = ", ".join(map(str, header.bad_bands[:10]))
    other_axes = hints.axes not in (None, header.axes)
    notes = (f"the header marks bands as bad, which are kept: {listed}",) * bool(header.bad_bands)
    notes += (f"axes {hints.axes} were given and not used: the header says {header.interleave}",) * other_axes
    notes += (f"the raw file goes on for {extra} bytes after the image, which are left out",) * bool(extra)
    notes += header.notes + bands.notes
    return Source(
        shown,
        kind,
        name,
        layout,
        dtype,
        bands.nm,
        bands.origin,
        interpret(header.statements, path, layout.bands, dtype, bands.order),
        read,
        notes=notes,
        order=bands.order,
    )


def read_header(path: Path, axes: str | None = None) -> Header:
    """The header at `path`; InputError where it cannot be read, or states what no image has."""
    fields = _fields(path)
    lowered = {str(key).lower(): value for key, value in fields.items()}

    def whole(name: str, default: int | None = None) -> int:
        text = lowered.get(name)
        if text is None and default is not None:
            return default
        plain = str(text).partition(";")[0].strip()
        try:
            return int(plain.removesuffix(".0") if plain.removesuffix(".0").isdecimal() else plain)
        except ValueError:
            raise InputError(f"ENVI header: '{name}' is no whole number", path=path, found=in_one_line(text)) from None

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
    order, notes = whole("byte order", 0), tuple(fields.get("notes", ()))
    if "byte order" not in lowered and dtype.itemsize > 1:
        notes += ("the header does not state the byte order: little endian was assumed",)
    if order not in (0, 1):
        raise InputError("ENVI byte order is unknown", path=path, found=order, expected="0 (little) or 1 (big)")
    interleave = str(lowered.get("interleave", "")).lower()
    order_of_axes = ORDERS.get(interleave, axes if "interleave" not in lowered else None)
    if order_of_axes is None or order_of_axes not in ORDERS.values():
        expected, remedy = "bsq, bil or bip", "repair the header, or give --axes CHW, HCW or HWC where it has none"
        found = in_one_line(lowered.get("interleave"))
        raise InputError("ENVI interleave is unknown", path=path, found=found, expected=expected, remedy=remedy)
    sizes = {"C": whole("bands"), "H": whole("lines"), "W": whole("samples")}
    shape, offset = tuple(sizes[axis] for axis in order_of_axes), whole("header offset", 0)
    if min(shape) < 1 or prod(shape) > MAX_CUBE_VALUES or not 0 <= offset < 2**62:
        found = f"{sizes['C']} bands, {sizes['H']} lines, {sizes['W']} samples, offset {offset}"
        raise InputError("ENVI header has absurd sizes", path=path, found=found[:200], expected="up to 2**30 values")
    dialect = str(fields.get("dialect", "ENVI"))
    bad, about_bad = _bad_bands(lowered.get("bbl"), sizes["C"])
    return Header(
        axes=order_of_axes,
        shape=shape,
        dtype=dtype.newbyteorder(">" if order else "<"),
        offset=offset,
        wavelengths=_wavelengths(lowered, f"{dialect} header", path),
        statements=tuple(named({k: v for k, v in lowered.items() if k in DECLARING}, f"{dialect} header")),
        bad_bands=bad,
        packed=whole("file compression", 0) != 0,
        dialect=dialect,
        notes=notes + about_bad,
    )


def raw_of(header: Path, read: Header) -> Path:
    """The raw file of a header; InputError when there is none, or several that fit it alike."""
    found = [path for path in raw_candidates(header) if path.is_file()]
    if len(found) > 1:
        found = [path for path in found if path.stat().st_size == read.stored_bytes] or found
    if not found:
        expected = f"{header.stem} or {header.stem}.raw, .img, .dat, .bsq, .bil, .bip, or another ending"
        raise InputError("ENVI header without its raw file", path=header, expected=expected)
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise InputError("ENVI header with several raw files", path=header, found=names, remedy="name the raw file")
    return found[0]


def check_raw(raw: Path, header: Header) -> int:
    """Bytes of the raw file after the image, fewer than one line of samples has.

    InputError when the file is shorter than its header says, or longer by more: then the header describes another
    image, and bands or lines would be read from the wrong places. A packed file counts unpacked.
    """
    line = header.shape[header.axes.index("W")] * header.dtype.itemsize
    packed = is_packed(raw, header.stored_bytes, header.packed)
    size = unpacked_size(raw, header.stored_bytes, line) if packed else raw.stat().st_size
    extra = size - header.stored_bytes
    if 0 <= extra < line:
        return extra
    shape = " x ".join(f"{n} {'bands' if a == 'C' else a}" for a, n in zip(header.axes, header.shape, strict=True))
    raise InputError(
        f"ENVI raw file is {'shorter' if extra < 0 else 'longer'} than its header says",
        path=raw,
        found=f"{size} bytes unpacked" if packed else f"{size} bytes",
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
    text = header_text(data)
    if is_esri_header(text):
        return esri_fields(text, path)
    for letter, plain in _PLAIN.items():
        text = text.replace(letter, plain)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    first = next((k for k, line in enumerate(lines) if line.lower() == "envi"), 0)  # behind comments
    plain = "\n".join(["ENVI", *lines[first + 1 :]])
    with tempfile.TemporaryFile() as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SPy warns of keys with capitals
        file.write(plain.encode("ascii", "replace"))
        file.seek(0)
        try:
            fields = spy.read_envi_header(os.dup(file.fileno()))  # it closes what it opens
        except SynthgenError:
            raise
        except Exception as error:  # SPy's errors have no common base
            found, remedy = in_one_line(error), "repair the header: one 'key = value' per line, lists in braces"
            raise InputError("ENVI header cannot be read", path=path, found=found, remedy=remedy) from error
    missing = [name for name in ("samples", "lines", "bands", "data type") if name not in map(str.lower, fields)]
    if missing:
        raise InputError("ENVI header is incomplete", path=path, expected=", ".join(f"'{name}'" for name in missing))
    return fields


_PLAIN = {"\xb5": "u", "\u03bc": "u", "\xc5": "A", "\u212b": "A", "\xf6": "o", "\u207b\xb9": "-1"}


def _wavelengths(fields: dict[str, Any], where: str, path: Path) -> Listed | None:
    """The wavelengths as the header lists them, or in the names of its bands; None where there are none."""
    plain = {key.replace(" ", "_"): value for key, value in fields.items()}
    words = {key: _joined(plain[key]) for key in UNIT_NAMES if key in plain}
    stated = next((text for key, text in words.items() if "_" in key or unit_of(text) in UNITS), "")
    for _, key in sorted((rank[0], k) for k in plain if (rank := wavelength_rank(k))):
        if (listed := read_list(plain[key])) is not None:
            widths = read_list(plain.get("fwhm", ""))
            fwhm = widths[0] if widths is not None and not widths[1] else None
            return stated_list(listed[0], where, (stated, listed[1], (wavelength_rank(key) or (0, ""))[1]), path, fwhm)
    names = plain.get("band_names")
    return in_texts(names, f"{where}, band names") if isinstance(names, list) else None


def _joined(value: str | list[str]) -> str:
    return value.strip("{} ") if isinstance(value, str) else " ".join(value)


def _bad_bands(listed: object, bands: int) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Places from 1 that `bbl` marks with zero, written as whole or decimal numbers, parted by commas or blanks."""
    found = read_list(listed) if isinstance(listed, str | list) else None
    if listed is None or (found is not None and found[0].size == bands):
        return () if found is None else tuple(int(k) + 1 for k in np.flatnonzero(found[0] == 0)), ()
    shown = f"{found[0].size} marks for {bands} bands" if found is not None else "no list of numbers"
    return (), (f"the header's list of bad bands (bbl) was not used: {shown}",)
