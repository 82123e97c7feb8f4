"""The cube viewer: its numbers, its size, and what it does in a real browser."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

from synthgen.report.viewer import Score, ViewerCube, _fitting, averaged, coded, render, viewer_page

spec = importlib.util.spec_from_file_location("browser", Path(__file__).parents[1] / "browser.py")
browser = importlib.util.module_from_spec(spec)
spec.loader.exec_module(browser)

NM = (450.0, 540.0, 660.0, 850.0)


def cubes(n=3, side=40):
    rng = np.random.default_rng(0)
    level = np.array([0.005, 0.05, 0.2, 0.4])[:, None, None]
    many = (level * (0.2 + rng.random((n, 4, side, side)))).astype(np.float32)
    vein = np.zeros((side, side), bool)
    vein[10:14, 5:30] = True
    scores = [Score("distance to the nearest training cube", "0.2", "at least 0.7", False)]
    return [
        ViewerCube(
            "cube 7", "synthetic", many[0], {"vein": vein}, "drawn", "rejected: a copy", False, scores, 2, "near"
        ),
        ViewerCube("p1 OD", "real", many[1], {"vein": ~vein, "fov": ~vein}),
        ViewerCube("p2 OS </script><b>", "training", many[2]),
    ][:n]


@pytest.mark.parametrize("bits", [8, 16])
def test_stored_values_are_near_in_dark_bands_too(bits):
    cube = (
        np.linspace(0, 1, 4 * 50 * 50, dtype=np.float32).reshape(4, 50, 50)
        * np.array([0.01, 0.1, 0.5, 1])[:, None, None]
    )
    tops = [0.01, 0.1, 0.5, 1.0]
    stored = coded(cube, tops, bits).astype(float)
    back = np.array(tops)[:, None, None] * (stored / (2**bits - 1)) ** 2
    step = 1 / (2**bits - 1)
    assert np.all(np.abs(back - cube) <= np.array(tops)[:, None, None] * step * (1 + step))
    dark = cube[0] < 0.0004  # 4 % of its top: an even scale of 8 bits would be off by 2 % of the top's hundredth
    assert np.abs(back - cube)[0][dark].max() < 0.25 * step * 0.01 * 2


def test_pages_stay_small():
    assert _fitting((16, 64, 64), 8, 4 << 20) == (16, 1)
    assert _fitting((16, 224, 224), 5, 4 << 20) == (8, 1)
    assert _fitting((16, 224, 224), 16, 4 << 20) == (8, 2)
    bits, factor = _fitting((16, 672, 672), 16, 4 << 20)
    assert 16 * 16 * (672 // factor) ** 2 * bits // 8 <= 4 << 20
    array = np.arange(2 * 5 * 6, dtype=float).reshape(2, 5, 6)
    assert averaged(array, 2).shape == (2, 2, 3) and averaged(array, 2)[1, 0, 0] == array[1, :2, :2].mean()
    assert "means of 2 x 2 pixels" in render(cubes(side=80), NM, title="x", budget=3 * 4 * 50**2)


def test_the_page_loads_nothing_and_a_name_cannot_break_it():
    text = render(cubes(), NM, title="<i>eyes", listed=2)
    assert not re.search(r"https?:|\bsrc=|@import|url\(|fetch\(|XMLHttp", text)
    assert text.count("</script>") == 2 and "<b>" not in re.sub(r"<b>spectrum at the point</b>", "", text)
    assert "&lt;i&gt;eyes" in text


def test_one_picture_fills_a_narrow_page(tmp_path):
    page = tmp_path / "x.html"
    viewer_page(page, cubes()[1:2], NM, title="eyes")
    result = browser.run_in(
        page,
        """
        result.inner = innerWidth; result.left = document.getElementById("left").getBoundingClientRect().width;
        result.page = document.documentElement.scrollWidth;
        """,
        "--window-size=500,900",  # the narrowest that chromium opens
    )
    assert result["left"] > 0.85 * result["inner"] and result["page"] <= result["inner"]


def test_in_a_browser(tmp_path):
    """Clicks, keys and controls: the numbers on the page are those of the cubes."""
    shown = cubes()
    page = tmp_path / "x.html"
    viewer_page(page, shown, NM, title="eyes", listed=2)
    result = browser.run_in(
        page,
        """
        const $ = id => document.getElementById(id), press = (key, more = {}) =>
          document.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, ...more }));
        const click = (id, row, column, more = {}) => { const r = $(id).getBoundingClientRect();
          $(id).dispatchEvent(new MouseEvent("click", { clientX: r.left + (column + 0.5) / 40 * r.width,
            clientY: r.top + (row + 0.5) / 40 * r.height, bubbles: true, ...more })); };
        const pixel = (id, row, column) => [...$(id).getContext("2d").getImageData(column, row, 1, 1).data].slice(0, 3);
        const lines = () => [...document.querySelectorAll("#spectrum path")].length;
        result.listed = $("cubes").children.length;
        result.beside = $("right-name").textContent;
        result.scores = $("scores").textContent;
        click("left", 12, 20);
        result.spectra = [0, 2].map(c => spectrum(c, 12 * 40 + 20));
        $("band").value = 2; $("band").dispatchEvent(new Event("input"));
        result.readout = $("readout").textContent;
        result.grey = pixel("left", 12, 20);
        press("s");
        result.tinted = pixel("left", 12, 20); result.bare = pixel("left", 30, 20);
        press("s");
        click("right", 3, 4, { shiftKey: true });
        result.two_points = lines();
        press("ArrowDown", { shiftKey: true });
        result.moved = $("readout").textContent;
        press("x"); result.no_points = lines();
        press("ArrowRight"); result.nm = $("nm").textContent;
        press("ArrowDown"); result.next = $("left-name").textContent;
        result.hidden = getComputedStyle($("second")).display;
        result.beside_it = $("beside").options[0].textContent;
        result.hint = $("spectrum").textContent;
        result.ticks = [...document.querySelectorAll("#spectrum text")].map(t => t.textContent).slice(0, 4);
        click("left", 12, 20);
        result.chart = $("spectrum").textContent; result.dots = document.querySelectorAll("#spectrum circle").length;
        const share = n => n.getBoundingClientRect().width / $("work").getBoundingClientRect().width;
        result.wide = [share($("left")), share($("spectrum"))];
        press("x");
        const before = getComputedStyle(document.body).backgroundColor;
        press("d"); result.dark = [before, getComputedStyle(document.body).backgroundColor];
        result.hash = location.hash;
        """,
    )
    assert result["listed"] == 2 and result["beside"] == "training: p2 OS </script><b> (near)"
    assert (
        "rejected: a copy" in result["scores"] and "at least 0.7" in result["scores"] and "beyond" in result["scores"]
    )
    for found, cube in zip(result["spectra"], (shown[0], shown[2]), strict=True):
        assert found == pytest.approx(cube.cube[:, 12, 20].tolist(), rel=1e-3)
    assert result["readout"].startswith("row 12, column 20, 660 nm: ")
    left, right = (float(v) for v in re.findall(r"([\d.]+) %", result["readout"]))
    assert left == pytest.approx(100 * shown[0].cube[2, 12, 20], rel=5e-3)
    assert right == pytest.approx(100 * shown[2].cube[2, 12, 20], rel=5e-3)
    assert len(set(result["grey"])) == 1 and len(set(result["tinted"])) > 1 and len(set(result["bare"])) == 1
    assert result["two_points"] == 4 and result["no_points"] == 0
    assert result["moved"].startswith("row 4, column 4")
    assert result["nm"] == "850 nm" and result["next"] == "real: p1 OD" and result["hidden"] == "none"
    assert result["beside_it"] == "nothing" and result["ticks"] == ["450", "540", "660", "850"]  # the bands themselves
    assert "no point chosen" in result["hint"] and "%" not in result["hint"]  # no scale of what is not there
    assert "reflectance (%)" in result["chart"] and result["dots"] == len(NM)
    assert all(share > 0.4 for share in result["wide"])  # the spectrum takes the place of the second picture
    assert result["dark"][0] != result["dark"][1] and "cube=1" in result["hash"] and "band=3" in result["hash"]
