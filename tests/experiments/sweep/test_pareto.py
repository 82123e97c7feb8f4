"""The front, the table, the words, the tables of the ablations; the figure of six wavelengths."""

from __future__ import annotations

import csv
import io
import re
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthgen.config import load
from synthgen.cubes.cohort.cohort import Cohort
from synthgen.cubes.phantom.cohort import simulate_cohort
from synthgen.errors import InputError, MismatchError
from synthgen.experiments.sweep import pareto as pareto_module
from synthgen.experiments.sweep.pareto import as_csv, over_seeds, pareto, table
from synthgen.experiments.sweep.pareto_page import FIGURES, TILTS, against
from synthgen.experiments.sweep.plan import Cell, Sweep, asked, cells
from synthgen.integration.pages.figure import origin
from synthgen.report.pareto import Point, front, recommend, spaced
from synthgen.report.wavelength_figure import lit_mean, wavelength_figure
from synthgen.runs.files import read_json, write_json

ROOT = Path(__file__).parents[3]
QUESTIONS = ("Discriminators", "K-means", "Codebook", "Base grid", "Sampling steps")


def record(sweep: Sweep, cell: Cell, speed: float | None, value: float) -> dict:
    """A record whose figures are all `value`, +- 10 %."""
    return {
        "status": "done",
        **asked(sweep, cell),
        "figures": {name: [value, value * 0.9, value * 1.1] for name in FIGURES},
        "speed": speed and {"cubes_per_s": [speed, speed, speed], "threads": 2, "device": "cpu"},
        "interpolation_frechet": value,
        "tilt_retained": [0.9, 0.8, 1.0],
        "tilt_left_half": None,
        "trained": {"autoencoder": {"steps": 10, "validation_l1": 0.125}, "diffusion": {"steps": 20}},
        "parameters": {"autoencoder": 1, "flow": 2},
        "cohort": "c0",
        "gates_hash": "g0",
    }


@pytest.fixture
def undrawn(monkeypatch):
    """Plots take seconds, and have a test of their own."""
    monkeypatch.setattr(pareto_module, "draw", lambda *about: [])


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=20))
def test_the_front_is_what_nothing_beats_and_everything_else_is_beaten_by_it(points):
    kept = front(points)

    def beats(p, q):
        return p[0] >= q[0] and p[1] <= q[1] and p != q

    assert not any(beats(p, points[i]) for i in kept for p in points)
    assert all(any(beats(points[i], p) for i in kept) for k, p in enumerate(points) if k not in kept)
    assert all(points[a][1] <= points[b][1] for a, b in pairwise(kept))


@pytest.mark.slow
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
        assert read == {k: "" if v is None else str(v) for k, v in row.items() if k != "coder"}
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
    named = {name: tables[f"{name} (one training each)"] for name in QUESTIONS}
    assert all("| common |" in part for part in named.values())

    def order(name: str) -> list[str]:
        return [line.split(" ")[1] for line in named[name].splitlines() if re.match(r"\| \w+ \| 1 ", line)]

    assert order("Sampling steps") == ["steps2", "steps4", "common", "steps16", "steps32", "steps64"]
    assert order("Codebook") == ["codes256", "common", "codes4096"]
    assert "vqvae beside common (one training each): worse by hyperspectral" in named["Discriminators"]
    assert "not distinguishable by tilt kept" in named["Discriminators"] and "tilt kept." not in named["Sampling steps"]
    assert "| 0.9 [0.8, 1] | 2 | 0.125 |" in named["Discriminators"]
    assert "left half" not in named["Discriminators"].splitlines()[2]


@pytest.mark.parametrize(("value", "words"), [(0.5, "better by"), (1.05, "not distinguishable by"), (2.0, "worse by")])
def test_variants_differ_where_their_intervals_are_apart(value, words):
    def row(name: str, v: float) -> dict:
        return {"name": name, "seeds": 2, "coder": name} | {
            f"{f}{end}": v * s for f in (*FIGURES, *TILTS) for end, s in (("", 1), ("_low", 0.9), ("_high", 1.1))
        }

    assert against(row("a", value), row("common", 1.0)).startswith(f"a beside common: {words}")


