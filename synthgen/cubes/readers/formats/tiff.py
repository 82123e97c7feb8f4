"""TIFF, BigTIFF and OME-TIFF, by tifffile: one cube in the pages of a file, or several."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from synthgen.cubes.cohort.hdf5 import MAX_CUBE_VALUES, MAX_PACKING, in_one_line
from synthgen.cubes.readers.calibration import interpret
from synthgen.cubes.readers.declarations import Statement
from synthgen.cubes.readers.formats.tiff_declared import tiff_statements
from synthgen.cubes.readers.formats.tiff_metadata import clean_ome, tiff_wavelengths
from synthgen.cubes.readers.layout import ARRAY_ORDERS, UNUSUAL_ORDERS, Layout, make_layout, possible_layouts
from synthgen.cubes.readers.raw import read_part
from synthgen.cubes.readers.source import Hints, Source, band_counts_of, check_size, native, resolve_wavelengths
from synthgen.cubes.units import Listed
from synthgen.errors import InputError, SynthgenError

_MAX_PAGES = 200_000
# Kinds whose pages tifffile arranges. The kinds of microscope makers, some of which lie in several files, are read as
# the plain pages that they are.
_KINDS = ("ome", "imagej", "shaped", "uniform", "multipage", "frame")
_NO_VENDORS: dict[str, Any] = {f"is_{kind}": False for kind in tifffile.TIFF.FILE_FLAGS if kind not in _KINDS}

tifffile.logger().setLevel(logging.CRITICAL + 1)  # what it reports of a damaged file comes as an InputError


@dataclass(frozen=True)
class Stack:
    """Series of a TIFF file, of one shape and type, that hold cubes or bands: `axes` by tifffile's letters."""

    series: tuple[int, ...]
    shape: tuple[int, ...]  # of one series, without axes of length 1
    axes: str
    dtype: np.dtype
    where: str

    @property
    def full_shape(self) -> tuple[int, ...]:
        return self.shape if len(self.series) == 1 else (len(self.series), *self.shape)


def open_tiff(path: Path, hints: Hints) -> Source:
    """A TIFF file: bands as pages, channels or samples; several cubes as a further axis or as further series.

    Wavelengths from OME-XML, a JSON description with `wavelengths_nm`, GDAL's metadata, or the labels of the pages.
    """
    with _tiff(path) as file:
        stacks = _stacks(file, path)
        found = tiff_wavelengths(file, path)
        notes = ("the file says that 0 is white; values are taken as they are stored",) * _white_is_zero(file)
        kind = "OME-TIFF" if file.is_ome else "BigTIFF" if file.is_bigtiff else "TIFF"
    counts = band_counts_of(path, hints, found, None)
    stack, layout = _choose(stacks, path, hints, counts)
    check_size(layout, path)
    bands = resolve_wavelengths(path, layout.bands, hints, found)
    declared = interpret(statements_of(path, layout.bands), path, layout.bands, stack.dtype, bands.order)
    read = lambda i: bands.sort(_read(path, stack, layout, i))
    return Source(
        path, kind, stack.where, layout, stack.dtype, bands.nm, bands.origin, declared, read,
        notes=notes + bands.notes, order=bands.order,
    )  # fmt: skip


def statements_of(path: Path, bands: int) -> list[Statement]:
    """What a TIFF file of so many bands declares of its numbers."""
    with _tiff(path) as file:
        return tiff_statements(file, bands, path)


def list_tiff(path: Path) -> tuple[dict[str, tuple[tuple[int, ...], np.dtype, str]], Listed | None]:
    """Of every stack of pages its shape, type and axes; and the wavelengths that the file gives."""
    with _tiff(path) as file:
        stacks = {s.where: (s.full_shape, s.dtype, s.axes) for s in _stacks(file, path)}
        return stacks, tiff_wavelengths(file, path)


def is_plane(path: Path) -> bool:
    """Whether the file holds a single page of a single band; False for one that cannot be read."""
    try:
        with _tiff(path) as file:
            page = file.pages.first
            return len(file.pages) == 1 and page.samplesperpixel == 1 and page.imagedepth == 1 and _planar(file)
    except InputError:
        return False


def planes_of(path: Path) -> int:
    """Pages, or samples of a single page; InputError where the file cannot be read."""
    with _tiff(path) as file:
        page = file.pages.first
        return len(file.pages) if len(file.pages) > 1 else int(page.samplesperpixel) * int(page.imagedepth)


def is_colour(path: Path) -> bool:
    """Whether the file is a single picture in colours: RGB or a palette, 8 or 16 bit, with or without alpha."""
    try:
        with _tiff(path) as file:
            page = file.pages.first
            colours = page.photometric in (tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.PALETTE, _YCBCR)
            return colours and len(file.pages) == 1 and page.samplesperpixel <= 4
    except InputError:
        return False


_YCBCR = tifffile.PHOTOMETRIC.YCBCR


