"""What the pages on augmentations and pretraining say was measured stands in the newest records."""

import json
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
