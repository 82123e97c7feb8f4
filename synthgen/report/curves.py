"""Training curves from the lines of `metrics.jsonl`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from synthgen.report.contact_sheet import save_figure


def training_curves(path: str | os.PathLike, metrics: Sequence[dict[str, Any]], names: Sequence[str]) -> None:
    """One small plot over the step for each of `names` that occurs in `metrics`.

    Args:
        path: PNG file to write.
        metrics: lines of `metrics.jsonl`, each with `step`.
        names: which values to draw.
    """
    series = {n: [(m["step"], m[n]) for m in metrics if isinstance(m.get(n), int | float)] for n in names}
    series = {n: points for n, points in series.items() if points}
    figure = Figure(figsize=(3.2 * max(len(series), 1), 2.6), facecolor="white")
    axes = figure.subplots(1, max(len(series), 1), squeeze=False)[0]
    for axis, (name, points) in zip(axes, series.items(), strict=False):
        steps, values = zip(*points, strict=True)
        axis.plot(steps, values, color="#3b5fd0", lw=1.2, marker="." if len(points) < 30 else None)
        axis.set_title(name, fontsize=9, loc="left")
        axis.set_xlabel("step", fontsize=8)
        axis.tick_params(labelsize=7)
        axis.grid(True, color="0.92")
    figure.tight_layout()
    save_figure(figure, path, dpi=120)