def _planar(file: tifffile.TiffFile) -> bool:
    """Whether the file's metadata do not say that more planes follow the first without pages of their own."""
    series = file.series[0]
    return sum(n > 1 for n in series.get_shape(False)) <= 2


def plane_header(path: Path) -> tuple[tuple[int, int], np.dtype]:
    """Rows and columns, and the type, of the one plane of a TIFF file."""
    with _tiff(path) as file:
        return _plane(file, path)[1:]


def read_plane(path: Path) -> np.ndarray:
    """The one plane [H, W] of a TIFF file."""
    with _tiff(path) as file:
        page, shape, _ = _plane(file, path)
        return native(page.asarray().reshape(shape))


def _plane(file: tifffile.TiffFile, path: Path) -> tuple[tifffile.TiffPage, tuple[int, int], np.dtype]:
    page = file.pages.first
    shape, dtype = (int(page.imagelength), int(page.imagewidth)), _dtype(page.dtype, file, path)
    if len(file.pages) != 1 or page.samplesperpixel != 1 or page.imagedepth != 1:
        raise InputError("is no picture of one band", path=path, found=f"{len(file.pages)} pages of {page.shape}")
    _check_pages([page], shape, dtype, path)
    return page, shape, dtype


def _white_is_zero(file: tifffile.TiffFile) -> bool:
    return file.pages.first.photometric == tifffile.PHOTOMETRIC.MINISWHITE


def _stacks(file: tifffile.TiffFile, path: Path) -> list[Stack]:
    """What the series of the file can be: alone, or those of one kind together."""
    alone = []
    for k, series in enumerate(file.series):
        shape, axes = series.get_shape(False), series.get_axes(False)
        kept = [(n, a) for n, a in zip(shape, axes, strict=True) if n != 1 or a in "YX"]
        reduced = getattr(series.keyframe, "is_reduced", False)
        if series.dtype is not None and series.dtype.kind in "uif" and not reduced and min(shape) > 0:
            dtype = _dtype(series.dtype, file, path)
            alone.append(Stack((k,), tuple(n for n, _ in kept), "".join(a for _, a in kept), dtype, f"series {k}"))
    alike: dict[tuple, list[Stack]] = {}
    for stack in alone:
        alike.setdefault((stack.shape, stack.axes, stack.dtype), []).append(stack)
    together = [
        Stack(tuple(s.series[0] for s in group), shape, axes, dtype, f"{len(group)} series")
        for (shape, axes, dtype), group in alike.items()
        if len(group) > 1
    ]
    return together + alone


def _choose(stacks: list[Stack], path: Path, hints: Hints, counts: set[int]) -> tuple[Stack, Layout]:
    """The stack that holds the cubes, with its layout: given, or the largest that fits."""
    shown = ", ".join(f"{s.where} {s.axes} {s.full_shape}" for s in stacks[:6]) or "nothing"
    if hints.variable is not None:
        stacks = [s for s in stacks if s.where == hints.variable]
        if not stacks:
            raise InputError(f"no '{hints.variable}'", path=path, found=shown)
    if not stacks:
        raise InputError("holds no pages of numbers", path=path, expected="whole or real numbers")
    if not any(len(s.full_shape) > 2 for s in stacks):
        remedy = "name the folder that holds one picture per band"
        raise InputError("holds a single plane", path=path, found=shown, expected="a page per band", remedy=remedy)
    fitting = [(s, layout) for s in stacks if (layout := _layout(s, counts, hints.axes)) is not None]
    if not fitting and hints.axes is not None:
        raise InputError(f"axes '{hints.axes}' do not fit the pages", path=path, found=shown)
    if not fitting:
        raise InputError(
            "wrong number of bands",
            path=path,
            found=shown,
            expected=f"{' or '.join(map(str, sorted(counts)))} pages or samples, one per wavelength",
            remedy="give one wavelength per band with --source-wavelengths, or give --axes (as CHW or NCHW)",
        )
    return max(fitting, key=lambda found: prod(found[0].full_shape))


def _layout(stack: Stack, counts: set[int], given: str | None) -> Layout | None:
    """How a stack holds cubes of one of `counts` bands, or None.

    Rows and columns are known by tifffile's letters Y and X; the bands are the axis of channels (C), samples (S), or
    the one whose length fits.
    """
    shape, axes = stack.full_shape, stack.axes if len(stack.series) == 1 else "?" + stack.axes
    if given is not None:
        return make_layout(given, shape) if set(given) <= set("NCHW") else None
    others = [k for k, axis in enumerate(axes) if axis not in "YX"]
    fitting = [k for k in others if shape[k] in counts]
    if fitting and {"Y", "X"} <= set(axes) and len(others) <= 2:
        band = next((k for letter in "CS" for k in fitting if axes[k] == letter), fitting[-1])
        letters = "".join("C" if k == band else {"Y": "H", "X": "W"}.get(a, "N") for k, a in enumerate(axes))
        pages_in_colour = "S" in axes and letters[axes.index("S")] == "N"
        return make_layout(letters, shape) if letters.count("N") < 2 and not pages_in_colour else None
    if "Q" in axes:  # an array stored without the names of its axes
        layouts = possible_layouts(shape, counts, ARRAY_ORDERS) or possible_layouts(shape, counts, UNUSUAL_ORDERS)
        return layouts[0] if len(layouts) == 1 else None
    return None


