"""Real and synthetic cubes at a few wavelengths: one column per wavelength, shapes in grey, levels as numbers.

Eyes differ in brightness severalfold: under one scale per wavelength whole rows would be nearly black or white. So
every picture has a scale of its own, from 0 to twice its mean, and its mean stands in its corner.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from synthgen.runs.files import atomic
from synthgen.science.bands import nearest_bands

WANTED_NM = (900.0, 815.0, 730.0, 640.0, 555.0, 465.0)  # the original work's figure, in its order
CLOSE_NM = 1.0  # a band this near to the wanted wavelength is called by it
WHITE = 2.0  # times a picture's mean; the disc lies beyond, vessels and background within
LIT = 0.2  # of the mean of all pixels: what is darker lies outside of the field of view


def lit_mean(picture: np.ndarray) -> float:
    """Mean of a band [H, W] over the pixels inside of the field of view."""
    inside = picture[picture > LIT * picture.mean()]
    return max(float(inside.mean()) if inside.size else 0.0, 1e-6)


def wavelength_figure(
    files: Sequence[Path],
    kinds: Mapping[str, np.ndarray],
    wavelengths: Sequence[float],
    wanted: Sequence[float] = WANTED_NM,
) -> None:
    """Draw cubes of several kinds below one another, each column with the band that is shown.

    Args:
        files: to write, of the kind that the suffix says (.png, .svg).
        kinds: name -> reflectance [n, C, H, W].
        wavelengths: of the C bands, nm, ascending.
    """
    bands = nearest_bands(wavelengths, wanted)
    lines = [(kind, cube) for kind, cubes in kinds.items() for cube in cubes]
    figure = Figure(figsize=(1.5 * len(bands) + 0.5, 1.5 * len(lines) + 0.8), facecolor="white", layout="constrained")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01)  # type: ignore[union-attr]
    axes = figure.subplots(len(lines), len(bands), squeeze=False)
    for (_, cube), line in zip(lines, axes, strict=True):
        for axis, band in zip(line, bands, strict=True):
            mean = lit_mean(cube[band])
            axis.imshow(cube[band], cmap="gray", vmin=0, vmax=WHITE * mean, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
            axis.text(
                0.02, 0.98, f"{100 * mean:.2g} %", transform=axis.transAxes, ha="left", va="top", fontsize=7,
                color="white", path_effects=[withStroke(linewidth=1.5, foreground="black")],
            )  # fmt: skip
    for axis, nm, band in zip(axes[0], wanted, bands, strict=True):
        result = float(wavelengths[band])
        near = "" if abs(result - nm) <= CLOSE_NM else f"\nband at {result:g} nm"
        axis.set_title(f"{nm:g} nm{near}", fontsize=9)
    at = 0
    for kind, cubes in kinds.items():
        for line in axes[at : at + len(cubes)]:
            line[0].set_ylabel(kind.replace(" (", "\n("), fontsize=9)
        at += len(cubes)
    figure.supxlabel(
        f"each picture from 0 (black) to {WHITE:g} times its mean (white); the mean reflectance in its corner",
        fontsize=8, color="0.35",
    )  # fmt: skip
    FigureCanvasAgg(figure)
    for path in files:
        with atomic(path) as temporary:
            figure.savefig(temporary, format=Path(path).suffix[1:], dpi=130)
