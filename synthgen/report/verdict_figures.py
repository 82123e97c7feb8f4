"""The figures of a verdict page, each as the bytes of a PNG."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator
from scipy.stats import t as student

from synthgen.report.cube_page import false_colour

DPI = 160  # shown at half of this: sharp on any screen
REAL, MADE, LIMIT, INK, FAINT = "#4a5a6a", "#1f6fb5", "#c0392b", "0.15", "0.45"
FEWEST = 5  # cubes with a structure, below which its spectra are not drawn


def as_png(figure: Figure) -> bytes:
    FigureCanvasAgg(figure)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DPI, facecolor="white")
    return file.getvalue()


def picture(cube: np.ndarray, wavelengths: Sequence[float]) -> bytes:
    """A cube [C, H, W] in false colour, pixel by pixel; gaps are black."""
    from matplotlib.image import imsave

    cube = np.nan_to_num(cube, nan=0.0, posinf=0.0, neginf=0.0)
    lit = cube.mean(0) > 0.01
    image, _ = false_colour(cube, wavelengths, lit if lit.any() else np.ones(cube.shape[1:], bool))
    file = io.BytesIO()
    imsave(file, image, format="png")
    return file.getvalue()


def distribution_figure(
    groups: Mapping[str, np.ndarray], limits: Sequence[float], unit: str, mean: bool = False, log: bool = False
) -> bytes:
    """Histograms (fraction of cubes) of one or two groups, with their limits as red lines.

    mean: mark the mean of each group. Values far beyond all others are counted in the last bin, and the axis states it.
    """
    figure = Figure(figsize=(3.7, 2.35))
    axis = figure.subplots()
    values = {k: np.asarray(v, float)[np.isfinite(v)] for k, v in groups.items()}
    if log:
        values = {k: v[v > 0] for k, v in values.items()}
    everything = np.concatenate([*values.values(), np.asarray(limits, float)])
    low, high = (everything.min(), everything.max()) if len(everything) else (0.1, 1.0)
    if not log and len(everything):
        most = np.quantile(everything, 0.98)
        if high - low > 3 * (most - low) > 0:
            high = low + 1.2 * (max(most, *limits, low) - low)
            values = {k: np.minimum(v, high) for k, v in values.items()}
            unit = f"{unit}; at the end: more"
    room = 0.03 * (high - low) or 0.01
    ends = (low / 1.2, high * 1.2) if log else (low - room, high + room)
    bins = np.geomspace(*ends, 31) if log else np.linspace(*ends, 31)
    for (name, group), colour in zip(values.items(), (REAL, MADE) if len(values) > 1 else (MADE,), strict=True):
        if not len(group):
            continue
        weights = np.full(len(group), 100 / len(group))
        filled = colour == REAL
        axis.hist(
            group, bins.tolist(), weights=weights, histtype="stepfilled" if filled else "step", color=colour,
            alpha=0.35 if filled else 1, lw=0 if filled else 1.8, label=f"{name} (n = {len(group):,})",
        )  # fmt: skip
        if mean:
            axis.axvline(float(group.mean()), color=colour, lw=1.4, ls="--")
    for k, limit in enumerate(limits):
        axis.axvline(limit, color=LIMIT, lw=1.6, label="limit" if k == 0 else None)
    if log:
        axis.set_xscale("log")
        _plain_numbers(axis.xaxis, subs=(2, 5) if ends[1] > 4 * ends[0] else (1.5, 2, 3, 4, 5, 7))
    axis.set_xlim(*ends)
    axis.set_xlabel(unit, fontsize=9, color=INK)
    axis.set_ylabel("fraction of cubes (%)", fontsize=9, color=INK)
    top = axis.get_ylim()[1]
    axis.set_ylim(0, 1.32 * top)  # room for the legend
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=7.5, frameon=False, loc="upper left", ncols=3, handlelength=1.2, columnspacing=1)
    plain(axis, grid="y")
    figure.tight_layout(pad=0.4)
    return as_png(figure)


def envelope_figure(
    wavelengths: Sequence[float], groups: Mapping[str, np.ndarray], low: np.ndarray, high: np.ndarray
) -> bytes:
    """Mean reflectance [N, C] of whole cubes over wavelength, between the limits [C] that reject a cube."""
    figure = Figure(figsize=(7.6, 3.0))
    axis = figure.subplots()
    nm = np.asarray(wavelengths, float)
    for (name, table), colour in zip(groups.items(), (REAL, MADE) if len(groups) > 1 else (MADE,), strict=True):
        table = table[np.isfinite(table).all(1)]
        if not len(table):
            continue
        a, middle, b = np.percentile(100 * table, [0.5, 50, 99.5], axis=0)
        axis.fill_between(nm, a, b, color=colour, alpha=0.2, lw=0)
        axis.plot(nm, middle, color=colour, lw=1.8, label=f"{name}: median and 99 % (n = {len(table):,})")
    for k, edge in enumerate((low, high)):
        axis.plot(nm, 100 * edge, color=LIMIT, lw=1.3, label="limits" if k == 0 else None)
    _reflectance(axis)
    axis.legend(fontsize=8, frameon=False)
    figure.tight_layout(pad=0.4)
    return as_png(figure)


def spectra_figure(
    wavelengths: Sequence[float], groups: Mapping[str, tuple[np.ndarray, np.ndarray]], colour: str
) -> bytes:
    """A structure's spectra: geometric means with 95 % confidence, middle 90 % of the cubes, and beneath their ratio.

    Args:
        groups: real first, then synthetic -> mean log-reflectance [N, C] (NaN rows: absent) and the unit [N] of each
            row, a patient for real cubes.
    """
    figure = Figure(figsize=(3.7, 3.9))
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    nm, means = np.asarray(wavelengths, float), []
    for (name, (logs, units)), tone in zip(groups.items(), (REAL, colour), strict=True):
        here = np.isfinite(logs).all(1)
        if here.sum() < FEWEST:
            continue
        a, b = np.percentile(logs[here], [5, 95], axis=0)
        centre, error, n = mean_with_error(logs[here], units[here])
        means.append((centre, error))
        upper.fill_between(nm, 100 * np.exp(a), 100 * np.exp(b), color=tone, alpha=0.12, lw=0)
        band = 100 * np.exp(centre - error), 100 * np.exp(centre + error)
        upper.fill_between(nm, *band, color=tone, alpha=0.45, lw=0)
        upper.plot(
            nm,
            100 * np.exp(centre),
            color=tone,
            lw=1.5,
            label=f"{name} ({n} {'patients' if name == 'real' else 'cubes'})",
        )
    _reflectance(upper)
    upper.set_xlabel("")
    if means:
        upper.legend(fontsize=8, frameon=False, loc="lower right")
    if len(means) == 2:
        (real, e0), (synthetic, e1) = means
        ratio, error = 100 * np.expm1(synthetic - real), np.hypot(e0, e1)
        low, high = (100 * np.expm1(synthetic - real + side * error) for side in (-1, 1))
        lower.fill_between(nm, low, high, color=colour, alpha=0.3, lw=0)
        lower.plot(nm, ratio, color=colour, lw=1.5)
    lower.axhline(0, color=REAL, lw=1)
    lower.set_ylabel("synthetic -\nreal (%)", fontsize=9, color=INK)
    lower.set_xlabel("wavelength (nm)", fontsize=9, color=INK)
    plain(lower, grid="both")
    figure.tight_layout(pad=0.4)
    return as_png(figure)


def mean_with_error(logs: np.ndarray, units: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Mean [C] over units of logs [N, C], half width of its 95 % confidence at each wavelength, and the number of
    units: cubes of one patient are first averaged."""
    _, owner = np.unique(units, return_inverse=True)
    sums = np.zeros((owner.max() + 1, logs.shape[1]))
    np.add.at(sums, owner, logs)
    each = sums / np.bincount(owner)[:, None]
    n = len(each)
    if n < 2:
        return each.mean(0), np.full(logs.shape[1], np.inf), n
    return each.mean(0), student.ppf(0.975, n - 1) * each.std(0, ddof=1) / np.sqrt(n), n


def _plain_numbers(axis, subs: Sequence[float] = (2, 5)) -> None:
    """Ticks of a logarithmic axis as 0.5, 1, 2."""
    axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axis.set_minor_locator(LogLocator(subs=subs))
    axis.set_minor_formatter(FuncFormatter(lambda v, _: f"{v:g}"))


def _reflectance(axis) -> None:
    axis.set_yscale("log")
    _plain_numbers(axis.yaxis)
    axis.set_ylabel("reflectance (%)", fontsize=9, color=INK)
    axis.set_xlabel("wavelength (nm)", fontsize=9, color=INK)
    plain(axis, grid="both")


def plain(axis, grid: str) -> None:
    axis.tick_params(which="both", labelsize=8, colors=INK)
    axis.grid(True, axis=grid, color="0.92")
    axis.set_axisbelow(True)
    for edge in ("top", "right"):
        axis.spines[edge].set_visible(False)
