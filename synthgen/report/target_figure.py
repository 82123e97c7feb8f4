"""What several kinds of features predict of each target: a bar for each, with its interval."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from synthgen.report.contact_sheet import save_figure

OWN = ("#1f4e9c", "#7ea3dc", "#3f9ea6", "#9fd6d2")  # the backbones'
OTHER = ("#9a9a9a", "#d8b26a", "#b5722a", "#7a5230", "#4d8a57", "#a3c9a8")  # what they are held against
BAR, LOWEST = 0.13, -0.3  # inches of a bar; scores below are cut off, their intervals too


def target_figure(
    path: str | os.PathLike,
    targets: Sequence[str],
    bars: Mapping[str, Sequence[tuple[float, float, float]]],
    note: str = "",
    *,
    own: int = 2,
    label: str = "R2 of unseen patients (AUROC where stated)",
) -> None:
    """Draw horizontal bars in groups, from top to bottom.

    Args:
        path: PNG file to write.
        targets: the names of the groups.
        bars: kind of features -> (score, low, high) for each target.
        note: below. label: of the axis. own: how many of the first kinds are the backbones', drawn in blue.
    """
    each, colours = 1 / (len(bars) + 1), (*OWN[:own], *OTHER)
    figure = Figure(figsize=(8.5, BAR * len(targets) * (len(bars) + 1) + 1.3), facecolor="white")
    axis = figure.subplots()
    for place, (kind, scores) in enumerate(bars.items()):
        rows = [row + (place - (len(bars) - 1) / 2) * each for row in range(len(scores))]
        values = [max(score, LOWEST) for score, *_ in scores]
        ends = [(max(low, LOWEST), max(high, LOWEST)) for _, low, high in scores]
        error = [[v - low for v, (low, _) in zip(values, ends, strict=True)],
                 [high - v for v, (_, high) in zip(values, ends, strict=True)]]  # fmt: skip
        error = [[max(e, 0) for e in side] for side in error]
        axis.barh(
            rows, values, each, xerr=error, label=kind, color=colours[place % len(colours)],
            hatch="//" * (place >= len(colours)), error_kw={"elinewidth": 0.8, "ecolor": "0.25"},
        )  # fmt: skip
    axis.set_yticks(range(len(targets)), targets, fontsize=9)
    axis.set_ylim(len(targets) - 0.5, -0.5)
    for row in range(1, len(targets)):
        axis.axhline(row - 0.5, color="0.93", lw=0.8)
    axis.axvline(0, color="0.5", lw=0.8)
    axis.set_xlim(right=1)
    axis.set_xlabel(f"{label}, 95 % interval", fontsize=9)
    axis.tick_params(axis="x", labelsize=8)
    axis.grid(True, axis="x", color="0.93")
    axis.set_axisbelow(True)
    axis.spines[["top", "right", "left"]].set_visible(False)
    figure.legend(loc="upper center", ncols=min(3, len(bars)), fontsize=8, frameon=False, borderaxespad=0.1)
    figure.text(0.01, 0.005, note, fontsize=7, color="0.35")
    height = figure.get_figheight()
    figure.tight_layout(rect=(0, 0.15 / height, 1, 1 - (0.1 + 0.2 * -(-len(bars) // 3)) / height))
    save_figure(figure, path, dpi=130)
