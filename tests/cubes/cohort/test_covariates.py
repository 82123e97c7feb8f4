"""Ages, cameras and the like: from the cohort file and from a table of patients."""

import dataclasses

import h5py
import numpy as np
import pytest

from synthgen.cubes.cohort.cohort import Cohort
from synthgen.cubes.cohort.covariates import covariates_of, covariates_of_table
from synthgen.cubes.cohort.writer import CohortWriter
from synthgen.cubes.phantom.cohort import simulate_cohort
from synthgen.cubes.phantom.demographics import UNITS, Patient, Visit, draw_patient, draw_visit
from synthgen.cubes.phantom.simulate import simulate_cube
from synthgen.cubes.readers.describe import describe
from synthgen.errors import InputError

HASH = "406e445442c1871be3d83653c291bd1f"  # of the eyes of one patient as version 3 of the phantom draws them


@pytest.fixture
def cohort(tmp_path):
    with CohortWriter(tmp_path / "c.h5", (500.0, 600.0), 4, 4) as writer:
        for i, about in enumerate([{"age": 50.0, "camera": "a"}, {"camera": "b"}, {"age": 70.0}]):
            writer.append(np.full((2, 4, 4), 0.1), f"p{i}", fields=about)
    return Cohort.open(tmp_path / "c.h5")


def test_fields_go_through_the_file(cohort):
    found = covariates_of(cohort)
    np.testing.assert_array_equal(found["age"].values, [50, np.nan, 70])
    assert found["camera"].values.tolist() == ["a", "b", ""] and set(found) == {"age", "camera"}
    assert found["age"].known.tolist() == [True, False, True] and found["camera"].known.tolist() == [True, True, False]


def test_the_phantom_tells_everything_that_it_drew(tmp_path):
    """Both eyes share the patient's numbers, every visit has its own; each has a unit, and nothing is left out."""
    made = simulate_cohort(tmp_path / "p.h5", patients=2, size=32, seed=5, visits=2, workers=1)
    found = covariates_of(made)
    assert {name: one.unit for name, one in found.items()} == UNITS
    drawn = {f.name for kind in (Patient, Visit) for f in dataclasses.fields(kind)} - {"name", "label"}
    assert {name.removesuffix("_x").removesuffix("_y") for name in UNITS} == drawn
    for row, (patient, eye, visit) in enumerate((p, e, v) for p in range(2) for e in ("OD", "OS") for v in range(2)):
        person, moment = draw_patient(5, patient), draw_visit(5, patient, eye, visit)
        assert found["melanin"].values[row] == person.melanin and found["cup_ratio"].values[row] == person.cup_ratio
        assert (found["gaze_x"].values[row], found["tilt_y"].values[row]) == (moment.gaze[0], moment.tilt[1])
        assert simulate_cube(patient, eye, visit, 32, seed=5).truth["defocus"] == found["defocus"].values[row]
    assert found["melanin"].log and not found["age"].log


def test_the_truth_changes_no_cube(tmp_path):
    """The packaged generator and gates name the cohorts that they learned from by this hash."""
    made = simulate_cohort(tmp_path / "p.h5", patients=1, size=16, seed=7, workers=1)
    with h5py.File(made.path, "r+") as file:
        for name in UNITS:
            del file[name]
    assert made.content_hash == Cohort.open(made.path).content_hash == HASH


def test_info_says_range_and_unit(tmp_path):
    made = simulate_cohort(tmp_path / "p.h5", patients=2, size=16, seed=5, workers=1)
    ages = sorted({draw_patient(5, p).age for p in range(2)})
    assert describe(made.path)["covariates"]["age"] == f"{ages[0]:.4g} to {ages[1]:.4g} years"


def test_info_counts_texts_and_what_is_unknown(cohort):
    message = describe(cohort.path)["covariates"]
    assert message == {"age": "50 to 70, unknown in 1", "camera": "a (1), b (1), unknown in 1"}


def test_a_unit_is_read_however_the_text_is_kept(cohort):
    with h5py.File(cohort.path, "r+") as file:
        file["age"].attrs["units"] = "years"  # of variable length, as h5py writes it
        file["camera"].attrs["units"] = "years"
    found = covariates_of(Cohort.open(cohort.path))
    assert (found["age"].unit, found["camera"].unit) == ("years", "")


def test_a_table_is_dealt_out_to_the_cubes(cohort, tmp_path):
    (tmp_path / "t.csv").write_text("patient,age [years],site\np0,41,x\np2,,y\nother,1,z\np0,41,x\n")
    found = covariates_of_table(tmp_path / "t.csv", cohort)
    np.testing.assert_array_equal(found["age"].values, [41, np.nan, np.nan])
    assert found["age"].unit == "years" and found["site"].values.tolist() == ["x", "", "y"]
    assert covariates_of(cohort, tmp_path / "t.csv")["age"].unit == "years", "the table comes first"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("age\n4\n", "no patient"),
        ("patient,age\np0,4\np0,5\n", "contradicts"),
        ("patient,age\nq,4\n", "no row for any patient"),
    ],
)
def test_bad_tables(cohort, tmp_path, text, message):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        covariates_of_table(tmp_path / "t.csv", cohort)
