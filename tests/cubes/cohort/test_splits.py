"""Splits by patient."""

import json

import numpy as np
import pytest

from synthgen.cubes.cohort.cohort import Cohort, CohortWriter
from synthgen.cubes.cohort.splits import Split, labels_by_patient, load_or_make_split, split_patients
from synthgen.errors import ConfigError, InputError

PATIENTS = [f"p{i:03d}" for i in range(100)]


def cohort(path, patients=10, shift=0.0):
    rng = np.random.default_rng(0)
    with CohortWriter(path, (450, 480), 4, 4) as out:
        for i in range(patients):
            for eye in "LR":
                out.append(rng.random((2, 4, 4)) * 0.5 + shift, f"p{i}", eye=eye, label=i % 2)
    return Cohort.open(path)


def test_parts_are_disjoint_complete_and_of_the_asked_size():
    split = split_patients(PATIENTS * 2)
    assert [len(part) for part in split] == [70, 15, 15]
    assert sorted(sum(split, ())) == PATIENTS
    assert all(list(part) == sorted(part) for part in split)


def test_seed_and_set_of_patients_decide_not_their_order():
    assert split_patients(PATIENTS, seed=1) == split_patients(PATIENTS[::-1], seed=1)
    assert split_patients(PATIENTS, seed=1) != split_patients(PATIENTS, seed=2)


@pytest.mark.parametrize("known", [100, 60])
def test_every_label_is_divided_in_proportion(known):
    labels = {p: float(i % 5 == 0) for i, p in enumerate(PATIENTS[:known])}
    for seed in range(5):
        split = split_patients(PATIENTS, (0.5, 0.25, 0.25), seed, labels)
        for value in (0.0, 1.0):
            mine = {p for p, v in labels.items() if v == value}
            for part, share in zip(split, (0.5, 0.25, 0.25), strict=True):
                assert abs(len(mine & set(part)) - share * len(mine)) <= 1.5


def test_measured_labels_are_stratified_by_quarters():
    labels = {p: float(i) for i, p in enumerate(PATIENTS)}
    split = split_patients(PATIENTS, labels=labels)
    assert abs(np.mean([labels[p] for p in split.test]) - 49.5) < 12


@pytest.mark.parametrize("n", [3, 4, 5, 7])
def test_small_cohorts_have_no_empty_part(n):
    for seed in range(5):
        split = split_patients(PATIENTS[:n], seed=seed, labels={p: i % 2 for i, p in enumerate(PATIENTS[:n])})
        assert min(map(len, split)) >= 1 and sum(map(len, split)) == n and len(split.train) == max(map(len, split))


def test_too_few_patients_and_odd_fractions():
    with pytest.raises(InputError, match="too few patients"):
        split_patients(["a", "b", "b"])
    for fractions in ((0.5, 0.5), (1, 0, 0), (0.5, 0.5, 0.5), (0.7, 0.4, -0.1)):
        with pytest.raises(ConfigError, match="fractions"):
            split_patients(PATIENTS, fractions)


def test_the_sidecar_keeps_the_split(tmp_path):
    eyes = cohort(tmp_path / "a.h5")
    split = load_or_make_split(eyes, seed=5)
    kept = json.loads((tmp_path / "a.h5.split.json").read_text())
    assert kept["cohort_hash"] == eyes.content_hash and kept["seed"] == 5 and kept["test"] == list(split.test)
    assert load_or_make_split(Cohort.open(eyes.path), seed=6) == split
    assert labels_by_patient(eyes) == {f"p{i}": i % 2 for i in range(10)}
    both = np.concatenate([eyes.index_of(part) for part in split])
    assert sorted(both.tolist()) == list(range(20))  # both eyes together, nobody twice


def test_patients_stay_in_their_part_when_the_cohort_grows_shrinks_or_is_read_again(tmp_path):
    path = tmp_path / "a.h5"
    first = load_or_make_split(cohort(path), (0.5, 0.2, 0.3), seed=5)
    for patients, shift in ((10, 0.1), (40, 0.0), (20, 0.0), (100, 0.2)):
        eyes = cohort(path, patients, shift)
        split = load_or_make_split(eyes)
        assert sorted(sum(split, ())) == sorted(eyes.patients) and load_or_make_split(eyes) == split
        for old, new in zip(first, split, strict=True):
            assert set(old) & set(eyes.patients) <= set(new)
        first = split
    assert [len(part) for part in first] == [50, 20, 30], "fractions of the sidecar hold for the new ones too"
    kept = json.loads((tmp_path / "a.h5.split.json").read_text())
    assert kept["cohort_hash"] == eyes.content_hash and kept["seed"] == 5


def test_a_part_that_lost_all_its_patients_is_refused_and_no_kept_patient_moves():
    with pytest.raises(InputError, match="no test patient is left"):
        split_patients(["a", "b", "c"], kept=Split(("a", "b"), ("c",), ("gone",)))
    assert split_patients(["a", "b", "new"], kept=Split(("a",), ("b",), ("gone",))) == Split(("a",), ("b",), ("new",))


@pytest.mark.parametrize("damage", ["train", "twice", "text", "array"])
def test_a_damaged_sidecar_is_refused(tmp_path, damage):
    eyes = cohort(tmp_path / "a.h5")
    load_or_make_split(eyes)
    sidecar = tmp_path / "a.h5.split.json"
    value = json.loads(sidecar.read_text())
    if damage == "train":
        del value["train"]
    elif damage == "twice":
        value["test"] = [*value["test"], value["train"][0]]
    sidecar.write_text({"text": "{", "array": "[1]"}.get(damage, json.dumps(value)))
    with pytest.raises(InputError):
        load_or_make_split(eyes)
