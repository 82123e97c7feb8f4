"""Vessels and disc of the phantom from a few labelled cubes."""

import numpy as np
import pytest
import torch

from synthgen.cubes.cohort.cohort import Cohort
from synthgen.cubes.phantom.cohort import simulate_cohort
from synthgen.cubes.reflectance import band_statistics
from synthgen.errors import InputError
from synthgen.experiments import dense_probe
from synthgen.experiments.dense_probe import PIXEL, dense_figure_of, probe_dense
from synthgen.ssl.backbone import Backbone, make_backbone


@pytest.fixture(scope="module")
def people(made_once):
    make = lambda folder: simulate_cohort(folder / "p.h5", patients=60, size=32, seed=41, workers=1)
    return Cohort.open(made_once("people", make) / "p.h5")


@pytest.fixture(scope="module")
def network(people):
    torch.manual_seed(0)
    model = make_backbone("test_resnet", 16, 32).eval()
    return Backbone(model, "test_resnet", people.wavelengths, 32, band_statistics(people.cubes(range(8))))


@pytest.mark.slow
def test_the_disc_is_found_from_its_spectrum_and_more_labels_do_no_harm(people, network):
    found = probe_dense(people, np.arange(len(people)), {"a": [network], "b": [network, network]}, (2, 16))
    assert found.reading(PIXEL, "disc", 16).dice > 0.6
    for structure in ("vessels", "disc"):
        few, many = (found.reading(PIXEL, structure, n).dice for n in (2, 16))
        assert many > few - 0.03 and 0 < found.reading("a", structure, 16).dice < 1
    for reading in found.readings:
        assert reading.interval[0] < reading.dice < reading.interval[1]
    same = [d for d in found.differences if d.against == "b"]
    assert len(same) == 4 and np.abs([[d.difference, *d.interval] for d in same]).max() < 1e-12, "the same network"
    lines, bars, _ = dense_figure_of(found)
    assert lines == ["vessels, 2 cubes", "vessels, 16 cubes", "disc, 2 cubes", "disc, 16 cubes"]
    assert list(bars) == ["a", "b", PIXEL]


@pytest.mark.slow
def test_no_patient_is_both_learned_from_and_judged(people, network, monkeypatch):
    seen = {}
    monkeypatch.setattr(dense_probe, "_judged", lambda cohort, test, maps, fits, device: _note(seen, test, fits))
    fits = dense_probe._fits
    monkeypatch.setattr(dense_probe, "_fits", lambda *a: seen.setdefault("pool", a[1].index) is None or fits(*a))
    probe_dense(people, np.arange(len(people)), {"a": [network]}, (4,))
    judged, pool = (set(people.patient_id[index]) for index in (seen["test"], seen["pool"]))
    assert judged and pool and not judged & pool and len(judged) == len(seen["test"])


def _note(seen, test, fits):
    seen["test"] = test.index
    return np.ones((len(fits), len(test.index), 2))


def test_what_cannot_be_asked(people, network, toy_cohort_maker, tmp_path):
    toy = toy_cohort_maker(tmp_path / "toy.h5")
    with pytest.raises(InputError, match="no masks"):
        probe_dense(toy, np.arange(len(toy)), {"a": [network]}, (4,))
    with pytest.raises(InputError, match="found 60 patients; expected 128"):
        probe_dense(people, np.arange(len(people)), {"a": [network]}, (4, 64))
