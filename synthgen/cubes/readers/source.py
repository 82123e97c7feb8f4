"""A source of raw cubes: what a reader returns, and how it finds the array and the wavelengths in an external file."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from synthgen.cubes.cohort.hdf5 import MAX_CUBE_VALUES
from synthgen.cubes.readers.declared import Declared
from synthgen.cubes.readers.layout import UNUSUAL_ORDERS, Layout, choose_layout, possible_layouts
from synthgen.cubes.units import Listed, absent, given_nm, given_unit, in_nm, name_unit, split_unit
from synthgen.cubes.wavelengths import checked, parse_list
from synthgen.errors import ConfigError, InputError

# By what a list of wavelengths is called, without the unit at the end and its s; names that come first win.
_NAMES = (
    "wavelength", "lambda", "wl", "wvl", "wave", "center_wavelength", "centre_wavelength", "central_wavelength",
    "wavelength_center", "wavelength_centre", "centerwavelength", "band_center", "band_centre", "band_wavelength",
    "bandcenter", "wavenumber",
)  # fmt: skip
_ONLY_WITH_UNIT = (
    "band",
    "center",
    "centre",
    "frequency",
    "frequencie",
)  # as `bands_nm`; alone they name no wavelength
SELECTION_NAMES = ("slectbands", "selectbands", "selectedbands", "selected_bands")  # 1-based, into the original bands


@dataclass(frozen=True)
class Hints:
    """What the user gives for the files: array, order of its axes, wavelengths in nm, or the unit of the files' own."""

    variable: str | None = None
    axes: str | None = None
    wavelengths: tuple[float, ...] | None = None
    unit: str | None = None  # one of `units.UNITS`; overrides what the file states


# What the user gives a reader for a file that does not state it.
GivenWavelengths = Annotated[str | None, Field(description="as for ingest: 400:1000:5 or a list")]
GivenUnit = Annotated[str | None, Field(description="their unit, as for ingest: nm, um, Angstrom, cm-1 ...")]
GivenVariable = Annotated[str | None, Field(description="name of the array in a .mat or .h5 file")]
GivenAxes = Annotated[str | None, Field(description="axis order where it is not clear: chw, hwc, hcw, nchw, nhwc")]
GivenScale = Annotated[float | None, Field(description="value that means reflectance 1")]


def given_hints(
    variable: str | None = None,
    axes: str | None = None,
    wavelengths: str | Sequence[float] | None = None,
    unit: str | None = None,
) -> Hints:
    """Hints as a user gives them: axes in any case, wavelengths as numbers or text, their unit at its end or apart.

    A given unit holds for the wavelengths that are given, else for those of the files. ConfigError or InputError
    for axes that no cube has, wavelengths that are no plausible nm without a unit, neither increase nor decrease, and
    two units that differ.
    """
    axes = axes.upper() if axes else None
    if axes is not None and "".join(sorted(axes)) not in _AXES:
        expected = "C, H and W in the order of the file, as CHW or HWC, with N where it holds several cubes; or CP, PC"
        raise ConfigError("'axes' names no order of axes", found=axes, expected=expected)
    numbers, unit = given_list(wavelengths, unit)
    if numbers is None:
        return Hints(variable, axes, None, unit)
    nm = given_nm(numbers, unit)
    falling = len(nm) > 1 and nm[0] > nm[-1]
    nm = checked(nm[::-1] if falling else nm)
    return Hints(variable, axes, nm[::-1] if falling else nm, unit)


def given_list(
    wavelengths: str | Sequence[float] | None, unit: str | None
) -> tuple[tuple[float, ...] | None, str | None]:
    """Wavelengths as a user gives them, as numbers in the unit that is given with them (or apart from them)."""
    given = given_unit(unit)
    if not isinstance(wavelengths, str):
        return None if wavelengths is None else tuple(map(float, wavelengths)), given
    text, behind = split_unit(wavelengths)
    if None not in (given, behind) and given != behind:
        raise ConfigError("the unit of the wavelengths is given twice", found=f"{behind} and {given}")
    return parse_list(text), behind or given


_AXES = ("CHW", "CHNW", "CP", "CNP")  # in order of the alphabet


@dataclass(frozen=True, eq=False)
class Source:
    """A file of N raw cubes. `read(i)` gives cube i as [C, H, W] as it is stored, `masks(i)` its masks.

    `declared.values(read(i))` are the values that the stored numbers stand for.
    """

    path: Path
    format: str
    variable: str
    layout: Layout
    dtype: np.dtype
    wavelengths: tuple[float, ...]
    wavelengths_from: str
    declared: Declared  # what the file states of its numbers: gain, offset, scale, no data
    read: Callable[[int], np.ndarray]
    masks: Callable[[int], dict[str, np.ndarray]] | None = None
    patient_id: np.ndarray | None = None
    eye: np.ndarray | None = None
    visit: np.ndarray | None = None
    label: np.ndarray | None = None
    notes: tuple[str, ...] = ()  # what the user should know of the file, one clause each
    order: np.ndarray | None = None  # int [C]: the file's band at each place of `read`; None where it is the same

    @property
    def full_scale(self) -> float | None:
        """The file's own value of reflectance 1."""
        return self.declared.full_scale

    @property
    def ignored(self) -> float | None:
        """The stored number that stands for "no data", the first where there are several."""
        return float(self.declared.no_data[0][0]) if self.declared.no_data else None

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
    """The array that holds the cubes, given or detected: numeric, of 3 or 4 axes before 2, the largest that fits."""
    numeric = {n: s for n, (s, dtype) in variables.items() if dtype.kind in "uif" and len(s) in orders and 0 not in s}
    shown = ", ".join(f"{n} {s}" for n, (s, _) in list(variables.items())[:8]) or "nothing"
    if hints.variable is not None:
        if hints.variable not in numeric:
            raise InputError(f"no array '{hints.variable}' of 2 to 4 axes", path=path, found=shown)
        fitting = [hints.variable]
    else:
        for kind in (orders, UNUSUAL_ORDERS):
            fitting = [n for n, s in numeric.items() if possible_layouts(s, band_counts, kind, image, backwards)]
            if fitting:
                break
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


