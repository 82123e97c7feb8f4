"""`synthgen probe`: labels from anywhere, leaks named, what cannot be probed refused in one line."""

import json

import h5py
import numpy as np
import pytest
import torch

from synthgen.contracts import Provenance
from synthgen.cubes.cohort.cohort import Cohort
from synthgen.cubes.cohort.splits import load_or_make_split
from synthgen.cubes.reflectance import band_statistics
from synthgen.errors import LeakError
from synthgen.experiments.probe_backbone import probe_backbone, whom_to_ask
from synthgen.ssl.backbone import load_backbone, make_backbone, save_backbone

GENERATOR = "by the generator or the gates"


@pytest.fixture(scope="module")
def labelled(toy_cohort_maker, tmp_path_factory):
    return toy_cohort_maker(tmp_path_factory.mktemp("labelled") / "l.h5", patients=12, seed=4)


@pytest.fixture
def backbone(labelled, tmp_path):
    def save(provenance=None, **extra):
        torch.manual_seed(0)
        statistics = band_statistics(labelled.cubes([0, 5]))
        model = make_backbone("resnet10t", 16, 32)
        save_backbone(model, tmp_path / "b", "resnet10t", labelled.wavelengths, 32, statistics, provenance, extra)
        return tmp_path / "b"

    return save


@pytest.mark.slow
def test_everything_is_reported_as_json(synthgen, labelled, backbone, tmp_path):
    rows = [f"{p},{50 + 3 * i},{'ab'[i % 3 > 0]},{int(i > 5)}" for i, p in enumerate(labelled.patients)]
    (tmp_path / "t.csv").write_text("\n".join(["patient,age,camera,late", *rows]) + "\n")
    about = ("--table", tmp_path / "t.csv", "--label", "late", "--rgb-steps", 2, "--repeats", 1, "--folds", 2)
    code, out, err = synthgen(
        "probe", "--backbone", backbone(gates="uncertified"), "--data", labelled.path, *about, "--json"
    )
    assert code == 0, err
    shown = json.loads(out)
    assert list(shown["results"]) == ["pretrained", "random weights", "mean spectra + LDA", "RGB network"]
    assert {r["n_patients"] for r in shown["results"].values()} == {12} and shown["uncertified"] == "uncertified"
    by_name = {c["name"]: c for c in shown["confounders"]["confounders"]}
    assert set(by_name) == {"age", "camera", "eye"} and by_name["age"]["label_from_it"] == 1.0
    assert shown["confounders"]["identity"]["n_cubes"] == 24
    assert shown["results"]["pretrained"]["patients"] == list(labelled.patients)
    quick = ("--rgb-steps", 0, "--repeats", 1, "--folds", 2)
    code, out, _ = synthgen("probe", "--backbone", backbone(), "--data", labelled.path, *about[:4], *quick)
    assert code == 0 and "RGB" not in out and "same patient" in out and "Pretrained minus random" in out


@pytest.mark.slow
def test_a_backbone_of_unknown_provenance_is_not_reported_to_have_seen_nobody(synthgen, labelled, backbone):
    """In the JSON and under the table; where provenance is known and clean, that is reported."""
    about = ("--data", labelled.path, "--rgb-steps", 0, "--repeats", 1, "--folds", 2)
    for made, expected in ((None, "provenance unknown"), (Provenance.of("1" * 32, ["else"]), "none of them seen")):
        folder = backbone(made)
        code, out, err = synthgen("probe", "--backbone", folder, *about, "--json")
        assert code == 0, err
        assert expected in json.loads(out)["seen"]
        code, out, err = synthgen("probe", "--backbone", folder, *about)
        assert code == 0, err
        words = " ".join(out.split())
        assert expected in words and ("none of them seen" in words) == (made is not None)


