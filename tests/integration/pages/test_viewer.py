"""`synthgen view --out x.html`: which cubes stand beside which, from cohorts and from shards."""

import json
import re

import numpy as np
import pytest

from synthgen.cubes.cohort.splits import load_or_make_split
from synthgen.cubes.phantom.cohort import simulate_cohort
from synthgen.integration.pages.viewer import view


def shown(page):
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.S)
    return json.loads(found[1])


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """Eyes at the size of the packaged gates."""
    return simulate_cohort(tmp_path_factory.mktemp("few") / "few.h5", patients=5, size=64, seed=31, workers=1)


@pytest.mark.slow
def test_a_copy_stands_beside_its_original(synthgen, shard_folder_maker, few, tmp_path):
    """Judged by the packaged gates; the nearest training cubes are those of another cohort."""
    train = few.index_of(load_or_make_split(few).train)
    cubes = few.cubes(train)
    folder = shard_folder_maker(tmp_path / "s", np.stack([cubes[3][:, :, ::-1], 0.95 * cubes[1]]))
    page = tmp_path / "x.html"
    assert synthgen("view", folder, "--gates", "phantom64", "--real", few.path, "--out", page)[0] == 0
    data = shown(page)
    assert data["listed"] == 2
    assert [c["kind"] for c in data["cubes"]] == ["synthetic"] * 2 + ["nearest in few.h5"] * 2
    assert data["cubes"][0]["scores"][0]["label"] == "distance to the nearest in few.h5"
    assert "not known to have learned from" in page.read_text()
    for k, index in enumerate((3, 1)):
        partner = data["cubes"][data["cubes"][k]["partner"]]
        assert partner["name"] == f"{few.patient_id[train[index]]} {few.eye[train[index]]}"
        assert partner["masks"] and float(data["cubes"][k]["scores"][0]["value"]) < 0.3
    assert {"vein", "artery", "disc"} >= set(data["cubes"][0]["masks"]) and data["cubes"][0]["found"]


@pytest.mark.slow
def test_only_what_a_generator_learned_from_is_called_its_training_cubes(shard_folder_maker, few, tmp_path):
    """By the hash of the cohort in the provenance of the generator that made the shards."""
    cubes = few.cubes(few.index_of(load_or_make_split(few).train))[:1]
    folder = shard_folder_maker(tmp_path / "s", cubes, provenance=few.provenance())
    page = view(folder, tmp_path / "x.html", gates_folder="phantom64", real=few.path)
    assert [c["kind"] for c in shown(page)["cubes"]] == ["synthetic", "training"]
    assert "not known to have learned from" not in page.read_text()
    page = view(folder, tmp_path / "x.html", gates_folder="phantom64")
    assert shown(page)["cubes"][0]["scores"][0]["label"] == "distance to the nearest training cube of the gates"


def test_a_cohort_alone_and_beside_a_generator(synthgen, cohort, generator_folder, tmp_path):
    page = tmp_path / "x.html"
    assert synthgen("view", cohort.path, "--count", 3, "--index", 2, "--out", page)[0] == 0
    data = shown(page)
    assert [c["kind"] for c in data["cubes"]] == ["real"] * 3 and data["listed"] == 3
    assert data["wavelengths"] == list(cohort.wavelengths) and data["cubes"][0]["scores"] == []
    words = ("--generator", generator_folder, "--count", 2, "--steps", 1, "--out", page)
    assert synthgen("view", cohort.path, *words)[0] == 0
    data = shown(page)
    assert [(c["kind"], c["partner"]) for c in data["cubes"]] == [
        ("synthetic", 2), ("synthetic", 3), ("real", None), ("real", None)]  # fmt: skip


@pytest.mark.slow
def test_what_cannot_be_shown_is_reported_in_one_line(synthgen, cohort, shard_folder_maker, tmp_path):
    shards = shard_folder_maker(tmp_path / "s", np.ones((2, 16, 32, 32), np.float32) / 2)
    for words, message in (
        ((cohort.path, "--index", 99), "no cube of that index"),
        ((shards, "--generator", "phantom64"), "already hold"),
        ((cohort.path, "--generator", "phantom64"), "another shape"),
        ((shards, "--gates", "phantom64"), "another size than the gates"),
    ):
        code, _, err = synthgen("view", *words, "--out", tmp_path / "x.html")
        assert code == 2 and message in err and len(err.splitlines()) == 1
    assert not (tmp_path / "x.html").exists()
