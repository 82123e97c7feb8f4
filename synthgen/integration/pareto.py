"""`synthgen pareto`: the records of a sweep as plots, a table and a recommendation."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from synthgen.errors import InputError, must_exist
from synthgen.report.pareto import Point, draw, recommend
from synthgen.runs.files import read_json, write_text

FIGURES = {
    "frechet": "hyperspectral Fréchet distance",
    "ms_ssim_gap": "|MS-SSIM of validation - of synthetic cubes|",
    "kl_vein": "spectral KL of veins (nats)",
    "kl_artery": "spectral KL of arteries (nats)",
    "kl_disc": "spectral KL of the optic nerve head (nats)",
}
SPEED = "cubes_per_s"


def pareto(
    results: str | Path, out: str | Path, min_speed: float | None = None, max_distance: float | None = None
) -> str:
    """Write five plots (PNG, SVG), table.csv and findings.md into `out`; returns the recommendation.

    InputError where no cell is done.
    """
    folder, out = must_exist(results, "folder"), Path(out)
    records = [read_json(path) for path in sorted(folder.glob("*.json"))]
    rows = table(records)
    if not rows:
        raise InputError("holds no finished cell", path=folder, remedy="run `synthgen sweep` first")
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "table.csv", as_csv(rows))
    lines = ["# Pareto fronts", ""]
    for name, label in FIGURES.items():
        points = points_of(rows, name)
        listed = draw(out / name, points, label, label) if points else []
        lines += [f"- {label}: {', '.join(listed) or 'in no cell'}"]
    words = recommend(points_of(rows, "frechet"), min_speed, max_distance)
    failed = [f"- {r['name']}, seed {r['seed']}: {r['reason']}" for r in records if r["status"] == "failed"]
    lines += ["", words, *(["", "Failed:", "", *failed] if failed else [])]
    write_text(out / "findings.md", "\n".join(lines) + "\n")
    return words


def table(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per configuration: every figure as value, low, high over its seeds (None: in no seed)."""
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for r in records:
        if r["status"] == "done":
            groups[r["name"]].append(r)
    rows = []
    for name, many in groups.items():
        coder, flow = many[0]["autoencoder"], many[0]["diffusion"]
        row: dict[str, Any] = {
            "name": name, "table": many[0]["table"], "seeds": len(many), "steps": many[0]["steps"],
            "compression": coder.get("compression", 4), "latent_channels": coder.get("latent_channels", 8),
            "channels": flow.get("channels", 64),
        }  # fmt: skip
        for figure in (SPEED, *FIGURES):
            triples = [r["figures"][figure] for r in many if r["figures"].get(figure) is not None]
            value = over_seeds(triples) if triples else (None, None, None)
            row |= dict(zip((figure, f"{figure}_low", f"{figure}_high"), value, strict=True))
        rows.append(row)
    return rows


def over_seeds(triples: list[list[float]]) -> tuple[float, float, float]:
    """Mean over seeds; the interval holds every seed's own interval, so it is never narrower than one of them."""
    values = np.asarray(triples, float)
    return float(values[:, 0].mean()), float(values[:, 1].min()), float(values[:, 2].max())


def points_of(rows: list[dict[str, Any]], figure: str) -> list[Point]:
    """The rows that have this figure, as points."""

    def three(row: dict[str, Any], name: str) -> tuple[float, float, float]:
        return row[name], row[f"{name}_low"], row[f"{name}_high"]

    return [
        Point(r["name"], three(r, SPEED), three(r, figure), r["compression"], r["latent_channels"], r["channels"])
        for r in rows
        if r[figure] is not None
    ]


def as_csv(rows: list[dict[str, Any]]) -> str:
    """The rows as CSV, in full precision; an empty field where there is none."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
