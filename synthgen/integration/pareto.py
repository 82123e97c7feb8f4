"""`synthgen pareto`: the records of a sweep as plots, tables and a recommendation."""

from __future__ import annotations

import csv
import io
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from synthgen.errors import InputError, must_exist, writing
from synthgen.report.pareto import Point, draw, recommend
from synthgen.runs.files import read_json, write_text

FIGURES = {
    "frechet": "hyperspectral Fréchet distance",
    "ms_ssim_gap": "|MS-SSIM of validation - of synthetic cubes|",
    "kl_vein": "spectral KL of veins, nats",
    "kl_artery": "spectral KL of arteries, nats",
    "kl_disc": "spectral KL of the optic nerve head, nats",
}
SPEED = "cubes_per_s"
GRID, COMMON = "grid", "common"  # tables: cells of the grid; the variant that the others depart from
Row = dict[str, Any]


def pareto(
    results: str | Path, out: str | Path, min_speed: float | None = None, max_distance: float | None = None
) -> dict[str, Any]:
    """Write findings.md, table.csv and, for a grid, five plots (PNG, SVG) into `out`.

    Args:
        results: folder of records. out: folder, made where there is none.
        min_speed: cubes per second that are needed. max_distance: Frechet distance that is tolerated.

    Returns: recommendation, fronts (by figure), files. InputError where no cell is done.
    """
    folder, out = must_exist(results, "folder"), Path(out)
    records = [read_json(path) for path in sorted(folder.glob("*.json"))]
    rows = table(records)
    if not rows:
        raise InputError("holds no finished cell", path=folder, remedy="run `synthgen sweep` first")
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    write_text(out / "table.csv", as_csv(rows))
    grid = [r for r in rows if r["table"] == GRID]
    fronts = {name: draw(out / name, points_of(grid, name), label) for name, label in FIGURES.items()}
    words = recommend(points_of(grid or rows, "frechet"), min_speed, max_distance)
    write_text(out / "findings.md", findings(records, rows, fronts, words))
    return {"recommendation": words, "fronts": fronts, "files": sorted(str(p) for p in out.iterdir() if p.is_file())}


def table(records: Sequence[dict[str, Any]]) -> list[Row]:
    """One row per configuration: every figure as value, low, high over its seeds (None: in no seed)."""
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for r in records:
        if r["status"] == "done":
            groups[r["name"]].append(r)
    rows = []
    for name, many in groups.items():
        coder, flow = many[0]["autoencoder"], many[0]["diffusion"]
        row: Row = {
            "name": name,
            "table": many[0]["table"],
            "seeds": len(many),
            "steps": many[0]["steps"],
            "compression": coder.get("compression", 4),
            "latent_channels": coder.get("latent_channels", 8),
            "channels": flow.get("channels", 64),
            "interpolation_frechet": float(np.mean([r["interpolation_frechet"] for r in many])),
            "autoencoder_steps": float(np.mean([r["trained"]["autoencoder"]["steps"] for r in many])),
            "flow_steps": float(np.mean([r["trained"]["diffusion"]["steps"] for r in many])),
            "flow_parameters": many[0]["parameters"]["flow"],
        }
        speeds = [r["speed"][SPEED] for r in many if r["speed"]]
        row |= _three(SPEED, speeds)
        for figure in FIGURES:
            row |= _three(figure, [r["figures"][figure] for r in many if r["figures"][figure] is not None])
        rows.append(row)
    return rows


def _three(name: str, triples: list[list[float]]) -> Row:
    values = over_seeds(triples) if triples else (None, None, None)
    return dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))


def over_seeds(triples: list[list[float]]) -> tuple[float, float, float]:
    """Mean over seeds; the interval holds every seed's own interval, so it is never narrower than one of them."""
    values = np.asarray(triples, float)
    return float(values[:, 0].mean()), float(values[:, 1].min()), float(values[:, 2].max())


