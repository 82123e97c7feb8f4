"""One cube on one page: in false colour, its spectra, and a contact sheet of its bands."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from synthgen.report.contact_sheet import save_figure, shown_bands
from synthgen.report.spectra import COLOURS
from synthgen.science.bands import nearest_bands

COLOUR_NM = (850.0, 660.0, 540.0)  # shown as red, green, blue: choroid, oxygenation, vessels in the retina
MOST_BANDS = 104  # pictures on a page; of more bands an even choice
INK, FAINT = "0.15", "0.42"
_WIDTH, _MARGIN, _TOP, _UPPER = 15.0, 0.45, 1.05, 5.3  # inches


def cube_page(
    path: str | os.PathLike,
    cube: np.ndarray,
    wavelengths: Sequence[float],
    spectra: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]],
    field: np.ndarray | None = None,
    *,
    title: str = "",
    note: str = "",
    shaded: str = "",
    quantity: str = "reflectance",
    six: bool = False,
) -> None:
    """Draw one cube.

    Args:
        path: PNG file to write.
        cube: float [C, H, W] reflectance.
        wavelengths: C wavelengths in nm.
        spectra: name of a curve -> (mean, low, high), each [C] reflectance; the space from low to high is shaded.
        field: bool [H, W], the field of view: what greys and colours are stretched over; none: the whole frame.
        title, note: above the page and, small, below the title. shaded: what the shading means.
        quantity: what the values are.
        six: six wavelengths instead of all bands.
    """
    nm = np.asarray(wavelengths, dtype=float)
    inside = np.ones(cube.shape[1:], dtype=bool) if field is None or not field.any() else field
    evenly = sorted({round(b) for b in np.linspace(0, len(nm) - 1, min(len(nm), MOST_BANDS))})
    bands = shown_bands(nm) if six else evenly
    columns = _columns(len(bands))
    rows = -(-len(bands) // columns)
    side = (_WIDTH - 2 * _MARGIN - 0.12 * (columns - 1)) / columns
    tall = side * cube.shape[1] / cube.shape[2]
    height = _TOP + _UPPER + 1.13 + rows * (tall + 0.36) + 0.2
    figure = Figure(figsize=(_WIDTH, height), facecolor="white")
    figure.text(_MARGIN / _WIDTH, 1 - 0.32 / height, title, fontsize=19, weight="bold", color=INK, va="top")
    figure.text(_MARGIN / _WIDTH, 1 - 0.72 / height, note, fontsize=12, color=FAINT, va="top")

    def place(x: float, y: float, width: float, tallness: float):
        """Axes at x, y inches from the top left."""
        return figure.add_axes((x / _WIDTH, 1 - (y + tallness) / height, width / _WIDTH, tallness / height))

    picture = _UPPER - 0.75
    wide = min(picture * cube.shape[2] / cube.shape[1], 7.0)
    _false_colour(place(_MARGIN, _TOP + 0.5, wide, picture), cube, nm, inside)
    left = _MARGIN + wide + 1.15
    _spectra(place(left, _TOP + 0.5, _WIDTH - left - _MARGIN, picture - 0.3), nm, spectra, shaded, quantity)
    chosen = "all bands" if len(bands) == len(nm) else f"{len(bands)} of {len(nm)} bands"
    y = _TOP + _UPPER + 0.3
    figure.text(_MARGIN / _WIDTH, 1 - y / height, chosen, fontsize=14, weight="bold", color=INK, va="top")
    caption = f"each from black at 0 to white at the {quantity} given beside its wavelength"
    figure.text(_MARGIN / _WIDTH, 1 - (y + 0.28) / height, caption, fontsize=11, color=FAINT, va="top")
    for k, band in enumerate(bands):
        row, column = divmod(k, columns)
        axis = place(_MARGIN + column * (side + 0.12), y + 0.83 + row * (tall + 0.36), side, tall)
        _band(axis, cube[band], nm[band], inside, small=columns > 8)
    save_figure(figure, path, dpi=110)


def false_colour(
    cube: np.ndarray, wavelengths: Sequence[float] | np.ndarray, field: np.ndarray
) -> tuple[np.ndarray, list[float]]:
    """Picture [H, W, 3] in 0-1 of the bands nearest to COLOUR_NM, each stretched from its 1st to its 99th percentile in
    the field; and the wavelengths of those bands."""
    nm = np.asarray(wavelengths, dtype=float)
    chosen = nearest_bands(nm, COLOUR_NM)
    planes = []
    for band in chosen:
        low, high = np.percentile(cube[band][field], [1, 99])
        planes.append(np.clip((cube[band] - low) / max(high - low, 1e-9), 0, 1))
    return np.stack(planes, -1) * field[..., None], [float(nm[b]) for b in chosen]


def _false_colour(axis, cube: np.ndarray, nm: np.ndarray, field: np.ndarray) -> None:
    picture, used = false_colour(cube, nm, field)
    axis.imshow(picture, interpolation="nearest", aspect="auto")
    _bare(axis)
    axis.set_title("false colour", fontsize=14, weight="bold", color=INK, loc="left", pad=22)
    text = f"{used[0]:.0f} / {used[1]:.0f} / {used[2]:.0f} nm as red / green / blue, each stretched"
    axis.text(0, 1.012, text, transform=axis.transAxes, fontsize=11, color=FAINT, va="bottom")


def _spectra(axis, nm: np.ndarray, spectra, shaded: str, quantity: str) -> None:
    for name, (mean, low, high) in spectra.items():
        colour = COLOURS.get(name.split(" (")[0], "0.25")
        axis.plot(nm, 100 * mean, color=colour, lw=2.2, label=name, marker="o" if len(nm) <= 24 else None, ms=4)
        axis.fill_between(nm, 100 * np.maximum(low, 1e-6), 100 * np.maximum(high, 1e-6), color=colour, alpha=0.13, lw=0)
    axis.set_yscale("log")
    means = 100 * np.concatenate([mean for mean, _, _ in spectra.values()])
    means = means[np.isfinite(means) & (means > 0)]
    if len(means):
        axis.set_ylim(0.5 * means.min(), 2.2 * means.max())
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
    axis.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    rim = 0.015 * (nm[-1] - nm[0]) + 1
    axis.set_xlim(nm[0] - rim, nm[-1] + rim)
    axis.tick_params(which="both", labelsize=11, colors=INK)
    axis.set_xlabel("wavelength (nm)", fontsize=12, color=INK)
    axis.set_ylabel(f"{quantity} (%)", fontsize=12, color=INK)
    axis.grid(True, which="both", color="0.9")
    axis.set_axisbelow(True)
    for edge in ("top", "right"):
        axis.spines[edge].set_visible(False)
    axis.set_title("spectra", fontsize=14, weight="bold", color=INK, loc="left", pad=22)
    axis.text(0, 1.012, shaded, transform=axis.transAxes, fontsize=11, color=FAINT, va="bottom")
    if spectra:
        axis.legend(fontsize=11, frameon=False, loc="lower right", labelcolor=INK)


def _band(axis, band: np.ndarray, nm: float, field: np.ndarray, small: bool) -> None:
    top = max(float(np.percentile(band[field], 98)), 1e-6)
    axis.imshow(band, cmap="gray", vmin=0, vmax=top, interpolation="nearest", aspect="auto")
    _bare(axis)
    size = 8.5 if small else 11
    axis.text(0.0, 1.02, f"{nm:.0f} nm", transform=axis.transAxes, fontsize=size, color=INK, va="bottom")
    white = f"{100 * top:.2g} %"
    axis.text(1.0, 1.02, white, transform=axis.transAxes, fontsize=size, color=FAINT, va="bottom", ha="right")


def _bare(axis) -> None:
    axis.set(xticks=[], yticks=[])
    for spine in axis.spines.values():
        spine.set_visible(False)


def _columns(count: int) -> int:
    """Pictures in a row: full rows where that can be."""
    if count <= 8:
        return count if count > 3 else 4
    most = 8 if count <= 32 else 13
    return next((n for n in range(most, most - 3, -1) if count % n == 0), most)
