"""A source of raw cubes: what a reader returns, and how it finds the array and the wavelengths in a foreign file."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from synthgen.cubes.cohort.hdf5 import MAX_CUBE_VALUES
from synthgen.cubes.readers.layout import Layout, choose_layout, possible_layouts
from synthgen.cubes.wavelengths import checked
from synthgen.errors import ConfigError, InputError

WAVELENGTH_NAMES = ("wavelengths_nm", "wavelengths", "wavelength", "wavelength_nm", "lambda", "wl")
SELECTION_NAMES = ("slectbands", "selectbands", "selectedbands", "selected_bands")  # 1-based, into the original bands
SHORTEST_NM = 30  # no camera sees less: numbers below are micrometres
FULL_SCALE_NAMES = ("maxvalue", "max_value")


@dataclass(frozen=True)
class Hints:
    """What the user says of the files: name of the array, order of its axes, wavelengths in nm."""

    variable: str | None = None
    axes: str | None = None
    wavelengths: tuple[float, ...] | None = None


def told_hints(
    variable: str | None = None, axes: str | None = None, wavelengths: tuple[float, ...] | None = None
) -> Hints:
    """Hints as a user gives them, axes in any case; ConfigError for axes that no cube has and wavelengths not in nm."""
    axes = axes.upper() if axes else None
    if axes is not None and "".join(sorted(axes)) not in _AXES:
        expected = "C, H and W in the order of the file, as CHW or HWC, with N where it holds several cubes; or CP, PC"
        raise ConfigError("'axes' names no order of axes", found=axes, expected=expected)
    if wavelengths and wavelengths[0] < SHORTEST_NM:
        remedy = "give them in nm (1 micrometre is 1000 nm)"
        raise ConfigError("'source_wavelengths' are too short for nm", found=f"{wavelengths[0]:g}", remedy=remedy)
    return Hints(variable, axes, wavelengths)


_AXES = ("CHW", "CHNW", "CP", "CNP")  # in order of the alphabet


@dataclass(frozen=True, eq=False)
class Source:
    """A file of N raw cubes. `read(i)` gives cube i as [C, H, W] in the file's own numbers, `masks(i)` its masks."""

    path: Path
    format: str
    variable: str
    layout: Layout
    dtype: np.dtype
    wavelengths: tuple[float, ...]
    wavelengths_from: str
    full_scale: float | None  # the file's own value of reflectance 1
    read: Callable[[int], np.ndarray]
    masks: Callable[[int], dict[str, np.ndarray]] | None = None
    patient_id: np.ndarray | None = None
    eye: np.ndarray | None = None
    visit: np.ndarray | None = None
    label: np.ndarray | None = None
    ignored: float | None = None  # the number that stands for "no data"; `read` gives floats with NaN there
    notes: tuple[str, ...] = ()  # what the user should know of the file, one clause each
    order: np.ndarray | None = None  # int [C]: the file's band at each place of `read`; None where it is the same

    @property
    def byte_order(self) -> str:
        """little, big, or none for single bytes."""
        return byte_order_of(self.dtype)


def check_size(layout: Layout, path: Path) -> None:
    """InputError for a cube of more values than fit into memory."""
    if layout.bands * layout.rows * layout.columns > MAX_CUBE_VALUES:
        raise InputError("a cube is too large", path=path, found=f"shape {layout.shape}", expected="up to 2**30 values")


def choose_variable(
    variables: dict[str, tuple[tuple[int, ...], np.dtype]],
    path: Path,
    hints: Hints,
    band_counts: set[int],
    orders: dict[int, tuple[str, ...]],
    image: tuple[int, int] | None = None,
    backwards: bool = False,
) -> tuple[str, Layout]:
    """The array that holds the cubes, told or found: numeric, of 3 or 4 axes rather than 2, the largest that fits."""
    numeric = {n: s for n, (s, dtype) in variables.items() if dtype.kind in "uif" and len(s) in orders and 0 not in s}
    shown = ", ".join(f"{n} {s}" for n, (s, _) in list(variables.items())[:8]) or "nothing"
    if hints.variable is not None:
        if hints.variable not in numeric:
            raise InputError(f"no array '{hints.variable}' of 2 to 4 axes", path=path, found=shown)
        fitting = [hints.variable]
    else:
        fitting = [n for n, s in numeric.items() if possible_layouts(s, band_counts, orders, image, backwards)]
        if not fitting:  # the largest, so that the error names the right one
            fitting = sorted(numeric, key=lambda n: np.prod(numeric[n], dtype=float))[-1:]
        if not fitting:
            raise InputError("no array that could hold cubes", path=path, found=shown, expected="3 or 4 axes, numbers")
        rank = {n: (len(numeric[n]) > 2, float(np.prod(numeric[n], dtype=float))) for n in fitting}
        best = max(rank.values())
        fitting = [n for n in fitting if rank[n] == best]
        if len(fitting) > 1:
            found = ", ".join(fitting)
            raise InputError(
                "several arrays could hold the cubes", path=path, found=found, remedy="choose with --variable"
            )
    name = fitting[0]
    layout = choose_layout(numeric[name], band_counts, orders, path, hints.axes, image, backwards)
    check_size(layout, path)
    return name, layout


