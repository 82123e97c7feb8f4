"""What the pages on augmentations and pretraining say was measured stands in the newest records."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RESULTS, DOCS = ROOT / "benchmarks" / "results", ROOT / "docs"

pytestmark = pytest.mark.skipif(not (ROOT / "README.md").exists(), reason="not a source tree")


def records(name):
    """Oldest first."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def test_augmentations_beside_kornia():
    page = (DOCS / "augmentations.md").read_text()
    runs = records("augmentations")
    for about, row in {
        "cpu, 64, plain": "64 cubes of 64 pixels",
        "cpu, 64, misregistered": "the same, misregistered",
        "cpu, 224, plain": "8 cubes of 224 pixels",
        "cpu, 224, misregistered": "the same, misregistered",
    }.items():
        one = runs[-1][about]
        times = f"{one['times_faster_than_kornia']} | {one['times_faster_than_kornia_affine']} |"
        assert f"| {row} | {one['ms']['ours']} | {times}" in page, about
    assert runs[-1]["threads_used"] == 1, "the page says one core"
    slowest = min(runs[0][f"cpu, 64, {kind}"]["times_faster_than_kornia"] for kind in ("plain", "misregistered"))
    assert f"{slowest}" in page


def interval(value, ends, sign=""):
    return f"{value:{sign}.2f} [{ends[0]:{sign}.2f}, {ends[1]:{sign}.2f}]"


@pytest.fixture(scope="module")
def page():
    return re.sub(r"\s+", " ", (DOCS / "ssl.md").read_text())


def test_learning_curves(page):
    found = records("learning_curves")[-1]
    assert found["weak"] and f"mean spectra reaches {interval(found['lda']['auroc'], found['lda']['interval'])}" in page
    steps = {name: f"{one['steps']:,} " for name, one in found["methods"].items()}
    assert f"{steps['simclr']}steps of SimCLR and {steps['dino']}of DINO" in page
    for name, shown in (("simclr", "SimCLR"), ("dino", "DINO")):
        one = found["methods"][name]
        for probe, called in (("linear", "linear"), ("knn", "nearest neighbours")):
            points = (one["curve"][0], one["untrained, batch norm calibrated"], one["curve"][-1])
            cells = [interval(p[f"{probe}_auroc"], p[f"{probe}_interval"]) for p in points]
            gain = one["after_minus_untrained"][probe]
            row = [f"{shown}, {called}", *cells, interval(gain["difference"], gain["interval"], "+")]
            assert f"| {' | '.join(row)} |" in page, row
            assert gain["interval"][0] < 0, "the page says that nothing was gained"


def test_the_loop_of_lightly(page):
    found, quiet = records("lightly_loop")[-1], records("lightly_speed")[-1]
    assert f"{found['steps']} steps, three seeds" in page and found["seeds"] == 3
    told = []
    for name in ("lightly example", "lightly example, AdamW"):
        for probe in ("linear", "knn"):
            one = found["ours_minus"][name][probe]
            low, high = one["interval"]
            told.append(f"{one['difference']:+.3f} [{low:+.3f}, {high:+.3f}]")
            assert told[-1] in page and low < 0 < high, told[-1]
    speeds = [found["ours_minus"][name]["speed"] for name in ("lightly example", "lightly example, AdamW")]
    assert f"makes {speeds[0]:.2f} times the samples of its example in a second and {speeds[1]:.2f} times" in page
    assert f"makes {quiet['over_lightly_example']:.2f} times as many as the example on quiet cores" in page
    assert f"{found['pretrain_loop']['over_lightly_example']:.2f} times beside other work" in page
