"""`synthgen evaluate`: the cubes of any program, judged and shown beside real ones."""

import json

import h5py
import numpy as np
import pytest
import torch

from synthgen.contracts import Status
from synthgen.cubes.phantom.cohort import simulate_cohort
from synthgen.integration.judging import evaluate as module
from synthgen.integration.judging.evaluate import evaluate
from synthgen.integration.judging.judge import COPY_OF_REAL
from synthgen.integration.judging.reference import open_bank
from synthgen.quality import gates as quality_gates
from synthgen.quality.gates import load_gates
from synthgen.quality.per_cube.acceptance import COPY
from synthgen.report.verdict_page import render


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """A small cohort of patients that nobody has seen."""
    return simulate_cohort(tmp_path_factory.mktemp("fresh") / "few.h5", patients=26, size=64, seed=13, workers=1)


@pytest.fixture(autouse=True)
def figures(monkeypatch):
    """Drawing a page takes seconds: notes alone by default; a test that looks at the page calls this."""
    monkeypatch.setattr(quality_gates, "IMAGES", 12)
    monkeypatch.setattr(module, "render", lambda content: "\n".join(content.notes))
    return lambda: monkeypatch.setattr(module, "render", render)


@pytest.fixture
def judged(eyes, small_gates, tmp_path):
    """Evaluate a file against the cohort of the gates: (verdict, page, JSON)."""

    def call(path, real=eyes.path, **hints):
        verdict, (page, record) = evaluate(path, real, small_gates, tmp_path / "report.html", **hints)
        return verdict, page.read_text(), json.loads(record.read_text())

    return call


def values_of(verdict):
    return {c.name: (c.status, c.value, c.n) for c in verdict.checks}


@pytest.mark.slow
def test_every_format_gives_the_same_verdict(judged, fresh, shard_folder_maker, tmp_path):
    cubes = fresh.cubes()
    np.save(tmp_path / "made.npy", cubes)
    with h5py.File(tmp_path / "made.h5", "w") as file:
        file["data"] = np.moveaxis(cubes, 1, -1)
        file["wavelengths"] = fresh.wavelengths
    shards = shard_folder_maker(tmp_path / "s", cubes, each=15)
    wanted = values_of(judged(fresh.path)[0])
    name = "spectra_frechet"
    assert wanted["memorization"][2] == 52 and wanted[name][1] is not None
    for path in (tmp_path / "made.npy", tmp_path / "made.h5", shards):
        found = values_of(judged(path)[0])
        assert {k: (v[0], v[2]) for k, v in found.items()} == {k: (v[0], v[2]) for k, v in wanted.items()}
        assert found[name][1] == pytest.approx(wanted[name][1], rel=1e-2)


@pytest.mark.slow
def test_numbers_without_wavelengths_are_taken_for_those_of_the_gates(judged, fresh, tmp_path):
    np.save(tmp_path / "made.npy", (fresh.cubes() * 4095).astype(np.uint16))
    page = judged(tmp_path / "made.npy", scale=4095)[1]
    assert "names no wavelengths" in page and "Reflectance 1 is 4095 (given)" in page


@pytest.mark.slow
def test_planted_copies_stand_beside_their_originals(judged, figures, fresh, eyes, small_gates, tmp_path):
    figures()
    bank = open_bank(load_gates(small_gates), eyes)
    assert bank.of_the_gates
    copies = np.stack([bank.picture(4)[:, :, ::-1], 0.9 * bank.picture(11)])
    np.save(tmp_path / "made.npy", np.concatenate([fresh.cubes(), copies]))
    verdict, page, record = judged(tmp_path / "made.npy")
    reasons = {r["id"]: r["reason"] for r in record["rejected"]}
    assert reasons[52] == reasons[53] == COPY and verdict.proposed == 54
    neighbours = page[page.index("<h2>Nearest training") : page.index("<h2>Diversity")]
    assert f"training: {bank.name(4)}" in neighbours and f"training: {bank.name(11)}" in neighbours
    first = neighbours[: neighbours.index("</figure>")]
    assert "class='pair flagged'" in first and f"rejected: {COPY}" in first
    assert "contrastive" in first and "coarse spectra" in first
    for part in ("Statistics on their null", "Distance per band", "Acceptance per stratum", "Rejected cubes"):
        assert f"<h2>{part}" in page, part


