"""Write docs/gates_counts.png, what the gates count, from records: `python -m benchmarks.quality.gate_counts`.

Fractions of proposals (copies, admitted, admitted in the worst stratum), C_T, what encoding keeps of a weak tilt: of
the packaged generator, of fresh eyes, and of what was made to fail, each with its 95 % interval and the limit.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from benchmarks import RESULTS, ROOT
from benchmarks.quality.gate_pictures import FAULT, LIMIT, MADE

DOCS = ROOT / "docs"
FRESH, SAMPLES, PLANTED = "fresh eyes", "packaged generator", "made to fail"
COLOURS = {FRESH: "0.25", SAMPLES: MADE, PLANTED: FAULT}


class Mark(NamedTuple):
    """A value with its interval, whose it is, and in words what was made to fail."""

    group: str
    value: float
    low: float
    high: float
    words: str = ""


def write() -> None:
    figure, axes = plt.subplots(5, 1, figsize=(8.6, 6.4))
    for axis, (label, limit, below, marks) in zip(axes, panels(), strict=True):
        _panel(axis, label, limit, below, marks)
    handles = [plt.Line2D([], [], marker="o", ls="", color=c, label=g) for g, c in COLOURS.items()]
    handles.append(plt.Line2D([], [], color=LIMIT, lw=1.6, label="limit; the shaded side fails"))
    figure.legend(handles=handles, loc="upper center", ncols=4, frameon=False, fontsize=9)
    figure.tight_layout(rect=(0, 0, 1, 0.95), h_pad=1.2)
    figure.savefig(DOCS / "gates_counts.png", dpi=110)
    plt.close(figure)


def panels() -> list[tuple[str, float, bool, list[Mark]]]:
    """(label, limit, whether values below the limit fail, marks) of each panel, from the newest records."""
    quality, memoriser, erasure = (_newest(name) for name in ("packaged_quality", "memoriser", "erasure"))
    rows = []
    for name, label, below in (
        ("memorization", "copies of training cubes: fraction of proposals", False),
        ("copying_ct", "C_T, turned round: above 0 nearer to the training cubes than fresh eyes", False),
        ("acceptance", "acceptance: fraction of proposals admitted", True),
        ("acceptance_per_stratum", "acceptance of the worst stratum over that of all", True),
    ):
        checks = {g: _check(quality[k], name) for g, k in ((FRESH, "fresh_real"), (SAMPLES, "synthetic"))}
        marks = [Mark(group, check["value"], *check["interval"]) for group, check in checks.items()]
        if name == "memorization":
            found = memoriser["memoriser"]
            marks.append(Mark(PLANTED, found["called copies"], *found["interval"], "a memoriser"))
        rows.append((label, checks[SAMPLES]["limit"], below, marks))
    kept = [Mark(SAMPLES, *_triple(text)) for text in quality["reconstruction"]["tilt_retained"].values()]
    for words in ("0%", "50%", "80%"):
        share = erasure["found"][f"1%, whole eye, {words} left by plan"]["share left"]
        kept.append(Mark(PLANTED, share, share, share, f"{words} left"))
    rows.append(("tilt kept by encoding and decoding: whole eye, left half", erasure["limit"], True, kept))
    return rows


def _panel(axis: Axes, label: str, limit: float, below: bool, marks: list[Mark]) -> None:
    for y, mark in enumerate(marks):
        colour = COLOURS[mark.group]
        axis.plot([mark.low, mark.high], [y, y], color=colour, lw=2, solid_capstyle="butt")
        axis.plot(mark.value, y, "o", color=colour, ms=5)
        axis.annotate(mark.words, (mark.value, y), (5, 3), textcoords="offset points", fontsize=8, color=colour)
    low = min(limit, *(m.low for m in marks))
    high = max(limit, *(m.high for m in marks))
    room = 0.08 * (high - low)
    axis.set_xlim(low - room, high + room)
    axis.axvspan(*((low - room, limit) if below else (limit, high + room)), color=LIMIT, alpha=0.07, lw=0)
    axis.axvline(limit, color=LIMIT, lw=1.6)
    axis.set_ylim(len(marks) - 0.4, -0.7)
    axis.set_yticks([])
    axis.set_title(label, loc="left", fontsize=9)
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right", "left"]].set_visible(False)


def _newest(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text())[-1]


def _check(verdict: dict[str, Any], name: str) -> dict[str, Any]:
    return next(c for c in verdict["checks"] if c["name"] == name)


def _triple(text: str) -> tuple[float, float, float]:
    """'0.99 [0.98, 1.00]' as numbers."""
    value, _, interval = text.partition(" ")
    low, high = interval.strip("[]").split(", ")
    return float(value), float(low), float(high)


if __name__ == "__main__":
    write()
