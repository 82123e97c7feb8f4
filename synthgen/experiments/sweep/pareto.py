"""`synthgen pareto`: the records of a sweep as plots, tables and a recommendation."""

from __future__ import annotations

import csv
import io
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from synthgen.errors import InputError, must_exist
from synthgen.experiments.sweep.pareto_page import CODER, FIGURES, GRID, SPEED, TILTS, Row, findings
from synthgen.experiments.sweep.records import read_records
from synthgen.report.pareto import Point, draw, recommend
from synthgen.runs.files import write_text
from synthgen.runs.locks import one_at_a_time


def pareto(
    results: Annotated[str | Path, Field(description="folder of a sweep's records")],
    out: Annotated[str | Path, Field(description="folder for plots, tables and findings")],
    min_speed: Annotated[float | None, Field(description="cubes per second that are needed")] = None,
    max_distance: Annotated[float | None, Field(description="Frechet distance that is tolerated")] = None,
) -> dict[str, Any]:
    """Write findings.md, table.csv and, for a grid, five plots (PNG, SVG) into `out`.

    Args:
        results: folder of records. out: folder, made where there is none.
        min_speed: cubes per second that are needed. max_distance: Frechet distance that is tolerated.

    Returns: recommendation, fronts (by figure), files. InputError where no cell is done, MismatchError for a
    record that cannot be compared with the others.
    """
    folder, out = must_exist(results, "folder"), Path(out)
    records = read_records(folder)
    rows = table(records)
    if not rows:
        raise InputError("holds no finished cell", path=folder, remedy="run `synthgen sweep` first")
    with one_at_a_time(out, make=True):
        return _write(out, records, rows, min_speed, max_distance)


def _write(
    out: Path, records: list[dict[str, Any]], rows: list[Row], min_speed: float | None, max_distance: float | None
) -> dict[str, Any]:
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
            "codes": coder.get("codes", 1024),
            "channels": flow.get("channels", 64),
            "autoencoder_steps": _mean([r["trained"]["autoencoder"]["steps"] for r in many]),
            "flow_steps": _mean([r["trained"]["diffusion"]["steps"] for r in many]),
            "flow_parameters": many[0]["parameters"]["flow"],
            "coder": json.dumps({k: v for k, v in coder.items() if k != "seed"}, sort_keys=True),
        }
        for figure in CODER:
            row[figure] = _mean([r.get(figure, r["trained"]["autoencoder"].get(figure)) for r in many])
        row |= _three(SPEED, [r["speed"][SPEED] if r["speed"] else None for r in many])
        for figure in FIGURES:
            row |= _three(figure, [r["figures"][figure] for r in many])
        for figure in TILTS:
            row |= _three(figure, [r.get(figure) for r in many])
        rows.append(row)
    return rows


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if known else None


def _three(name: str, triples: Sequence[list[float] | None]) -> Row:
    known = [t for t in triples if t is not None]
    values = over_seeds(known) if known else (None, None, None)
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
    """The rows as CSV, in full precision; an empty field where there is none. `coder` is for comparing rows only."""
    text = io.StringIO()
    columns = [key for key in rows[0] if key != "coder"]
    writer = csv.DictWriter(text, columns, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
