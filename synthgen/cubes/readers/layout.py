"""Which axis of an external array is which: their order, detected from the number of bands or given by the user."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from math import isqrt
from pathlib import Path

import numpy as np

from synthgen.errors import InputError

# Orders looked for, by number of axes: N cubes, C bands, H rows, W columns, P pixels (MATLAB column order).
ARRAY_ORDERS = {3: ("CHW", "HWC"), 4: ("NCHW", "NHWC")}
UNUSUAL_ORDERS = {3: ("HCW",), 4: ("NHCW",)}  # line by line, as some satellites' files: looked for where no other fits
MATLAB_ORDERS = {2: ("CP", "PC"), 3: ("HWC", "CHW"), 4: ("HWCN", "NCHW", "NHWC")}


@dataclass(frozen=True)
class Layout:
    """Axis order of a stored array, one letter per axis, with the image size behind a pixel axis."""

    axes: str
    shape: tuple[int, ...]
    rows: int
    columns: int

    @property
    def count(self) -> int:
        return self.shape[self.axes.index("N")] if "N" in self.axes else 1

    @property
    def bands(self) -> int:
        return self.shape[self.axes.index("C")]

    def selection(self, i: int) -> tuple:
        """The index expression that takes cube `i` out of the stored array."""
        return tuple(i if axis == "N" else slice(None) for axis in self.axes)

    def arrange(self, cube: np.ndarray) -> np.ndarray:
        """A stored cube (taken with `selection`) as [C, H, W]."""
        axes = self.axes.replace("N", "")
        if "P" in axes:
            flat = cube if axes == "CP" else cube.T
            return flat.reshape(self.bands, self.columns, self.rows).transpose(0, 2, 1)
        return cube.transpose([axes.index(axis) for axis in "CHW"])


def possible_layouts(
    shape: tuple[int, ...],
    band_counts: Collection[int],
    orders: dict[int, tuple[str, ...]],
    image: tuple[int, int] | None = None,
    backwards: bool = False,
) -> list[Layout]:
    """Every order in which an array of this shape can hold cubes of one of `band_counts` bands.

    `image` gives rows and columns of a pixel axis (else it must be square); `backwards` reverses the axes, as HDF5 does
    with the arrays of MATLAB.
    """
    found = []
    for axes in orders.get(len(shape), ()):
        layout = make_layout(axes, shape, image, backwards)
        if layout is not None and layout.bands in band_counts:
            found.append(layout)
    return found


def make_layout(
    axes: str, shape: tuple[int, ...], image: tuple[int, int] | None = None, backwards: bool = False
) -> Layout | None:
    """The layout of an array in the given order, or None where the shape cannot have it."""
    stored = axes[::-1] if backwards else axes
    if len(stored) != len(shape) or 0 in shape:
        return None
    if "P" not in stored:
        return Layout(stored, tuple(shape), shape[stored.index("H")], shape[stored.index("W")])
    pixels = shape[stored.index("P")]
    rows, columns = image if image is not None else (isqrt(pixels), isqrt(pixels))
    return Layout(stored, tuple(shape), rows, columns) if rows * columns == pixels and pixels > 1 else None


def choose_layout(
    shape: tuple[int, ...],
    band_counts: Collection[int],
    orders: dict[int, tuple[str, ...]],
    path: Path,
    given: str | None = None,
    image: tuple[int, int] | None = None,
    backwards: bool = False,
) -> Layout:
    """The one layout of the array; InputError when none or several fit and the user has given none."""
    if given is not None:
        layout = make_layout(given, shape, image, backwards) if set(given) <= set("NCHWP") else None
        if layout is None:
            raise InputError(f"axes '{given}' do not fit the array", path=path, found=f"shape {shape}")
        return layout
    unusual = possible_layouts(shape, band_counts, UNUSUAL_ORDERS, image, backwards)
    layouts = possible_layouts(shape, band_counts, orders, image, backwards) or unusual
    if not layouts:
        expected = " or ".join(str(n) for n in sorted(band_counts))
        raise InputError(
            "wrong number of bands",
            path=path,
            found=f"an array of shape {shape}",
            expected=f"an axis of {expected} bands, one per wavelength",
            remedy="give one wavelength per band with --source-wavelengths, name the array with --variable, or the "
            "order of its axes with --axes (HCW: rows, bands, columns)",
        )
    if len(layouts) > 1:
        shown = " or ".join(layout.axes[::-1] if backwards else layout.axes for layout in layouts + unusual)
        remedy = f"give --axes {shown}"
        raise InputError("the order of axes is ambiguous", path=path, found=f"shape {shape}", remedy=remedy)
    return layouts[0]
