"""The sweep's plan, order, records and resume; the Pareto front, the table and the words."""

from __future__ import annotations

import csv
import io
from itertools import pairwise
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from synthgen.config import load
from synthgen.integration.pareto import as_csv, pareto, table
from synthgen.integration.sweep import run_sweep
from synthgen.integration.sweep_plan import Sweep, cells, ordered, recipe
from synthgen.report.pareto import Point, front, recommend
from synthgen.runs.files import read_json, write_json

ROOT = Path(__file__).parents[2]


def test_the_scaled_grid_shares_nine_autoencoders_among_27_cells_that_are_all_valid():
    for name in ("sweep64", "sweep224"):
        sweep = load(Sweep, ROOT / f"configs/{name}.yaml")
        plan = cells(sweep)
        assert (len(plan), len({c.coder for c in plan}), len({c.flow for c in plan})) == (27, 9, 27)
        for cell in plan:
            made = recipe(sweep, cell, "x")
            assert made.diffusion.autoencoder == made.autoencoder.out


def test_cells_of_the_better_autoencoder_come_first_and_unknown_ones_last():
    plan = cells(load(Sweep, ROOT / "configs/sweep64.yaml"))
    coders = list(dict.fromkeys(c.coder for c in plan))
    order = ordered(plan, {coders[4]: 1.0, coders[2]: 2.0})
    assert [c.coder for c in order[:6]] == [coders[4]] * 3 + [coders[2]] * 3
    assert sorted(c.file for c in order) == sorted(c.file for c in plan)


def _record(cell, speed: float, distance: float) -> dict:
    figures = {"cubes_per_s": [speed, speed, speed], "frechet": [distance, distance * 0.9, distance * 1.1]}
    return {"status": "done", **cell._asdict(), "figures": figures}


def test_a_failing_cell_is_recorded_others_go_on_and_nothing_is_done_twice(tmp_path: Path):
    sweep = load(Sweep, ROOT / "configs/sweep64.yaml", {"out": f"{tmp_path}/o", "results": f"{tmp_path}/r"})
    calls, bad = [], cells(sweep)[5].file

    def run(kind, cell, device):
        calls.append((kind, cell.file))
        if kind == "cell" and cell.file == bad and len(calls) < 40:
            return "out of memory"
        if kind == "cell":
            write_json(tmp_path / "r" / cell.file, _record(cell, 10.0, 1.0))
        return None

    paths = run_sweep(sweep, run)
    assert len(calls) == 9 + 27
    assert {read_json(p)["status"] for p in paths if p.name != bad} == {"done"}
    assert read_json(tmp_path / "r" / bad)["reason"] == "out of memory"
    calls[:] = [("", "")] * 50
    run_sweep(sweep, run)
    assert [f for k, f in calls[50:] if k == "cell"] == [bad]
    run_sweep(sweep, run)
    assert len(calls) == 52


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=20))
def test_the_front_is_what_nothing_beats_and_everything_else_is_beaten_by_it(points):
    kept = front(points)

    def beats(p, q):
        return p[0] >= q[0] and p[1] <= q[1] and p != q

    assert not any(beats(p, points[i]) for i in kept for p in points)
    assert all(any(beats(points[i], p) for i in kept) for k, p in enumerate(points) if k not in kept)
    assert all(points[a][1] <= points[b][1] for a, b in pairwise(kept))


def test_plots_csv_and_words_come_from_the_records(tmp_path: Path):
    plan = cells(load(Sweep, ROOT / "configs/sweep64.yaml"))[:6]
    for k, cell in enumerate(plan):
        write_json(tmp_path / "r" / cell.file, _record(cell, 10.0 * (k + 1), 1.0 + k))
    words = pareto(tmp_path / "r", tmp_path / "p", min_speed=35)
    assert words.startswith(plan[3].name) and "at least 35 cubes/s" in words
    assert {p.suffix for p in (tmp_path / "p").glob("frechet.*")} == {".png", ".svg"}
    rows = table([read_json(p) for p in sorted((tmp_path / "r").glob("*.json"))])
    for read, row in zip(csv.DictReader(io.StringIO(as_csv(rows))), rows, strict=True):
        assert {k: v for k, v in read.items()} == {k: "" if v is None else str(v) for k, v in row.items()}


def test_words_say_when_nothing_reaches_what_is_asked():
    some = [Point("slow", (1, 1, 1), (1, 1, 1), 4, 8, 16), Point("fast", (9, 9, 9), (5, 5, 5), 16, 8, 16)]
    assert recommend(some, max_figure=6).startswith("fast")
    assert recommend(some).startswith("slow")
    assert "None of 2 reaches at least 10 cubes/s" in recommend(some, min_speed=10)
