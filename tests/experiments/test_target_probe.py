"""`synthgen probe --targets`: what a network that is known to predict a factor is reported to predict."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from synthgen.contracts import Provenance
from synthgen.cubes.cohort.cohort import Cohort
from synthgen.cubes.phantom.cohort import simulate_cohort
from synthgen.cubes.phantom.demographics import LEARNABLE
from synthgen.cubes.reflectance import band_statistics
from synthgen.errors import ConfigError, InputError, LeakError
from synthgen.experiments.target_probe import MEAN_AND_STD, MEAN_SPECTRA, PHASOR, UNTRAINED, figure_of, probe_targets
from synthgen.report.target_figure import target_figure
from synthgen.ssl.backbone import make_backbone, save_backbone


@pytest.fixture(scope="module")
def people(made_once):
    make = lambda folder: simulate_cohort(folder / "p.h5", patients=60, size=32, seed=41, workers=1)
    return Cohort.open(made_once("people", make) / "p.h5")


@pytest.fixture(scope="module")
def backbone(people, tmp_path_factory):
    def save(name="b", provenance=None):
        torch.manual_seed(0)
        folder, statistics = tmp_path_factory.mktemp("x") / name, band_statistics(people.cubes(range(8)))
        model = make_backbone("test_resnet", 16, 32)
        save_backbone(model, folder, "test_resnet", people.wavelengths, 32, statistics, provenance)
        return folder

    return save


QUICK = {"folds": 3, "repeats": 2, "untrained": 2}


@pytest.mark.slow
def test_spectra_tell_the_phantoms_pigments_and_nothing_tells_its_tortuosity(people, backbone):
    """The reference: melanin is in the mean spectrum; R2 of what cannot be seen at 32 pixels covers 0."""
    found = probe_targets(backbone(), people.path, "melanin,tortuosity,age,label", **QUICK)
    panel = found.panel
    assert panel.features == ("b", "b, exported", UNTRAINED, MEAN_SPECTRA, MEAN_AND_STD, PHASOR)
    assert panel.reading(MEAN_SPECTRA, "melanin").score > 0.9
    for features in panel.features:
        assert panel.reading(features, "tortuosity").interval[0] <= 0
    assert panel.mean_of == ("age", "melanin")
    mean = np.mean([panel.reading(MEAN_AND_STD, name).score for name in panel.mean_of])
    assert panel.mean(MEAN_AND_STD).score == pytest.approx(mean)
    low, high = panel.mean(MEAN_AND_STD).interval
    assert low < mean < high
    first = next(d for d in panel.differences if (d.against, d.target) == (PHASOR, "melanin"))
    assert first.difference == pytest.approx(
        panel.reading("b", "melanin").score - panel.reading(PHASOR, "melanin").score
    )
    assert {t.name: t.classes for t in panel.targets}["label"] == ("0", "1")
    assert sum(panel.reading("b", "age").chosen.values()) == pytest.approx(1, abs=0.01)


@pytest.mark.slow
def test_the_same_weights_under_two_names_are_not_distinguished_from_each_other(people, backbone):
    found = probe_targets(
        backbone("one"), people.path, "age,cup_ratio", beside=[backbone("two")], folds=3, repeats=2, untrained=0
    )
    (difference,) = (d for d in found.panel.differences if (d.against, d.target) == ("two", "mean of 2"))
    assert (
        difference.difference == 0 and difference.interval == (0, 0) and difference.conclusion == "not distinguishable"
    )
    with pytest.raises(ConfigError, match="one name"):
        probe_targets(backbone("one"), people.path, "age", beside=[backbone("one")])


@pytest.mark.slow
def test_the_command_writes_a_record_and_a_picture(synthgen, people, backbone, tmp_path):
    rows = [f"{p},{i * 1.5}" for i, p in enumerate(people.patients)]
    (tmp_path / "t.csv").write_text("\n".join(["patient,pressure [mmHg]", *rows]) + "\n")
    words = ("probe", "--backbone", backbone(), "--data", people.path, "--targets", "pressure,macular")
    more = ("--table", tmp_path / "t.csv", "--out", tmp_path / "o", "--folds", 2, "--repeats", 1, "--untrained", 1)
    code, out, err = synthgen(*words, *more, "--ceiling-steps", 2, "--mean-of", "macular", "--json", "--dense", "2,4")
    assert code == 0, err
    shown = json.loads(out)
    assert shown == json.loads((tmp_path / "o" / "probe.json").read_text())
    assert shown["panel"]["targets"][0] | {"n_patients": 60} == shown["panel"]["targets"][0]
    assert shown["panel"]["targets"][0]["unit"] == "mmHg" and shown["panel"]["mean_of"] == ["macular"]
    assert shown["panel"]["features"][-1] == "trained with labels" and shown["seen"].startswith("provenance unknown")
    assert {(r["structure"], r["labelled"]) for r in shown["dense"]["readings"]} == {
        (structure, count) for structure in ("vessels", "disc") for count in (2, 4)
    }
    assert (tmp_path / "o" / "dense.png").exists()
    with Image.open(tmp_path / "o" / "probe.png") as picture:
        assert picture.width > 900 and len(set(picture.convert("L").resize((60, 40)).tobytes())) > 10
    (tmp_path / "o" / "probe.png").unlink()
    code, out, err = synthgen(*words, *more, "--extrapolate", "macular:0.32", "--read", "exported")
    assert code == 0 and not err and "pressure" in out and "b minus untrained" in " ".join(out.split())
    assert (tmp_path / "o" / "probe.png").exists()


@pytest.mark.slow
def test_by_default_the_mean_is_that_of_the_phantoms_eight(people, backbone):
    found = probe_targets(backbone(), people.path, "all", folds=2, repeats=1, untrained=0)
    assert found.panel.mean_of == LEARNABLE and "eye" in found.panel.left_out
    lines, bars, note = figure_of(found)
    assert lines[0] == "mean of 8" and "60 patients, 120 cubes" in note
    assert all(len(rows) == len(lines) for rows in bars.values())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"targets": "agee"}, InputError, "no target 'agee'"),
        ({"extrapolate": "age"}, ConfigError, "not understood"),
        ({"extrapolate": "eye:3"}, InputError, "has no number 'eye'"),
        ({"extrapolate": "age:20"}, InputError, "0 up to it"),
        ({"read": "stage 9, mean"}, InputError, "is not read like that; found stage 9, mean"),
        ({"dense": "few"}, ConfigError, "--dense is not understood"),
        ({"mean_of": "melanin"}, InputError, "no number among the targets; found melanin"),
        ({"extrapolate": "age:65", "ceiling_steps": 1}, ConfigError, "no extrapolation"),
    ],
)
def test_what_cannot_be_asked(people, backbone, changed, error, message):
    quick = {"targets": "age", "folds": 2, "repeats": 1, "untrained": 0}
    with pytest.raises(error, match=message):
        probe_targets(backbone(), people.path, **{**quick, **changed})


def test_a_patient_seen_before_is_named(people, backbone):
    seen = Provenance.of("1" * 32, [people.patients[3]])
    with pytest.raises(LeakError, match=people.patients[3]):
        probe_targets(backbone(provenance=seen), people.path, "age")


def test_scores_far_below_zero_do_not_stretch_the_figure(tmp_path):
    target_figure(tmp_path / "a.png", ["a", "b"], {"x": [(0.5, 0.4, 0.6), (-9.0, -20.0, -1.0)]}, "note")
    target_figure(tmp_path / "b.png", ["a", "b"], {"x": [(0.5, 0.4, 0.6), (-1.0, -2.0, -0.5)]}, "note")
    with Image.open(tmp_path / "a.png") as first, Image.open(tmp_path / "b.png") as second:
        assert first.tobytes() == second.tobytes()
