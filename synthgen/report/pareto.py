"""Quality against speed: which configurations nothing beats, drawn and in words."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from synthgen.runs.files import atomic

COLOURS = ("#0b3c6f", "#d95f02", "#7fc7a4")  # dark, middle and light: distinguishable in grey too
WIDE = 8  # times the smallest value, and no interval reaches 0: beyond, the axis is logarithmic
TICKS = (1, 1.5, 2, 3, 4, 5, 6, 8)  # of a logarithmic axis, times a power of ten: an axis of less than one has some too
MARKS = ("o", "s", "^", "D", "v")


class Point(NamedTuple):
    """One configuration: speed in cubes/s and a figure of which less is better, each (value, low, high)."""

    name: str
    speed: tuple[float, float, float]
    figure: tuple[float, float, float]
    compression: int
    latent: int
    channels: int


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the (speed, figure) pairs that no other beats, by rising speed.

    One beats another when it is as fast and as good, and in one of the two better.
    """
    kept = [i for i, (s, f) in enumerate(points) if not any(t >= s and g <= f and (t > s or g < f) for t, g in points)]
    return sorted(kept, key=lambda i: points[i])


def recommend(points: Sequence[Point], min_speed: float | None = None, max_figure: float | None = None) -> str:
    """A recommendation with its reason: the best that is fast enough, or the fastest that is good enough."""
    if not points:
        return "No configuration has both figures: nothing to recommend."
    fit = [p for p in points if min_speed is None or p.speed[0] >= min_speed]
    fit = [p for p in fit if max_figure is None or p.figure[0] <= max_figure]
    asked = [] if min_speed is None else [f"at least {min_speed:g} cubes/s"]
    asked += [] if max_figure is None else [f"a distance of at most {max_figure:g}"]
    if not fit:
        fast, good = max(points, key=lambda p: p.speed[0]), min(points, key=lambda p: p.figure[0])
        return (
            f"None of {len(points)} reaches {' and '.join(asked)}: the fastest is {fast.name} ({fast.speed[0]:.3g} "
            f"cubes/s), the nearest to real cubes {good.name} (distance {good.figure[0]:.3g})."
        )
    by_speed = max_figure is not None
    best = max(fit, key=lambda p: p.speed[0]) if by_speed else min(fit, key=lambda p: p.figure[0])
    why = "the fastest" if by_speed else "the nearest to real cubes"
    words = f"{best.name}: {best.speed[0]:.3g} cubes/s at a distance of {best.figure[0]:.3g}; {why} of {len(fit)}"
    words += f" with {' and '.join(asked)}." if asked else "."
    ties = [p for p in fit if p is not best and p.figure[1] <= best.figure[2] and best.figure[1] <= p.figure[2]]
    if ties:
        words += f" Not distinguishable from it by distance: {', '.join(p.name for p in ties)}"
        fastest = max(ties, key=lambda p: p.speed[0])
        quicker = fastest.speed[1] > best.speed[2]
        words += f", of which {fastest.name} is {fastest.speed[0] / best.speed[0]:.1f} times as fast." * quicker
        words += "." * (not quicker)
    return words


def draw(stem: str | os.PathLike, points: Sequence[Point], label: str) -> list[str]:
    """Write stem.png and stem.svg; returns the names on the front, by rising speed. No points, no files."""
    if not points:
        return []
    chosen = front([(p.speed[0], p.figure[0]) for p in points])
    levels = [
        sorted({p.compression for p in points}),
        sorted({p.latent for p in points}),
        sorted({p.channels for p in points}),
    ]

    def colour(p: Point) -> str:
        return COLOURS[levels[0].index(p.compression) % len(COLOURS)]

    def mark(p: Point) -> str:
        return MARKS[levels[1].index(p.latent) % len(MARKS)]

    def size(channels: int) -> float:
        return 5 + 3 * levels[2].index(channels)

    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.add_subplot()
    for p in points:
        x, y = ([[max(v[0] - v[1], 0)], [max(v[2] - v[0], 0)]] for v in (p.speed, p.figure))
        axes.errorbar(
            p.speed[0], p.figure[0], xerr=x, yerr=y, color=colour(p), marker=mark(p), ms=size(p.channels),
            mec="black", mew=0.6, elinewidth=0.8, capsize=2,
        )  # fmt: skip
    line = [points[i] for i in chosen]
    axes.plot([p.speed[0] for p in line], [p.figure[0] for p in line], color="black", lw=1, ls="--", zorder=0)
    axes.set(xscale="log", xlabel="cubes per second, sampled and decoded", ylabel=f"{label} (less is better)")
    values = [p.figure[0] for p in points]
    if min(p.figure[1] for p in points) > 0 and max(values) > WIDE * min(values):
        axes.set_yscale("log")
    axes.margins(x=0.06)
    for axis in (axes.xaxis, axes.yaxis)[: 1 + (axes.get_yscale() == "log")]:
        axis.set_major_locator(LogLocator(subs=TICKS))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_locator(NullLocator())
    axes.grid(alpha=0.3)
    _name(axes, line)

    def key(text: str, **style: object) -> Line2D:
        return Line2D([], [], **({"ls": "", "mec": "black", "color": "0.6", "marker": "o"} | style), label=text)  # type: ignore[arg-type]

    keys = [key(f"compression {v}", color=COLOURS[i % len(COLOURS)]) for i, v in enumerate(levels[0])]
    keys += [key(f"{v} latent channels", marker=MARKS[i % len(MARKS)]) for i, v in enumerate(levels[1])]
    keys += [key(f"{v} base channels", ms=size(v)) for v in levels[2]]
    keys += [Line2D([], [], color="black", lw=1, ls="--", label="Pareto front")]
    figure.legend(handles=keys, loc="outside upper center", ncols=4, fontsize=8, frameon=False)
    FigureCanvasAgg(figure)
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "pareto"}):  # text as text; the same file every time
        for kind, facts in (("png", {}), ("svg", {"Date": None})):
            with atomic(f"{os.fspath(stem)}.{kind}") as temporary:
                figure.savefig(temporary, format=kind, dpi=130, metadata=facts)
    return [p.name for p in line]


def _name(axes: Axes, line: Sequence[Point]) -> None:
    """The names of the front to the right of the plot, apart from one another, each with a thin line to its point."""
    to_fraction = axes.transAxes.inverted().transform
    heights = [float(to_fraction(axes.transData.transform((p.speed[0], p.figure[0])))[1]) for p in line]
    for p, height in zip(line, spaced(heights), strict=True):
        axes.annotate(
            p.name, (p.speed[0], p.figure[0]), (1.03, height), textcoords="axes fraction", fontsize=8, va="center",
            arrowprops={"arrowstyle": "-", "color": "0.35", "lw": 0.7, "shrinkA": 1, "shrinkB": 4, "relpos": (0, 0.5)},
        )  # fmt: skip


def spaced(heights: Sequence[float], apart: float = 0.055) -> list[float]:
    """The heights, fractions of an axis in any order, moved as little as needed to lie `apart`, none outside of 0..1.

    More of them than the axis holds lie as far apart as it allows.
    """
    if not heights:
        return []
    apart = min(apart, 1 / max(len(heights) - 1, 1))
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    placed = [0.0] * len(heights)
    least = 0.0
    for i in order:
        placed[i] = least = max(heights[i], least)
        least += apart
    most = 1.0
    for i in reversed(order):
        placed[i] = most = min(placed[i], most)
        most -= apart
    return placed
