"""What else features tell: planted confounders are found, absent ones are not; three bands suffice for a colour."""

import numpy as np
import pytest

from synthgen.errors import InputError
from synthgen.ssl.evaluation.confounders import confounder_report, render
from synthgen.ssl.evaluation.probe import probe
from synthgen.ssl.evaluation.rgb_baseline import rgb_bands, rgb_network

PATIENTS, CUBES = 60, 2
WHO = np.repeat(np.arange(PATIENTS), CUBES)
NAMES = np.array([f"p{i:02d}" for i in WHO])


def planted(seed=0):
    """Features [120, 8]: the first holds the age, the second the camera; the label follows from age alone."""
    rng = np.random.default_rng(seed)
    age = rng.normal(66, 8, PATIENTS)
    label = (age + rng.normal(0, 4, PATIENTS) > 66).astype(float)
    camera = rng.integers(0, 2, PATIENTS)
    x = rng.normal(size=(PATIENTS * CUBES, 8))
    x[:, 0] = (age[WHO] - 66) / 8 + 0.2 * x[:, 0]
    x[:, 1] = 2 * camera[WHO] + 0.2 * x[:, 1]
    return x, label[WHO], age[WHO], np.where(camera, "new", "old")[WHO]


@pytest.mark.slow
def test_planted_confounders_are_found_and_absent_ones_are_not():
    x, label, age, camera = planted()
    noise = np.random.default_rng(5).normal(size=PATIENTS)[WHO]
    fields = {"age": age, "camera": camera, "noise": noise}
    report = confounder_report(x, label, NAMES, fields, probe(x, label, NAMES, repeats=1))
    by_name = {c.name: c for c in report.confounders}
    assert by_name["age"].r2 > 0.8 and by_name["age"].auroc > 0.9 and by_name["age"].label_from_it > 0.85
    assert by_name["age"].suspect and "SUSPECT" in render(report)
    assert by_name["age"].within < probe(x, label, NAMES, repeats=1).auroc  # of one age there is less to tell
    assert by_name["camera"].auroc > 0.95 and not by_name["camera"].suspect
    low, high = by_name["camera"].label_interval
    assert low < 0.5 < high and by_name["camera"].category in ("old", "new")
    assert by_name["noise"].r2 < 0.2 and not by_name["noise"].suspect
    low, high = by_name["noise"].auroc_interval
    assert low < 0.5 < high


def test_patient_identity_against_chance():
    x, label, *_ = planted()
    rng = np.random.default_rng(1)
    own = rng.normal(size=(PATIENTS, 8))[WHO] + 0.01 * rng.normal(size=x.shape)
    rate = lambda features: confounder_report(features, label, NAMES, {}).identity
    assert rate(own).rate == 1 and rate(own).chance == pytest.approx(1 / 119) and rate(own).n_cubes == 120
    assert rate(rng.normal(size=x.shape)).rate < 0.1
    one_each = confounder_report(x[::2], label[::2], NAMES[::2], {})
    assert one_each.identity is None


def test_what_cannot_be_asked_is_reported():
    x, label, age, _ = planted()
    few = np.where(WHO < 3, age, np.nan)
    site = np.where(WHO < 30, "a", "")
    report = confounder_report(x, label, NAMES, {"few": few, "site": site, "name": NAMES})
    assert not report.confounders
    assert report.left_out == {
        "few": "known of 3 patients",
        "site": "the same for every patient",
        "name": "60 categories",
    }


def test_unknown_values_are_left_out():
    x, label, age, _ = planted()
    report = confounder_report(x, label, NAMES, {"age": np.where(WHO % 3, age, np.nan)})
    assert report.confounders[0].n_patients == 40 and report.confounders[0].within is None


@pytest.mark.slow
def test_a_network_on_three_bands_sees_a_colour():
    assert rgb_bands([450.0 + 30 * i for i in range(16)]) == [6, 3, 1]
    with pytest.raises(InputError, match="three bands"):
        rgb_bands([700.0, 800.0, 900.0])
    rng = np.random.default_rng(0)
    label = (np.arange(16) % 2).repeat(2)
    level = 0.2 * np.exp(rng.normal(0, 0.1, (32, 3, 1, 1)))
    level[:, 0] *= np.where(label, 1.8, 1.0)[:, None, None]
    cubes = (level * np.exp(rng.normal(0, 0.1, (32, 3, 32, 32)))).astype(np.float32)
    found = rgb_network(cubes, label, [f"p{i // 2}" for i in range(32)], steps=15, folds=2)
    assert found.auroc > 0.9 and found.knn_auroc is None and found.n_patients == 16
