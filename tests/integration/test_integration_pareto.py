"""The front, the table, the words, the tables of the ablations; the figure of six wavelengths."""

from __future__ import annotations

import csv
import io
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthgen.config import load
from synthgen.errors import InputError
from synthgen.integration.pareto import FIGURES, against, as_csv, over_seeds, pareto, table
from synthgen.integration.sweep_plan import Cell, Sweep, asked, cells
from synthgen.report.pareto import Point, front, recommend
from synthgen.report.wavelength_figure import nearest_bands, wavelength_figure
from synthgen.runs.files import read_json, write_json

ROOT = Path(__file__).parents[2]


def record(sweep: Sweep, cell: Cell, speed: float | None, value: float) -> dict:
    """A record whose figures are all `value`, +- 10 %."""
    return {
        "status": "done",
        **asked(sweep, cell),
        "figures": {name: [value, value * 0.9, value * 1.1] for name in FIGURES},
        "speed": speed and {"cubes_per_s": [speed, speed, speed], "threads": 2, "device": "cpu"},
        "interpolation_frechet": value,
        "trained": {"autoencoder": {"steps": 10}, "diffusion": {"steps": 20}},
        "parameters": {"autoencoder": 1, "flow": 2},
    }


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=20))
def test_the_front_is_what_nothing_beats_and_everything_else_is_beaten_by_it(points):
    kept = front(points)

    def beats(p, q):
        return p[0] >= q[0] and p[1] <= q[1] and p != q

    assert not any(beats(p, points[i]) for i in kept for p in points)
    assert all(any(beats(points[i], p) for i in kept) for k, p in enumerate(points) if k not in kept)
    assert all(points[a][1] <= points[b][1] for a, b in pairwise(kept))


def test_plots_csv_and_words_come_from_the_records(tmp_path: Path):
    sweep = load(Sweep, ROOT / "configs/sweep64.yaml")
    plan = cells(sweep)[:6]
    for k, cell in enumerate(plan):
        write_json(tmp_path / "r" / cell.file, record(sweep, cell, 10.0 * (k + 1) if k < 5 else None, 1.0 + k))
    write_json(tmp_path / "r" / "bad.json", {"status": "failed", "name": "bad", "seed": 0, "reason": "too large"})
    found = pareto(tmp_path / "r", tmp_path / "p", min_speed=35)
    assert found["recommendation"].startswith(plan[3].name) and "at least 35 cubes/s" in found["recommendation"]
    assert found["fronts"] == {name: [c.name for c in plan[:5]] for name in FIGURES}  # the sixth is not timed
    names = {f"{figure}.{kind}" for figure in FIGURES for kind in ("png", "svg")}
    assert {Path(f).name for f in found["files"]} == names | {"table.csv", "findings.md"}
    page = (tmp_path / "p" / "findings.md").read_text()
    assert "1 not timed" in page and "bad, seed 0: too large" in page and "DIFFERENT MACHINES" not in page
    rows = table([read_json(p) for p in sorted((tmp_path / "r").glob("*.json"))])
    for read, row in zip(csv.DictReader(io.StringIO(as_csv(rows))), rows, strict=True):
        assert read == {k: "" if v is None else str(v) for k, v in row.items()}
    with pytest.raises(InputError, match="no finished cell"):
        pareto(tmp_path / "p", tmp_path / "q")


def test_each_question_of_the_ablations_has_a_table_with_the_common_setting(tmp_path: Path):
    sweep = load(Sweep, ROOT / "configs/ablations64.yaml")
    for k, cell in enumerate(cells(sweep)):
        write_json(tmp_path / "r" / cell.file, record(sweep, cell, 10.0, 1.0 + k))
    pareto(tmp_path / "r", tmp_path / "p")
    assert {f.name for f in (tmp_path / "p").iterdir()} == {"table.csv", "findings.md"}  # no grid, no plots
    page = (tmp_path / "p" / "findings.md").read_text()
    tables = {part.splitlines()[0]: part for part in page.split("\n## ")[1:]}
    assert {"Critics", "K-means", "Codebook", "Base grid", "Sampling steps"} <= set(tables)
    assert all("| common |" in tables[name] for name in ("Critics", "Sampling steps"))
    order = [line.split(" ")[1] for line in tables["Sampling steps"].splitlines() if line.startswith("| steps")]
    assert order == ["steps2", "steps4", "steps16", "steps32", "steps64"]
    assert "vqvae beside common: worse by hyperspectral" in tables["Critics"]


@pytest.mark.parametrize(("value", "words"), [(0.5, "better by"), (1.05, "not told apart by"), (2.0, "worse by")])
def test_variants_differ_where_their_intervals_are_apart(value, words):
    def row(name: str, v: float) -> dict:
        return {"name": name} | {
            f"{f}{end}": v * s for f in FIGURES for end, s in (("", 1), ("_low", 0.9), ("_high", 1.1))
        }

    assert against(row("a", value), row("common", 1.0)).startswith(f"a beside common: {words}")


def test_more_seeds_never_make_an_interval_narrower():
    assert over_seeds([[1, 0.5, 2], [3, 2.5, 3.5]]) == (2, 0.5, 3.5)


def test_words_say_when_nothing_reaches_what_is_asked_and_name_faster_equals():
    some = [Point("slow", (1, 1, 1), (1, 1, 1), 4, 8, 16), Point("fast", (9, 9, 9), (5, 5, 5), 16, 8, 16)]
    assert recommend(some, max_figure=6).startswith("fast")
    assert recommend(some).startswith("slow")
    assert "None of 2 reaches at least 10 cubes/s" in recommend(some, min_speed=10)
    twin = Point("twin", (4, 4, 4), (1.1, 0.9, 1.2), 4, 8, 16)
    assert "twin is 4.0 times as fast" in recommend([*some, twin])


def test_the_nearest_bands_are_shown_in_the_order_asked(tmp_path: Path):
    nm = np.arange(450, 901, 30.0)
    assert [nm[b] for b in nearest_bands(nm)] == [900, 810, 720, 630, 570, 480]
    assert nearest_bands([450, 555, 900]) == [2, 2, 2, 1, 1, 0]
    cubes = np.random.default_rng(0).random((1, 16, 8, 8)) * 0.1
    files = [tmp_path / "a.png", tmp_path / "a.svg"]
    wavelength_figure(files, {"real": cubes, "synthetic": cubes}, nm)
    assert files[0].read_bytes()[:4] == b"\x89PNG"
    svg = files[1].read_text()
    for words in ("band at 810 nm", "band at 570 nm", "synthetic"):
        assert f"<!-- {words} -->" in svg
