"""The verdict page stands alone, says the verdict first, and shows what it is given."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from synthgen.report.verdict_bands import null_figure, strata_figure, wasserstein_figure
from synthgen.report.verdict_figures import distribution_figure, mean_with_error, picture
from synthgen.report.verdict_page import Distribution, Pair, VerdictContent, render, verdict_page
from synthgen.report.verdict_style import in_words, label_of

NM = tuple(450.0 + 30 * i for i in range(16))
PNG = b"\x89PNG"
VOID = {"meta", "img", "br"}


def check(name, status="pass", **values):
    return {
        "name": name,
        "status": status,
        "value": None,
        "interval": None,
        "limit": None,
        "n": 0,
        "reason": "",
    } | values


@pytest.fixture
def content():
    rng = np.random.default_rng(0)
    cubes = rng.uniform(0.02, 0.3, (4, 16, 12, 12)).astype(np.float32)
    logs = np.log(rng.uniform(0.05, 0.1, (12, 16)))
    logs[2] = np.nan  # a cube without the structure
    both = {"real": rng.normal(1, 0.1, 50), "synthetic": rng.normal(1, 0.1, 60)}
    checks = [
        check("acceptance", value=0.98, interval=(0.9, 1.0), limit=0.5, n=60, reason="59 of 60 proposals admitted"),
        check(
            "joint_frechet_ratio",
            "fail",
            value=4.1,
            interval=(3.6, 4.7),
            limit=2.5,
            n=59,
            reason="4.10 times <real>",
        ),
        check("artery_level", "absent", reason="found in too few"),
    ]
    return VerdictContent(
        title="cubes & <script>alert(1)</script>",
        verdict={"status": "fail", "checks": checks, "proposed": 60, "accepted": 59},
        facts=[("cubes judged", "60")],
        wavelengths=NM,
        notes=["a note"],
        bands=[{**checks[1], "null": np.linspace(0.4, 1.9, 21).tolist()}],
        cubes=[Distribution("Distance", "d", both, (0.5,))],
        envelope={"synthetic": np.exp(logs)},
        envelope_limits=np.exp(np.stack([logs[0] - 1, logs[0] + 1])),
        spectra={"vein": {"real": (logs, np.arange(12) // 2), "synthetic": (logs + 0.1, np.arange(12))}},
        wasserstein={"vein": (np.linspace(1, 3, 16), np.ones(16))},
        strata=[("all", 60, 59, (0.9, 1.0)), ("eye: disc left", 30, 29, (0.8, 1.0))],
        structures=[Distribution("vein: level", "%", {"real": np.ones(3), "synthetic": np.full(4, 2.0)}, log=True)],
        pairs=[Pair(cubes[0], cubes[1], "synthetic, cube 0", "training: p1", "distance 0.1", True)],
        diversity=[Distribution("MS-SSIM", "s", both, mean=True)],
        alike=Pair(cubes[2], None, "synthetic", "not at hand"),
        rejected=[(cubes[3], "cube 17", "constant band")],
        rejected_by={"constant band": 3},
        shards=[{"name": "shard-00000.tar", "count": 60, "rejected": 1, "own": "fail", "status": "fail", "reason": ""}],
    )  # fmt: skip


class Outline(HTMLParser):
    """Checks that tags nest, and keeps what would be loaded and what is read first."""

    def __init__(self):
        super().__init__()
        self.open, self.loads, self.words, self.images = [], [], [], 0

    def handle_starttag(self, tag, attrs):
        self.images += tag == "img"
        self.loads += [v for k, v in attrs if k in ("src", "href", "srcset", "data") and not v.startswith("data:")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip() and "style" not in self.open and "title" not in self.open:
            self.words.append(data.strip())


def read(text):
    outline = Outline()
    outline.feed(text)
    assert not outline.open
    return outline


@pytest.mark.slow
def test_the_page_stands_alone(content, tmp_path):
    verdict_page(tmp_path / "v.html", content)
    text = (tmp_path / "v.html").read_text()
    outline = read(text)
    assert outline.loads == [] and not re.search(r"https?:|@import|url\(|<script", text)
    assert outline.images == 12 and text.count("data:image/png;base64,") == 12


@pytest.mark.slow
def test_the_verdict_comes_first_in_words(content):
    words = read(render(content)).words
    assert words[0].endswith("failed")
    assert words[1].startswith("1 of 2 checks lie beyond their limits: learned features and structures: Fréchet ratio")


@pytest.mark.slow
def test_names_from_outside_are_not_markup(content):
    text = render(content)
    assert "<script>" not in text and "&lt;script&gt;" in text and "4.10 times &lt;real&gt;" in text


@pytest.mark.slow
def test_every_part_is_there(content):
    text = " ".join(read(render(content)).words)
    for word in ("3.6 to 4.7", "2.5", "a note", "shard-00000.tar", "training: p1", "distance 0.1", "cube 17",
                 "3 rejected (constant band: 3). 1 are shown.", "at least 0.5"):  # fmt: skip
        assert word in text, word
    assert "class='pair flagged'" in render(content)


@pytest.mark.parametrize("status", ["pass", "undecided"])
def test_a_page_on_next_to_nothing(status):
    empty = VerdictContent("none", {"status": status, "checks": [check("set", status)]}, [], NM)
    words = " ".join(read(render(empty)).words)
    assert "Too few cubes to compare" in words and "None of these cubes was rejected" in words


def test_words_follow_the_checks():
    passed = {"status": "pass", "checks": [check("memorization"), check("disc_level", "absent")]}
    assert in_words(passed).startswith("All 1 checks lie within") and "optic disc: level" in in_words(passed)
    unsure = {"status": "undecided", "checks": [check("set", "undecided"), check("copies")]}
    assert in_words(unsure) == "1 of 2 checks cannot be decided: set of cubes."
    assert label_of("ms_ssim_3_difference").startswith("Diversity") and label_of("new_check") == "New check"


def test_confidence_counts_patients_not_cubes():
    """Two equal cubes of each patient say no more than one."""
    rng = np.random.default_rng(1)
    logs = rng.normal(size=(10, 3))
    mean, error, n = mean_with_error(logs, np.arange(10))
    again = mean_with_error(np.repeat(logs, 2, 0), np.repeat(np.arange(10), 2))
    assert n == again[2] == 10
    np.testing.assert_allclose(again[0], mean)
    np.testing.assert_allclose(again[1], error)
    inside = [
        abs(m[0]) <= e[0] for m, e, _ in (mean_with_error(rng.normal(size=(8, 1)), np.arange(8)) for _ in range(400))
    ]
    assert 0.9 <= np.mean(inside) <= 0.99


def test_figures_take_what_comes():
    gaps = np.full((16, 8, 8), np.nan, np.float32)
    assert picture(gaps, NM).startswith(PNG)
    for log in (False, True):
        assert distribution_figure({"synthetic": np.array([np.nan])}, (), "x", log=log).startswith(PNG)
        assert distribution_figure({"real": np.zeros(3), "synthetic": np.ones(3)}, (), "x", log=log).startswith(PNG)
    assert distribution_figure({"real": np.zeros(5), "synthetic": np.zeros(5)}, (0.0,), "x").startswith(PNG)


@pytest.mark.parametrize("value", [0.0, 1.0, 1e6, -4.0])
def test_null_bands_take_what_comes(value):
    """Far beyond the limit, far below, a null without width, no interval."""
    row = {"label": "x", "status": "fail", "value": value, "interval": None, "limit": 1.0}
    for null in (np.linspace(0, 1, 21), np.ones(21)):
        assert null_figure([{**row, "null": null.tolist()}]).startswith(PNG)


def test_strata_and_bands_without_a_reference():
    assert strata_figure([("all", 1, 0, (0.0, 0.975))]).startswith(PNG)
    assert wasserstein_figure(NM, {"disc": (np.ones(16), np.full(16, np.nan))}).startswith(PNG)