def points_of(rows: Sequence[Row], figure: str) -> list[Point]:
    """The rows that have a speed and this figure, as points."""

    def three(row: Row, name: str) -> tuple[float, float, float]:
        return row[name], row[f"{name}_low"], row[f"{name}_high"]

    return [
        Point(r["name"], three(r, SPEED), three(r, figure), r["compression"], r["latent_channels"], r["channels"])
        for r in rows
        if r[figure] is not None and r[SPEED] is not None
    ]


def as_csv(rows: Sequence[Row]) -> str:
    """The rows as CSV, in full precision; an empty field where there is none."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def findings(records: Sequence[dict[str, Any]], rows: Sequence[Row], fronts: dict[str, list[str]], words: str) -> str:
    """The page: recommendation, fronts, one table for the grid and one for each question, failures."""
    grid, parts = [r for r in rows if r["table"] == GRID], ["# Quality against speed", "", words, ""]
    if grid:
        parts += ["## Fronts", ""]
        parts += [f"- {label}: {', '.join(fronts[name]) or 'no cell has it'}" for name, label in FIGURES.items()]
        parts += ["", "## The grid", "", *_markdown(sorted(grid, key=lambda r: r["frechet"]))]
    common = [r for r in rows if r["table"] == COMMON]
    for name in sorted({r["table"] for r in rows} - {GRID, COMMON}):
        mine = sorted([r for r in rows if r["table"] == name], key=lambda r: _natural(r["name"]))
        parts += ["", f"## {name[:1].upper()}{name[1:]}", "", *_markdown([*common, *mine]), ""]
        parts += [f"- {line}" for base in common for r in mine for line in [against(r, base)]]
    untimed = sum(r[SPEED] is None for r in rows)
    places = sorted({f"{r['speed']['threads']} threads, {r['speed']['device']}" for r in records if r.get("speed")})
    parts += ["", "## How it was measured", ""]
    parts += ["- Value [low, high]: 95 % by bootstrap over synthetic cubes; over seeds the mean, all their intervals."]
    parts += [f"- Speed with decoding, one cell at a time: {'; '.join(places) or 'not yet'}."]
    parts += ["- SPEEDS OF DIFFERENT MACHINES: do not compare them; time again on one."] * (len(places) > 1)
    parts += [f"- {untimed} not timed: in no front."] * (untimed > 0)
    failed = [f"- {r['name']}, seed {r['seed']}: {r['reason']}" for r in records if r["status"] == "failed"]
    return "\n".join([*parts, *(["", "## Failed", "", *failed] if failed else [])]) + "\n"


def against(row: Row, base: Row) -> str:
    """One variant beside the common setting, by every figure whose intervals are apart."""
    better, worse, other = [], [], []
    for name, label in FIGURES.items():
        if row[name] is None or base[name] is None:
            continue
        short = label.partition(",")[0]
        if row[f"{name}_high"] < base[f"{name}_low"]:
            better.append(short)
        elif row[f"{name}_low"] > base[f"{name}_high"]:
            worse.append(short)
        else:
            other.append(short)
    parts = [f"{words} by {', '.join(found)}" for words, found in
             (("better", better), ("worse", worse), ("not told apart", other)) if found]  # fmt: skip
    return f"{row['name']} beside {base['name']}: {'; '.join(parts) or 'no figure in common'}."


def _markdown(rows: Sequence[Row]) -> list[str]:
    heads = [
        "configuration",
        "seeds",
        "steps trained",
        "cubes/s",
        *(label.partition(",")[0] for label in FIGURES.values()),
    ]
    lines = ["| " + " | ".join(h.replace("|", r"\|") for h in heads) + " |", "|" + " --- |" * len(heads)]
    for r in rows:
        cells = [r["name"], str(r["seeds"]), f"{r['autoencoder_steps']:.0f} + {r['flow_steps']:.0f}"]
        cells += [_triple(r, name) for name in (SPEED, *FIGURES)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _triple(row: Row, name: str) -> str:
    if row[name] is None:
        return "-"
    return f"{row[name]:.3g} [{row[f'{name}_low']:.3g}, {row[f'{name}_high']:.3g}]"


def _natural(name: str) -> list[Any]:
    """steps4 before steps16."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]
