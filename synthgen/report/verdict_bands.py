"""Figures of a verdict page that hold statistics against real cubes: null bands, strata, distances by band."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from synthgen.report.spectra import COLOURS
from synthgen.report.verdict_figures import FAINT, INK, LIMIT, MADE, REAL, as_png, plain

STATUS = {"pass": "#2e7d4f", "fail": "#c0392b", "undecided": "#b7791f"}
_FAR = 40.0  # multiples of the way from null median to limit: further right is drawn at the edge
_LEAST = 1e-9


def null_figure(rows: Sequence[Mapping]) -> bytes:
    """Every statistic on its null distribution, one row each, on a common axis: 0 is the null median, 1 the limit.

    rows: label, status, value, interval, limit, and `null`, evenly spaced quantiles (0 to 1) between real sets. Light:
    the whole null; darker: its middle 90 % and half. The axis is linear up to 1.5 and logarithmic beyond.
    """
    figure = Figure(figsize=(9.2, 0.31 * len(rows) + 0.95))
    axis, leftmost = figure.subplots(), -0.3
    for y, row in enumerate(rows):
        null = np.asarray(row["null"], float)
        middle = float(np.median(null))
        unit = max(row["limit"] - middle, _LEAST)
        place = lambda x, m=middle, u=unit: np.clip((np.asarray(x, float) - m) / u, -3, _FAR)
        leftmost = min(leftmost, float(place(null[0])), float(place((row.get("interval") or [row["value"]])[0])))
        last = len(null) - 1
        for fraction, tone in ((0.0, 0.16), (0.05, 0.3), (0.25, 0.5)):
            ends = place([null[round(fraction * last)], null[round((1 - fraction) * last)]])
            axis.fill_betweenx([y - 0.3, y + 0.3], *ends, color=REAL, alpha=tone, lw=0)
        axis.plot([0, 0], [y - 0.3, y + 0.3], color="white", lw=1.2)
        colour = STATUS.get(row["status"], FAINT)
        low, high = row.get("interval") or (row["value"], row["value"])
        axis.plot(place([low, high]), [y, y], color=colour, lw=2.6, alpha=0.75, solid_capstyle="butt")
        at = float(place(row["value"]))
        axis.plot(at, y, ">" if at >= _FAR else "o", color=colour, ms=6, mec="white", mew=0.8, zorder=5)
        axis.text(
            1.005, y, f"{row['value']:.3g} / {row['limit']:.3g}", transform=axis.get_yaxis_transform(), va="center",
            fontsize=8, color=INK,
        )  # fmt: skip
    axis.axvline(1, color=LIMIT, lw=1.4)
    axis.text(1, -0.62, "limit", color=LIMIT, ha="center", va="bottom", fontsize=9)
    axis.text(1.005, -0.62, "value / limit", transform=axis.get_yaxis_transform(), va="bottom", fontsize=8, color=FAINT)
    axis.set_xscale("symlog", linthresh=1.5, linscale=1.6)
    right = max([1.6, *(float(x) for x in axis.get_xlim()[1:])])
    axis.set_xlim(leftmost - 0.1, min(right, 1.15 * _FAR))
    ticks = [x for x in (-2, -1, 0, 0.5, 1, 2, 5, 10, 20, 40) if axis.get_xlim()[0] <= x <= axis.get_xlim()[1]]
    axis.set_xticks(ticks)
    axis.minorticks_off()
    axis.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axis.set_yticks(range(len(rows)), [r["label"] for r in rows], fontsize=8.5)
    axis.set_ylim(len(rows) - 0.5, -0.62)
    plain(axis, grid="x")
    axis.set_xlabel("0: median between real sets, 1: limit", fontsize=9, color=INK)
    figure.tight_layout(pad=0.5)
    return as_png(figure)


def strata_figure(strata: Sequence[tuple[str, int, int, tuple[float, float]]]) -> bytes:
    """Fraction admitted of each stratum with its interval; the fraction of all cubes as a line."""
    figure = Figure(figsize=(7.6, 0.3 * len(strata) + 0.75))
    axis = figure.subplots()
    for y, (_, n, hits, (low, high)) in enumerate(strata):
        colour = REAL if y == 0 else MADE
        axis.plot([100 * low, 100 * high], [y, y], color=colour, lw=3, alpha=0.4, solid_capstyle="butt")
        axis.plot(100 * hits / n, y, "o", color=colour, ms=6)
        axis.text(
            1.01, y, f"{hits:,} of {n:,}", transform=axis.get_yaxis_transform(), va="center", fontsize=8, color=INK
        )
    axis.axvline(100 * strata[0][2] / strata[0][1], color=REAL, lw=1, ls="--")
    axis.set_yticks(range(len(strata)), [s[0] for s in strata], fontsize=9)
    axis.set_ylim(len(strata) - 0.5, -0.5)
    axis.set_xlim(min(axis.get_xlim()[0], 80), 101)
    plain(axis, grid="x")
    axis.set_xlabel("admitted (%), with 95 % interval", fontsize=9, color=INK)
    figure.tight_layout(pad=0.5)
    return as_png(figure)


def wasserstein_figure(wavelengths: Sequence[float], result: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> bytes:
    """Per structure the Wasserstein distance over wavelength, and dotted that between two halves of the real cubes."""
    figure = Figure(figsize=(7.6, 2.9))
    axis = figure.subplots()
    nm = np.asarray(wavelengths, float)
    for name, (distance, among) in result.items():
        colour = COLOURS.get(name, "k")
        axis.plot(nm, distance, color=colour, lw=1.8, marker="o", ms=3.5, label=name)
        axis.plot(nm, among, color=colour, lw=1.2, ls=":")
    axis.plot([], [], color=FAINT, lw=1.2, ls=":", label="halves of the real cubes")
    axis.set_ylim(bottom=0)
    axis.set_xlabel("wavelength (nm)", fontsize=9, color=INK)
    axis.set_ylabel("distance (% of the\nmean reflectance)", fontsize=9, color=INK)
    axis.legend(fontsize=8, frameon=False, ncols=len(result) + 1, loc="upper center", bbox_to_anchor=(0.5, 1.17))
    plain(axis, grid="both")
    figure.tight_layout(pad=0.5)
    return as_png(figure)
