"""The page of `synthgen pareto` in words: fronts, one table for the grid and one for each question, what failed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from synthgen.experiments.sweep.records import GRID

FIGURES = {
    "frechet": "hyperspectral Fréchet distance",
    "ms_ssim_gap": "|MS-SSIM of validation - of synthetic cubes|",
    "kl_vein": "spectral KL of veins, nats",
    "kl_artery": "spectral KL of arteries, nats",
    "kl_disc": "spectral KL of the optic nerve head, nats",
}
TILTS = {"tilt_retained": "tilt kept", "tilt_left_half": "tilt kept, left half"}  # 1: all of it
CODER = {"interpolation_frechet": "Fréchet distance through the autoencoder", "validation_l1": "its held-out L1"}
SPEED = "cubes_per_s"
COMMON = "common"  # the table of the variant that the others depart from
Row = dict[str, Any]


def findings(
    records: Sequence[Mapping[str, Any]], rows: Sequence[Row], fronts: Mapping[str, list[str]], words: str
) -> str:
    """The page as Markdown. records: all, for what failed and where it was timed. words: the recommendation."""
    grid, parts = [r for r in rows if r["table"] == GRID], ["# Quality against speed", "", words, ""]
    if grid:
        parts += ["## Fronts", ""]
        parts += [
            f"- [{label}]({name}.png): {', '.join(fronts[name])}" if fronts[name] else f"- {label}: no cell has it"
            for name, label in FIGURES.items()
        ]
        parts += ["", f"## The grid{trainings(grid)}", "", *_markdown(sorted(grid, key=lambda r: r["frechet"]))]
    common = [r for r in rows if r["table"] == COMMON]
    for name in sorted({r["table"] for r in rows} - {GRID, COMMON}):
        mine = sorted((r for r in rows if r["table"] == name), key=place)
        shown = sorted([*common, *mine], key=place)
        parts += ["", f"## {name[:1].upper()}{name[1:]}{trainings(shown)}", "", *_markdown(shown), ""]
        parts += [f"- {against(r, base)}" for base in common for r in mine]
    return "\n".join([*parts, *_how(records, rows), *_failed(records)]) + "\n"


def trainings(rows: Sequence[Row]) -> str:
    """' (one training each)' where a difference may be that of two seeds as well as that of two settings."""
    return " (one training each)" if all(r["seeds"] == 1 for r in rows) else ""


def place(row: Row) -> tuple[Any, ...]:
    """Order in a table: by sampling steps, then codes; among equals the common setting first, then by name."""
    return row["steps"], row["codes"], row["table"] != COMMON, _natural(row["name"])


def against(row: Row, base: Row) -> str:
    """One variant beside the common setting, by every figure whose intervals are apart."""
    better, worse, other = [], [], []
    for name, label in {**FIGURES, **TILTS}.items():
        if row[name] is None or base[name] is None or (name in TILTS and row["coder"] == base["coder"]):
            continue
        short = label.partition(",")[0] if name in FIGURES else label
        (low, high), (base_low, base_high) = (_ends(r, name) for r in (row, base))
        (better if high < base_low else worse if low > base_high else other).append(short)
    parts = [f"{words} by {', '.join(found)}" for words, found in
             (("better", better), ("worse", worse), ("not distinguishable", other)) if found]  # fmt: skip
    return f"{row['name']} beside {base['name']}{trainings([row, base])}: {'; '.join(parts) or 'no figure in common'}."


def _ends(row: Row, name: str) -> tuple[float, float]:
    """Interval of a figure of which less is better; of a tilt how far what is kept lies from 1, on either side."""
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    if name in FIGURES:
        return low, high
    away = (abs(1 - low), abs(1 - high))
    return (0.0 if low <= 1 <= high else min(away)), max(away)


def _markdown(rows: Sequence[Row]) -> list[str]:
    """A table of the rows; columns that no row fills are left out."""
    columns = {
        "configuration": lambda r: r["name"],
        "seeds": lambda r: str(r["seeds"]),
        "steps trained": lambda r: f"{r['autoencoder_steps']:.0f} + {r['flow_steps']:.0f}",
    }
    for name in (SPEED, *FIGURES, *TILTS):
        label = "cubes/s" if name == SPEED else {**FIGURES, **TILTS}[name]
        label = label.partition(",")[0] if name in FIGURES else label
        if name in FIGURES or any(r[name] is not None for r in rows):
            columns[label] = lambda r, name=name: _triple(r, name)
    for name, label in CODER.items():
        if any(r[name] is not None for r in rows):
            columns[label] = lambda r, name=name: "-" if r[name] is None else f"{r[name]:.3g}"
    lines = ["| " + " | ".join(h.replace("|", r"\|") for h in columns) + " |", "|" + " --- |" * len(columns)]
    return [*lines, *(f"| {' | '.join(cell(r) for cell in columns.values())} |" for r in rows)]


def _how(records: Sequence[Mapping[str, Any]], rows: Sequence[Row]) -> list[str]:
    untimed = sum(r[SPEED] is None for r in rows)
    places = sorted({f"{r['speed']['threads']} threads, {r['speed']['device']}" for r in records if r.get("speed")})
    lines = ["", "## How it was measured", ""]
    lines += ["- Value [low, high]: 95 % by bootstrap over synthetic cubes; over seeds the mean, all their intervals."]
    if any(r["seeds"] == 1 for r in rows):
        lines += ["- One training each (seed column 1): an interval does not hold what another seed would change."]
    lines += [f"- Speed with decoding, one cell at a time: {'; '.join(places) or 'not yet'}."]
    lines += ["- SPEEDS OF DIFFERENT MACHINES: do not compare them; time again on one."] * (len(places) > 1)
    lines += [f"- {untimed} not timed: in no front."] * (untimed > 0)
    lines += ["- Through the autoencoder: held-out cubes, encoded half way to their nearest neighbour, quantised and "
              "decoded; what no flow can make better. L1: of normalised log-reflectance."]  # fmt: skip
    if any(r["tilt_retained"] is not None for r in rows):
        lines += ["- Tilt kept: the fraction of a tilt of 1 % at 450-585 nm, in the whole eye or its left half, that "
                  "encoding and decoding keep; 95 % by bootstrap over patients."]  # fmt: skip
    return lines


def _failed(records: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = [f"- {r['name']}, seed {r['seed']}: {r['reason']}" for r in records if r["status"] == "failed"]
    return ["", "## Failed", "", *lines] if lines else []


def _triple(row: Row, name: str) -> str:
    if row[name] is None:
        return "-"
    return f"{row[name]:.3g} [{row[f'{name}_low']:.3g}, {row[f'{name}_high']:.3g}]"


def _natural(name: str) -> list[Any]:
    """steps4 before steps16; words and numbers take turns, so that they are never compared with one another."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]
