"""The contact sheet: cubes of several kinds, one row each, at six wavelengths, one grey scale per wavelength."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from synthgen.runs.files import atomic
from synthgen.science.bands import nearest_bands

WANTED_NM = (465.0, 555.0, 640.0, 730.0, 815.0, 900.0)  # the wavelengths of the original work's figure


def shown_bands(wavelengths: Sequence[float] | np.ndarray, wanted: Sequence[float] = WANTED_NM) -> list[int]:
    """Index of the band nearest to each wanted wavelength, without repeats."""
    return list(dict.fromkeys(nearest_bands(wavelengths, wanted)))


def save_figure(figure: Figure, path: str | os.PathLike, dpi: int = 110) -> None:
    """Write a figure as PNG, atomically, without a display."""
    FigureCanvasAgg(figure)
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=dpi)


def contact_sheet(
    path: str | os.PathLike,
    rows: dict[str, np.ndarray],
    wavelengths: Sequence[float],
    title: str = "",
    note: str = "",
    wanted: Sequence[float] = WANTED_NM,
    per_row: int = 4,
) -> None:
    """Draw cubes of several kinds one below the other.

    Args:
        path: PNG file to write.
        rows: kind ("real", "reconstructed", "synthetic") -> float [n, C, H, W] reflectance; `per_row` of each shown.
        wavelengths: C wavelengths in nm.
        title, note: above and below the pictures.
        wanted: wavelengths to show, in nm; the nearest bands are taken.

    The grey scale of a wavelength runs from 0 to the 99.5th percentile of the *first* kind, so that kinds compare.
    """
    bands = shown_bands(wavelengths, wanted)
    kinds = [(kind, np.asarray(cubes)[:per_row]) for kind, cubes in rows.items() if len(cubes)]
    reference = kinds[0][1]
    top = [max(float(np.percentile(reference[:, b], 99.5)), 1e-6) for b in bands]
    lines = [(kind, cube) for kind, cubes in kinds for cube in cubes]
    figure = Figure(figsize=(1.35 * len(bands) + 1.1, 1.35 * len(lines) + 0.9), facecolor="white")
    axes = figure.subplots(len(lines), len(bands), squeeze=False)
    for (kind, cube), line in zip(lines, axes, strict=True):
        for axis, band, high in zip(line, bands, top, strict=True):
            axis.imshow(cube[band], cmap="gray", vmin=0, vmax=high, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            axis.set_frame_on(False)
        line[0].set_ylabel(kind, fontsize=9)
    for axis, band in zip(axes[0], bands, strict=True):
        axis.set_title(f"{wavelengths[band]:.0f} nm", fontsize=9)
    height = figure.get_figheight()
    figure.suptitle(title, fontsize=11, x=0.02, y=1 - 0.1 / height, ha="left", va="top")
    figure.text(0.02, 0.05 / height, note, fontsize=8, color="0.35")
    figure.tight_layout(rect=(0, 0.2 / height, 1, 1 - 0.35 / height), pad=0.3, h_pad=0.15, w_pad=0.15)
    save_figure(figure, path)
