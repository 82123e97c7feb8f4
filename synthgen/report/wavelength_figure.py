"""Real and synthetic cubes at a few wavelengths: one column per wavelength, one grey scale per column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from synthgen.runs.files import atomic

WANTED_NM = (900.0, 815.0, 730.0, 640.0, 555.0, 465.0)  # the original work's figure, in its order
CLOSE_NM = 1.0  # a band this near to the wanted wavelength is called by it
TOP = 98.0  # percentile of the real cubes that is white: the disc, 2 % of the pixels, would leave the vessels dark


def nearest_bands(wavelengths: Sequence[float], wanted: Sequence[float] = WANTED_NM) -> list[int]:
    """Index of the band nearest to each wanted wavelength (nm), in their order; the longer one of two as near."""
    table = np.asarray(wavelengths, dtype=float)
    return [int(len(table) - 1 - np.argmin(np.abs(table[::-1] - w))) for w in wanted]


def wavelength_figure(
    files: Sequence[Path],
    kinds: Mapping[str, np.ndarray],
    wavelengths: Sequence[float],
    wanted: Sequence[float] = WANTED_NM,
    scale: np.ndarray | None = None,
) -> None:
    """Draw cubes of several kinds below one another, each column with the band that is shown and its scale.

    Args:
        files: to write, of the kind that the suffix says (.png, .svg).
        kinds: name -> reflectance [n, C, H, W].
        scale: cubes [m, C, H, W] that set the grey scales; the first kind, if not given.
        wavelengths: of the C bands, nm, ascending.
    """
    bands = nearest_bands(wavelengths, wanted)
    first = next(iter(kinds.values())) if scale is None else scale
    tops = [max(float(np.percentile(first[:, band], TOP)), 1e-6) for band in bands]
    lines = [(kind, cube) for kind, cubes in kinds.items() for cube in cubes]
    figure = Figure(figsize=(1.5 * len(bands) + 0.5, 1.5 * len(lines) + 1.2), facecolor="white", layout="constrained")
    axes = figure.subplots(len(lines), len(bands), squeeze=False)
    for (_, cube), line in zip(lines, axes, strict=True):
        for axis, band, top in zip(line, bands, tops, strict=True):
            axis.imshow(cube[band], cmap="gray", vmin=0, vmax=top, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
    for column, (nm, band, top) in enumerate(zip(wanted, bands, tops, strict=True)):
        found = float(wavelengths[band])
        near = "" if abs(found - nm) <= CLOSE_NM else f"\nband at {found:g} nm"
        axes[0, column].set_title(f"{nm:g} nm{near}", fontsize=9)
        greys = ScalarMappable(Normalize(0, top), cmap="gray")
        bar = figure.colorbar(greys, ax=list(axes[:, column]), location="bottom", shrink=0.85, aspect=14, pad=0.01)
        bar.set_ticks([0, top], labels=["0", f"{100 * top:.2g} %"])
        bar.ax.tick_params(labelsize=7, length=2)
    at = 0
    for kind, cubes in kinds.items():
        axes[at + len(cubes) // 2, 0].set_ylabel(kind, fontsize=10)
        at += len(cubes)
    figure.supxlabel("reflectance; one scale per wavelength, set by the real cubes", fontsize=8, color="0.35")
    FigureCanvasAgg(figure)
    for path in files:
        with atomic(path) as temporary:
            figure.savefig(temporary, format=Path(path).suffix[1:], dpi=130)