def wavelength_rank(name: str) -> tuple[int, str] | None:
    """How well a name states that wavelengths are under it (0 is best), and the unit in it; None for another name."""
    stem, unit = name_unit(name.rsplit("/", 1)[-1])
    stem = stem.removesuffix("s")
    if stem in _NAMES:
        return 2 * _NAMES.index(stem) + (not unit), unit or ("cm-1" if stem == "wavenumber" else "")
    return (2 * len(_NAMES), unit) if unit and stem in _ONLY_WITH_UNIT else None


def band_counts_of(path: Path, hints: Hints, found: Listed | None, selection: np.ndarray | None) -> set[int]:
    """The numbers of bands that the cubes may have; InputError when no wavelengths are known at all."""
    if hints.wavelengths is None and (found is None or found.are_band_numbers(hints.unit)):
        raise absent(path, found)
    counts = {len(hints.wavelengths) if hints.wavelengths is not None else found.size}  # pyright: ignore
    return counts if selection is None else counts | {selection.size}


@dataclass(frozen=True, eq=False)
class Bands:
    """The bands of a source: wavelengths in nm, increasing, where they come from, and the file's order if another."""

    nm: tuple[float, ...]
    origin: str
    order: np.ndarray | None = None
    notes: tuple[str, ...] = ()

    def sort(self, cube: np.ndarray) -> np.ndarray:
        """A cube [C, H, W] with its bands as stored, in order of wavelength."""
        return cube if self.order is None else cube[self.order]


def resolve_wavelengths(
    path: Path,
    bands: int,
    hints: Hints,
    found: Listed | None,
    selection: np.ndarray | None = None,
) -> Bands:
    """Wavelengths of the `bands` bands in nm and where they come from; given ones win over the file's.

    A list is one per band of the file, or one per original band where the file tells which of them it kept. Wavelengths
    in another order than increasing are sorted, and the bands of the file with them.
    """
    if hints.wavelengths is not None:
        values, origin, notes = np.asarray(hints.wavelengths, np.float64).ravel(), "given", ()
    elif found is not None:
        if found.size != bands and (selection is None or selection.size != bands):
            raise _wrong_number(path, bands, f"{found.size} ({found.shown()}, {found.where})")
        values, origin, notes = in_nm(found, path, hints.unit)
    else:
        raise absent(path)
    by_file = origin != "given"
    if len(values) != bands and selection is not None and selection.size == bands:
        chosen = selection.astype(np.int64) - 1
        if chosen.min() >= 0 and chosen.max() < len(values):
            values, origin, by_file = values[chosen], f"{origin}, {bands} selected of {len(values)}", True
    if len(values) != bands:
        raise _wrong_number(
            path, bands, len(values) if hints.wavelengths is not None or found is None else found.shown()
        )
    falling = bands > 1 and values[0] > values[-1]
    order = np.argsort(values, kind="stable") if by_file or falling else np.arange(bands)
    ordered = values[order]
    same = np.flatnonzero(np.diff(ordered) == 0)
    if by_file and same.size:
        first, second = (int(order[same[0] + k]) + 1 for k in (0, 1))
        found_bands = f"{ordered[same[0]]:g} nm at bands {first} and {second}"
        raise InputError("two bands have the same wavelength", path=path, found=found_bands, remedy=_REPAIR)
    if np.array_equal(order, np.arange(bands)):
        return Bands(checked(ordered, path), origin, None, notes)
    return Bands(checked(ordered, path), f"{origin}, sorted", order, notes)


def _wrong_number(path: Path, bands: int, found: object) -> InputError:
    remedy = "give one wavelength per band with --source-wavelengths"
    return InputError(
        "wrong number of wavelengths", path=path, found=found, expected=f"{bands}, one per band", remedy=remedy
    )


_REPAIR = "repair the file, or give the true wavelengths with --source-wavelengths"


def byte_order_of(dtype: np.dtype) -> str:
    """little, big, or none for single bytes."""
    return {"<": "little", ">": "big", "|": "none"}.get(dtype.byteorder, sys.byteorder)


def native(array: np.ndarray) -> np.ndarray:
    """The same numbers in this machine's byte order, in place where the array is ours."""
    if array.dtype.isnative:
        return array
    swapped = array.byteswap(inplace=array.flags.writeable)
    return swapped.view(swapped.dtype.newbyteorder())