def _read(path: Path, stack: Stack, layout: Layout, i: int) -> np.ndarray:
    """Cube `i` [C, H, W]: only its own pages are decoded."""
    with _tiff(path) as file:
        if stack not in _stacks(file, path):
            raise InputError("the file has changed since it was opened", path=path)
        if len(stack.series) == 1:
            axis = layout.axes.index("N") if "N" in layout.axes else None
            return layout.arrange(_read_series(file, path, stack, stack.series[0], axis, i))
        if layout.axes[0] == "N":
            return layout.arrange(_read_series(file, path, stack, stack.series[i], None, 0))
        axis = layout.axes.index("N") - 1 if "N" in layout.axes else None
        parts = [_read_series(file, path, stack, k, axis, i) for k in stack.series]
        return layout.arrange(np.stack(parts))


def _read_series(file: tifffile.TiffFile, path: Path, stack: Stack, k: int, axis: int | None, index: int) -> np.ndarray:
    """Of one series all, or the part with `index` along `axis` of its shape."""
    series, shape = file.series[k], stack.shape
    if series.dataoffset is not None:
        with open(path, "rb") as raw:
            return read_part(raw, path, series.dataoffset, shape, stack.dtype, axis, index)
    page_shape = tuple(n for n in series.keyframe.shape if n != 1)
    page_shape = page_shape if len(page_shape) >= 2 else tuple(series.keyframe.shape)
    lead = shape[: len(shape) - len(page_shape)]
    pages = [page for page in series.pages if page is not None]
    if shape[len(lead) :] != page_shape or len(pages) != prod(lead):
        found = f"{len(pages)} pages of {page_shape} for {shape}"
        raise InputError("TIFF pages do not fit what the file says of them", path=path, found=found)
    numbers = np.arange(prod(lead)).reshape(lead)
    in_page = None if axis is None or axis < len(lead) else axis - len(lead)
    if axis is not None and in_page is None:
        numbers = numbers.take(index, axis)
    wanted = [pages[n] for n in numbers.ravel()]
    _check_pages(wanted, page_shape, stack.dtype, path)
    out_page = tuple(n for a, n in enumerate(page_shape) if a != in_page)
    out = np.empty((len(wanted), *out_page), stack.dtype.newbyteorder("="))
    for slot, page in zip(out, wanted, strict=True):
        values = page.asarray().reshape(page_shape)
        slot[...] = values if in_page is None else values.take(index, in_page)
    return out.reshape(numbers.shape + out_page)


def _check_pages(pages: list, shape: tuple[int, ...], dtype: np.dtype, path: Path) -> None:
    """InputError when pages are cut off, or declare far more than their bytes can hold."""
    size = path.stat().st_size
    stored = 0
    for page in pages:
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
            if offset < 0 or count < 0 or offset + count > size:
                found = f"{count} bytes at byte {offset} of {size}"
                raise InputError("TIFF file is truncated or damaged", path=path, found=found)
            stored += count
    values = prod(shape) * len(pages)
    if values > MAX_CUBE_VALUES or values * dtype.itemsize > max(stored, 64) * MAX_PACKING:
        found = f"{len(pages)} pages of {shape} in {stored} bytes"
        raise InputError("declares more data than the file holds", path=path, found=found)


def _dtype(dtype: np.dtype | None, file: tifffile.TiffFile, path: Path) -> np.dtype:
    """The type with the byte order of the file, which holds for uncompressed pages."""
    if dtype is None or dtype.kind not in "uif":
        raise InputError(
            "TIFF type of numbers cannot be read", path=path, found=dtype, expected="whole or real numbers"
        )
    return dtype.newbyteorder(file.byteorder)


@contextmanager
def _tiff(path: Path) -> Iterator[tifffile.TiffFile]:
    """The open file; whatever tifffile and its codecs raise becomes an InputError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with tifffile.TiffFile(path, _multifile=False, **_NO_VENDORS) as plain:
                if not len(plain.pages) or len(plain.pages) > _MAX_PAGES:
                    raise InputError("TIFF file is damaged", path=path, found=f"{len(plain.pages)} pages")
                if not plain.is_ome:
                    yield plain
                    return
                cleaned = clean_ome(plain.ome_metadata or "", len(plain.pages), path)
            with tifffile.TiffFile(path, _multifile=False, omexml=cleaned, **_NO_VENDORS) as file:
                yield file
    except SynthgenError:
        raise
    except PermissionError as error:
        raise InputError("no permission to read", path=path) from error
    except Exception as error:
        found = f"{type(error).__name__} {in_one_line(error)}".replace(str(path), "")
        raise InputError("TIFF file cannot be read; it is damaged", path=path, found=found, remedy=_AGAIN) from error


_AGAIN = "copy the file again, or save it again as plain TIFF"
