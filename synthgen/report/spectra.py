"""Mean spectra of the structures, several kinds of cubes beside one another."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from synthgen.report.contact_sheet import save_figure

COLOURS = {"artery": "#d03b3b", "vein": "#3b5fd0", "disc": "#c99a1e", "macula": "#5b8c3a", "background": "0.45"}
STYLES = ("-", "--", ":")


def structure_spectra(
    path: str | os.PathLike,
    wavelengths: Sequence[float],
    spectra: dict[str, dict[str, np.ndarray]],
    title: str = "",
) -> None:
    """Draw the mean reflectance of each structure over wavelength with the middle 68 % of the cubes as a band.

    Args:
        path: PNG file to write.
        wavelengths: C wavelengths in nm.
        spectra: kind ("real", "synthetic") -> structure -> [N, C] mean reflectance per cube; NaN rows (structure
            absent) are left out.
    """
    figure = Figure(figsize=(7.2, 4.4), facecolor="white")
    axis = figure.subplots()
    nm = np.asarray(wavelengths, dtype=float)
    for (kind, by_structure), style in zip(spectra.items(), STYLES, strict=False):
        for structure, table in by_structure.items():
            table = np.asarray(table, dtype=float)
            table = table[np.isfinite(table).all(axis=1)]
            if not len(table):
                continue
            colour = COLOURS.get(structure, "k")
            low, middle, high = np.percentile(100 * table, [16, 50, 84], axis=0)
            axis.plot(nm, middle, style, color=colour, lw=1.6, label=f"{structure}, {kind} (n = {len(table)})")
            if style == "-":
                axis.fill_between(nm, low, high, color=colour, alpha=0.12, lw=0)
    axis.set_yscale("log")
    axis.set_xlabel("wavelength (nm)")
    axis.set_ylabel("reflectance (%)")
    axis.set_title(title, fontsize=11, loc="left")
    axis.grid(True, which="both", color="0.92")
    axis.set_axisbelow(True)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=7, frameon=False, ncols=2)
    figure.tight_layout()
    save_figure(figure, path, dpi=120)