@pytest.mark.slow
def test_another_cohort_is_searched_for_neighbours_itself(judged, figures, fresh, small_gates, tmp_path):
    """Gates of one cohort, real cubes of another: distances are to the training cubes at hand, and the page says so."""
    figures()
    bank = open_bank(load_gates(small_gates), fresh)
    assert not bank.of_the_gates
    index = next(i for i in range(9) if load_gates(small_gates)(torch.from_numpy(bank.picture(i)[None])).accept)
    np.save(tmp_path / "made.npy", bank.picture(index)[None, :, ::-1])
    verdict, page, record = judged(tmp_path / "made.npy", real=fresh.path)
    assert [r["reason"] for r in record["rejected"]] == [COPY_OF_REAL]
    assert values_of(verdict)["memorization_of_real"][0] == Status.UNDECIDED  # one cube
    assert f"training: {bank.name(index)}" in page and "distance 0.0" in page
    assert "not the one that the gates were calibrated on" in page


@pytest.mark.slow
def test_exit_codes_and_table(synthgen, eyes, small_gates, fresh, tmp_path):
    words = ["--real", eyes.path, "--gates", small_gates, "--out", tmp_path / "r.html"]
    cubes = fresh.cubes()
    np.save(tmp_path / "few.npy", cubes[:5])
    code, out, err = synthgen("evaluate", "--synthetic", tmp_path / "few.npy", *words)
    assert code == 4 and "undecided" in out and "at least 25 are needed" in out and "125 proposals are needed" in err
    np.save(tmp_path / "dark.npy", np.clip(0.1 * cubes, 0, 1))
    code, out, err = synthgen("evaluate", "--synthetic", tmp_path / "dark.npy", *words, "--scale", 1)
    assert (
        code == 3
        and len(err.splitlines()) == 1
        and "spectrum outside the real envelope" in (tmp_path / "r.json").read_text()
    )
    assert json.loads((tmp_path / "r.json").read_text())["status"] == "fail"
    sound = int(load_gates(small_gates)(torch.from_numpy(cubes[:9])).accept.int().argmax())
    np.save(tmp_path / "same.npy", cubes[sound : sound + 1].repeat(30, 0))
    code, _, err = synthgen("evaluate", "--synthetic", tmp_path / "same.npy", *words)
    assert code == 3 and "all 30 cubes are the same cube" in err


@pytest.mark.slow
def test_broken_numbers_are_rejected_and_drawn(judged, figures, fresh, tmp_path):
    figures()
    cubes = fresh.cubes()
    cubes[3, 2, 5, 5] = np.nan
    cubes[7] = np.inf
    np.save(tmp_path / "made.npy", cubes)
    verdict, page, record = judged(tmp_path / "made.npy")
    reasons = {r["id"]: r["reason"] for r in record["rejected"]}
    assert reasons[3] == reasons[7] == "not finite" and reasons[3] in page
    assert verdict.accepted <= 50


@pytest.mark.slow
def test_bad_input_is_one_line_and_writes_nothing(synthgen, eyes, small_gates, fresh, cohort, tmp_path):
    two = simulate_cohort(tmp_path / "two.h5", patients=2, size=64, seed=14, workers=1)

    def refused(path, *words, out=tmp_path / "no.html", gates=small_gates, real=eyes.path):
        code, _, err = synthgen("evaluate", "--synthetic", path, "--real", real, "--gates", gates, "--out", out)
        assert code == 2 and len(err.splitlines()) == 1 and all(w in err for w in words), err
        assert not (tmp_path / "no.html").exists() and not (tmp_path / "no.json").exists()

    cubes = fresh.cubes()
    np.save(tmp_path / "small.npy", cubes[:, :, :24, :24])
    refused(tmp_path / "small.npy", "another size", "24x24")
    np.save(tmp_path / "few_bands.npy", cubes[:, :7])
    refused(tmp_path / "few_bands.npy", "few_bands.npy")
    refused(tmp_path / "none.npy", "no such file")
    refused(fresh.path, "another size", real=cohort.path)
    refused(fresh.path, "two.h5", "too few patients to split", "found 2", real=two.path)
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "empty")
    refused(fresh.path, "ends in .html", out=tmp_path / "no.json")
