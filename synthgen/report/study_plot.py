"""A study as a picture: what each arm reached, and its difference from real cubes only."""

from __future__ import annotations

import os
from collections.abc import Sequence

from matplotlib.figure import Figure

from synthgen.report.contact_sheet import save_figure

INK, GAIN, LOSS = "0.35", "#2a7f3f", "#b3392f"


def study_plot(
    path: str | os.PathLike,
    reached: Sequence[tuple[str, Sequence[float]]],
    differences: Sequence[tuple[str, float, tuple[float, float]]],
    note: str = "",
) -> None:
    """Two panels, one line each per entry, from top to bottom.

    Args:
        path: PNG file to write.
        reached: (arm, AUROC of each seed).
        differences: (what minus what, difference of AUROC, its 95 % interval); coloured where it excludes 0.
        note: below the panels.
    """
    lines = max(len(reached), len(differences), 1)
    figure = Figure(figsize=(11, 0.34 * lines + 1.6), facecolor="white")
    left, right = figure.subplots(1, 2)
    for row, (_, values) in enumerate(reached):
        left.plot(values, [row] * len(values), "o", color="#3b5fd0", ms=4, alpha=0.7)
        if values:
            left.plot([sum(values) / len(values)] * 2, [row - 0.3, row + 0.3], color=INK, lw=1.6)
    left.axvline(0.5, color="0.8", lw=1)
    left.set_title("AUROC per patient; a dot is a seed", fontsize=9, loc="left")
    for row, (_, value, (low, high)) in enumerate(differences):
        colour = GAIN if low > 0 else LOSS if high < 0 else INK
        right.plot([low, high], [row, row], color=colour, lw=1.6)
        right.plot([value], [row], "o", color=colour, ms=4)
    right.axvline(0, color="0.8", lw=1)
    right.set_title("difference of AUROC, 95 % interval", fontsize=9, loc="left")
    for axis, names in ((left, [n for n, _ in reached]), (right, [n for n, *_ in differences])):
        axis.set_yticks(range(len(names)), names, fontsize=8)
        axis.set_ylim(max(len(names), 1) - 0.5, -0.5)
        axis.tick_params(axis="x", labelsize=8)
        axis.grid(True, axis="x", color="0.93")
        axis.spines[["top", "right", "left"]].set_visible(False)
    figure.text(0.01, 0.01, note, fontsize=8, color=INK)
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    save_figure(figure, path, dpi=120)