def band_counts_of(path: Path, hints: Hints, found: np.ndarray | None, selection: np.ndarray | None) -> set[int]:
    """The numbers of bands that the cubes may have; InputError when no wavelengths are known at all."""
    told = hints.wavelengths if hints.wavelengths is not None else found
    if told is None:
        raise InputError(
            "wavelengths absent",
            path=path,
            expected="wavelengths in the file, or told",
            remedy="give --source-wavelengths start:stop:step or a list, in nm, one per band",
        )
    counts = {np.size(told)}
    return counts if selection is None else counts | {selection.size}


@dataclass(frozen=True, eq=False)
class Bands:
    """The bands of a source: wavelengths in nm, increasing, where they come from, and the file's order if another."""

    nm: tuple[float, ...]
    origin: str
    order: np.ndarray | None = None

    def sort(self, cube: np.ndarray) -> np.ndarray:
        """A cube [C, H, W] with its bands as stored, in order of wavelength."""
        return cube if self.order is None else cube[self.order]


def resolve_wavelengths(
    path: Path,
    bands: int,
    hints: Hints,
    found: np.ndarray | None,
    selection: np.ndarray | None = None,
    where: str = "file",
) -> Bands:
    """Wavelengths of the `bands` bands and where they come from; told ones win over the file's.

    A list is one per band of the file, or one per original band where the file tells which of them it kept. Wavelengths
    that the file gives in another order than increasing are sorted; told ones must increase.
    """
    values, origin = (hints.wavelengths, "told") if hints.wavelengths is not None else (found, where)
    values = np.asarray(values, dtype=np.float64).ravel()
    by_file = origin != "told"
    if by_file and values.size and np.nanmax(values) < SHORTEST_NM:
        values, origin = values * 1000, f"{origin}, micrometres"
    if len(values) != bands and selection is not None and selection.size == bands:
        chosen = selection.astype(np.int64) - 1
        if chosen.min() >= 0 and chosen.max() < len(values):
            values, origin, by_file = values[chosen], f"{origin}, {bands} selected of {len(values)}", True
    if len(values) != bands:
        raise InputError(
            "wrong number of wavelengths",
            path=path,
            found=len(values),
            expected=f"{bands}, one per band",
            remedy="give one wavelength per band with --source-wavelengths",
        )
    order = np.argsort(values, kind="stable") if by_file else np.arange(bands)
    ordered = values[order]
    same = np.flatnonzero(np.diff(ordered) == 0)
    if by_file and same.size:
        first, second = (int(order[same[0] + k]) + 1 for k in (0, 1))
        found_bands = f"{ordered[same[0]]:g} nm at bands {first} and {second}"
        raise InputError("two bands have the same wavelength", path=path, found=found_bands, remedy=_TELL)
    if np.array_equal(order, np.arange(bands)):
        return Bands(checked(ordered, path), origin)
    return Bands(checked(ordered, path), f"{origin}, sorted", order)


_TELL = "mend the file, or give the true wavelengths with --source-wavelengths"


def byte_order_of(dtype: np.dtype) -> str:
    """little, big, or none for single bytes."""
    return {"<": "little", ">": "big", "|": "none"}.get(dtype.byteorder, sys.byteorder)


def native(array: np.ndarray) -> np.ndarray:
    """The same numbers in this machine's byte order, in place where the array is ours."""
    if array.dtype.isnative:
        return array
    swapped = array.byteswap(inplace=array.flags.writeable)
    return swapped.view(swapped.dtype.newbyteorder())