@pytest.mark.parametrize(
    ("role", "by"), [("own", "by the pretraining"), ("generator", GENERATOR), ("gates", GENERATOR)]
)
def test_a_patient_seen_before_is_named(labelled, backbone, role, by):
    """Whoever saw the patient (pretraining, generator, gates), and whatever cohort the patient was in then."""
    known, seen = Provenance.of("1" * 32, ["else"]), Provenance.of("2" * 32, ["x", labelled.patients[3]])
    made = {
        "own": seen,
        "generator": known.model_copy(update={"also": (seen,)}),
        "gates": known.model_copy(update={"also": (Provenance.of("3" * 32, ["y"]), seen)}),
    }[role]
    with pytest.raises(LeakError) as caught:
        probe_backbone(backbone(made), labelled.path)
    assert f"seen 1 of the 12 patients to be probed; found {labelled.patients[3]} ({by})" in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.slow
def test_auto_takes_the_test_patients_of_its_own_cohort(labelled, backbone):
    split = load_or_make_split(labelled, (0.3, 0.2, 0.5))
    made = backbone(labelled.provenance(split.train))
    found = probe_backbone(made, labelled.path, rgb_steps=0, repeats=1)
    assert found.results["pretrained"].patients == split.test
    with pytest.raises(LeakError, match=split.train[0]):
        probe_backbone(made, labelled.path, patients="all")


def _labels(change):
    def changed(path):
        with h5py.File(path, "a") as file:
            values = change(file["label"][()])
            del file["label"]
            if values is not None:
                file["label"] = values

    return changed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            _labels(lambda v: np.where(np.arange(len(v)) < 4, np.nan, v)),
            "labels are missing; found 4 of 24 cubes, 2 of 12",
        ),
        (_labels(lambda v: v * 0), "two classes; found labels 0 (24 cubes)"),
        (_labels(lambda v: v + 1), "two classes; found labels 1 (12 cubes), 2 (12 cubes)"),
        (_labels(lambda v: None), "has no labels to probe for"),
        (_labels(lambda v: (np.arange(len(v)) < 2).astype(float)), "found 1 with label 1, 11 with label 0"),
    ],
)
def test_what_cannot_be_probed(synthgen, labelled, backbone, tmp_path, change, message):
    copy = tmp_path / "copy.h5"
    copy.write_bytes(labelled.path.read_bytes())
    change(copy)
    code, _, err = synthgen("probe", "--backbone", backbone(), "--data", copy, "--patients", "all", "--rgb-steps", 0)
    assert code == 2 and message in err and err.count("\n") == 1


@pytest.mark.slow
def test_a_single_patient_and_a_label_that_is_not_there(synthgen, toy_cohort_maker, labelled, backbone, tmp_path):
    alone = toy_cohort_maker(tmp_path / "one.h5", patients=1, seed=8)
    code, _, err = synthgen("probe", "--backbone", backbone(), "--data", alone.path)
    assert code == 2 and err.count("\n") == 1 and ("two classes" in err or "several patients" in err)
    code, _, err = synthgen("probe", "--backbone", backbone(), "--data", labelled.path, "--label", "amyloid")
    assert code == 2 and "has no label 'amyloid'" in err


@pytest.mark.slow
def test_unlabelled_patients_can_be_left_out(labelled, backbone, tmp_path):
    copy = tmp_path / "copy.h5"
    copy.write_bytes(labelled.path.read_bytes())
    _labels(lambda v: np.where(np.arange(len(v)) < 4, np.nan, v))(copy)
    found = probe_backbone(backbone(), copy, patients="all", skip_unlabelled=True, rgb_steps=0, repeats=1)
    assert found.results["pretrained"].patients == Cohort.open(copy).patients[2:]


def test_of_simulated_eyes_age_and_eye_alone_are_taken_for_confounders(fresh_eyes):
    trained = load_backbone("phantom64")
    asked = whom_to_ask(fresh_eyes, trained)
    assert sorted(asked.fields) == ["age", "eye"]
    assert sorted(whom_to_ask(fresh_eyes, trained, "melanin").fields) == ["age", "eye"], "a factor may be the label"
