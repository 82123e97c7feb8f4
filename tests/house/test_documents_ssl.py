"""What the pages on augmentations, pretraining and the study say was measured stands in the records."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from synthgen.config import load
from synthgen.experiments.study.findings import findings_of
from synthgen.experiments.study.options import Study

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


def test_what_the_study_page_says_came_out():
    results = sorted((RESULTS / "study").glob("*.json"))
    study = load(Study, ROOT / "configs" / "study_small.yaml").model_copy(update={"results": str(results[0].parent)})
    found = findings_of(study, json.loads(results[0].read_text())["study"])
    page = (DOCS / "study.md").read_text().split("## What came out")[1].split("\n## ")[0]
    assert len(results) == 45 and "All 45 jobs" in page and f"{found.n_patients} simulated patients" in page
    assert page.count("\n| ") - 2 == len(found.arms)
    for arm in found.arms:
        against = found.between(arm.arm, "real")
        low, high = against.interval if against else (0, 0)
        beside = f"{against.difference:+.3f} [{low:+.3f}, {high:+.3f}] " if against else ""
        assert f"| {arm.arm} | {len(arm.seeds)} | {np.mean(arm.aurocs):.3f} | {beside}|" in page
    said = " ".join(found.conclusion)
    assert (
        said.startswith("No gain")
        and "**No gain" in page
        and "smaller than about 0.07" in said
        and "about 0.07" in page
    )
    longer = json.loads((RESULTS / "study" / "real-much-longer-seed0.json").read_text())
    assert f"{longer['steps']:,} steps" in page and f"reaches {longer['probe']['auroc']:.3f}" in page
    generator, gates, real = (
        json.loads((results[0].parent / f"{name}.json").read_text()) for name in ("generator", "gates", "real-seed0")
    )
    minutes = (generator["seconds"] + gates["seconds"]) / 60
    assert f"the {minutes:.0f} minutes of generator and gates" in page.replace("\n", " ")
    assert f"with seed 0 alone is {real['probe']['auroc']:.3f}" in page


def test_what_the_study_page_says_of_the_default_augmentation():
    folder = RESULTS / "study_default_augmentation"
    page = (DOCS / "study.md").read_text().split("**With the default augmentation**")[1].split("\n## ")[0]
    assert f"{len(list(folder.glob('*.json')))} of its jobs" in page
    for arm in ("real", "mixed-0.5", "random-weights", "mean-spectra"):
        found = [json.loads(path.read_text()) for path in folder.glob(f"{arm}*.json")]
        mean = np.mean([run["probe"]["auroc"] for run in found if run["arm"] == arm])
        assert f"{mean:.3f}" in page, arm
