"""`synthgen view`: any file that can be read becomes one legible page."""

import sys

import h5py
import matplotlib.image
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from synthgen.cli import app as cli
from synthgen.cubes.cohort.writer import CohortWriter
from synthgen.cubes.phantom.simulate import simulate_cube
from synthgen.report import cube_page as page

NM = tuple(450.0 + 30 * i for i in range(16))


@pytest.fixture(scope="module")
def eye():
    return simulate_cube(0, "OD", size=64)


@pytest.fixture
def run(capsys, monkeypatch):
    def call(*words):
        monkeypatch.setattr(sys, "argv", ["synthgen", *map(str, words)])
        try:
            cli.main()
        except SystemExit as stop:
            return stop.code or 0, capsys.readouterr().err
        return 0, capsys.readouterr().err

    return call


@pytest.fixture
def figures(monkeypatch):
    """The figures that are drawn, before they are saved."""
    seen = []
    save = page.save_figure
    monkeypatch.setattr(
        page, "save_figure", lambda figure, path, **more: (seen.append(figure), save(figure, path, **more))
    )
    return seen


def texts(figure):
    """Every visible text of a figure with its box in pixels."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    found = list(figure.texts)
    for axis in figure.axes:
        found += [*axis.texts, axis.title, axis._left_title, axis.xaxis.label, axis.yaxis.label]
        found += axis.get_legend().get_texts() if axis.get_legend() else []
        for ticks, (low, high), k in (
            (axis.get_xticklabels(which="both"), axis.get_xlim(), 0),
            (axis.get_yticklabels(which="both"), axis.get_ylim(), 1),
        ):  # ticks beyond the limits exist as texts but are not drawn
            found += [t for t in ticks if low <= t.get_position()[k] <= high]
    return [(t.get_text(), t.get_window_extent(renderer)) for t in found if t.get_text().strip()]


def check_legible(figure):
    found = texts(figure)
    width, height = figure.get_size_inches() * figure.dpi
    for text, box in found:
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height, f"{text} leaves the page"
    for i, (one, a) in enumerate(found):
        for other, b in found[i + 1 :]:
            overlap = min(a.x1, b.x1) - max(a.x0, b.x0) > 1 and min(a.y1, b.y1) - max(a.y0, b.y0) > 1
            assert not overlap, f"'{one}' lies on '{other}'"
    return [text for text, _ in found]


@pytest.mark.slow
def test_a_cohort_with_structures(run, eye, tmp_path, figures):
    with CohortWriter(tmp_path / "c.h5", NM, 64, 64) as out:
        for i in range(2):
            out.append(eye.cube, f"p{i}", eye="OD", visit=3, masks=eye.masks)
    assert run("view", tmp_path / "c.h5", "--index", 1, "--out", tmp_path / "x.png") == (0, "")
    message = check_legible(figures[0])
    assert "patient p1, OD, visit 3, c.h5, cube 1" in message and "all bands" in message
    assert {f"{nm:.0f} nm" for nm in NM} <= set(message)
    assert {"artery", "vein", "disc", "background"} <= {t.split(" (")[0] for t in message}
    assert any(t.startswith("840 / 660 / 540 nm as red / green / blue") for t in message)
    assert min(matplotlib.image.imread(tmp_path / "x.png").shape[:2]) > 900


@pytest.mark.slow
@pytest.mark.parametrize("bands", [1, 5, 31, 198, *(pytest.param(n, marks=pytest.mark.torture) for n in (3, 16, 91))])
def test_any_number_of_bands_is_legible(run, eye, tmp_path, figures, bands):
    cube = eye.cube[np.arange(bands) % 16][:, 4:, :]
    np.save(tmp_path / "c.npy", (cube * 9000).astype(np.uint16))
    nm = ",".join(f"{w:.1f}" for w in np.linspace(450, 900, bands))
    words = ("view", tmp_path / "c.npy", "--source-wavelengths", nm, "--out", tmp_path / "x.png")
    assert run(*words) == (0, "")
    message = check_legible(figures[0])
    assert ("all bands" in message) == (bands <= page.MOST_BANDS) and "field of view" in message
    assert run(*words, "--bands", "six") == (0, "")
    assert sum(t.endswith(" nm") for t in check_legible(figures[1])) == min(6, bands)


def test_false_colour_takes_the_nearest_bands_each_stretched(eye):
    nm = (500, 545, 655, 700, 845, 900)
    cube = np.random.default_rng(0).random((6, 40, 40)) * np.array([1, 0.01, 0.1, 1, 0.5, 1])[:, None, None]
    field = np.ones((40, 40), bool)
    field[:5] = False
    picture, used = page.false_colour(cube, nm, field)
    assert used == [845, 655, 545] and picture.shape == (40, 40, 3)
    assert picture[:5].max() == 0 and picture.min() == 0 and picture.max() == 1
    assert picture[5:].mean((0, 1)) == pytest.approx([0.5] * 3, abs=0.05)


def test_what_cannot_be_shown_is_reported_in_one_line(run, tmp_path):
    np.save(tmp_path / "a.npy", np.ones((3, 20, 20), np.float32))
    for words, found in (
        (("none.h5",), "no such file"),
        ((tmp_path / "a.npy",), "wavelengths absent"),
        ((tmp_path / "a.npy", "--source-wavelengths", "450,500,550", "--index", 4), "no cube of that index"),
        (
            (tmp_path / "a.npy", "--source-wavelengths", "450,500,550", "--bands", "two"),
            "--bands: input",
        ),
    ):
        code, message = run("view", *words, "--out", tmp_path / "x.png")
        assert code == 2 and found in message and len(message.splitlines()) == 1
    assert not (tmp_path / "x.png").exists()


def test_a_cube_of_broken_pixels_is_shown_and_reported(run, eye, tmp_path, figures):
    cube = eye.cube.copy()
    cube[3, 20:24] = np.nan
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file["cube"], file["wavelengths"] = cube, NM
    assert run("view", tmp_path / "c.h5", "--axes", "chw", "--out", tmp_path / "x.png") == (0, "")
    assert any("256 broken pixels" in t for t in check_legible(figures[0]))