@pytest.mark.parametrize(
    ("kept", "base", "words"),
    [
        ((0.1, 0.2), (0.7, 0.8), "worse by tilt kept"),
        ((0.95, 1.0), (0.7, 0.8), "better by tilt kept"),
        ((1.4, 1.5), (0.9, 1.05), "worse by tilt kept"),  # exaggerated
        ((0.7, 0.9), (0.8, 1.0), "not distinguishable by tilt kept"),
    ],
)
def test_more_of_a_tilt_is_better_up_to_all_of_it(kept, base, words):
    def row(name: str, low: float, high: float) -> dict:
        none = dict.fromkeys((*FIGURES, *TILTS))
        tilt = {"tilt_retained": (low + high) / 2, "tilt_retained_low": low, "tilt_retained_high": high}
        return {"name": name, "seeds": 1, "coder": name, **none, **tilt}

    assert against(row("a", *kept), row("b", *base)) == f"a beside b (one training each): {words}."


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cohort": "another"}, "all records must be alike in 'cohort'; found 'another'; expected 'c0', as in 3 of 4"),
        ({"gates_hash": "another"}, "all records must be alike in 'gates_hash'"),
        ({"sampler": "euler"}, "all records must be alike in 'sampler'"),
        ({"autoencoder": {"compression": 4, "latent_channels": 8, "minutes": 9}}, "alike in 'autoencoder"),
        ({"diffusion": {"channels": 16, "minutes": 9}}, "the cells of the grid must be alike in 'diffusion"),
        ({"name": "f16_d8_c16", "seed": 1}, "the seeds of f16_d8_c16 must be alike in 'diffusion.channels'"),
        ({"name": "f16_d8_c16", "diffusion": None}, "holds the same cell and seed as f16_d8_c16_seed0.json"),
    ],
)
def test_a_record_that_does_not_belong_is_named_in_one_line(tmp_path: Path, change, words, undrawn):
    sweep = load(Sweep, ROOT / "configs/sweep64.yaml")
    plan = cells(sweep)[:4]
    for cell in plan:
        write_json(tmp_path / cell.file, record(sweep, cell, 10.0, 1.0))
    pareto(tmp_path, tmp_path / "p")
    odd = read_json(tmp_path / plan[2].file)
    change = {k: read_json(tmp_path / plan[0].file)[k] if v is None else v for k, v in change.items()}
    write_json(tmp_path / plan[2].file, odd | change)
    with pytest.raises(MismatchError) as found:
        pareto(tmp_path, tmp_path / "p")
    assert words in str(found.value) and str(tmp_path / plan[2].file) in str(found.value)
    assert len(str(found.value).splitlines()) == 1


@pytest.mark.slow
def test_seeds_add_up_and_may_differ_in_their_seed_alone(tmp_path: Path, undrawn):
    sweep = load(Sweep, ROOT / "configs/sweep64.yaml", {"seeds": [0, 1], "channels": [16], "compression": [8]})
    for k, cell in enumerate(cells(sweep)):
        write_json(tmp_path / cell.file, record(sweep, cell, 10.0, 1.0 + k))
    pareto(tmp_path, tmp_path / "p")
    page = (tmp_path / "p" / "findings.md").read_text()
    assert "| f8_d8_c16 | 2 |" in page and "one training each" not in page.lower()


@given(st.lists(st.floats(-0.2, 1.2), max_size=30))
def test_names_of_the_front_lie_apart_in_the_order_of_their_points(heights):
    placed = spaced(heights)
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    inside = [placed[i] for i in order]
    assert all(b - a >= min(0.055, 1 / max(len(heights) - 1, 1)) - 1e-9 for a, b in pairwise(inside))
    assert all(-1e-9 <= v <= 1 + 1e-9 for v in inside)


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
    cubes = np.random.default_rng(0).random((1, 16, 8, 8)) * 0.1
    files = [tmp_path / "a.png", tmp_path / "a.svg"]
    cubes[0, 15], cubes[0, 12] = 0.25, 0.5 * (np.arange(64).reshape(8, 8) >= 32)  # flat; half of it outside the eye
    assert lit_mean(cubes[0, 15]) == 0.25 and lit_mean(cubes[0, 12]) == 0.5
    wavelength_figure(files, {"real": cubes, "synthetic": cubes}, nm)
    assert files[0].read_bytes()[:4] == b"\x89PNG"
    svg = files[1].read_text()
    for words in ("band at 810 nm", "band at 570 nm", "synthetic"):
        assert f"<!-- {words} -->" in svg


def test_simulated_cubes_are_not_called_real(tmp_path: Path):
    eyes = simulate_cohort(tmp_path / "eyes.h5", patients=3, size=64, seed=1, workers=1)
    assert origin(eyes) == "simulated"
    with h5py.File(eyes.path, "a") as file:
        del file.attrs["phantom_version"]
    assert origin(Cohort.open(eyes.path)) == "real"
