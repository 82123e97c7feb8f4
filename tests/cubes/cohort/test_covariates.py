"""Ages, cameras and the like: from the cohort file and from a table of patients."""

import numpy as np
import pytest

from synthgen.cubes.cohort.cohort import Cohort
from synthgen.cubes.cohort.covariates import fields_of, fields_of_table
from synthgen.cubes.cohort.writer import CohortWriter
from synthgen.cubes.phantom import simulate_cohort
from synthgen.cubes.phantom.simulate import simulate_cube
from synthgen.errors import InputError


@pytest.fixture
def cohort(tmp_path):
    with CohortWriter(tmp_path / "c.h5", (500.0, 600.0), 4, 4) as writer:
        for i, about in enumerate([{"age": 50.0, "camera": "a"}, {"camera": "b"}, {"age": 70.0}]):
            writer.append(np.full((2, 4, 4), 0.1), f"p{i}", fields=about)
    return Cohort.open(tmp_path / "c.h5")


def test_fields_go_through_the_file(cohort):
    found = fields_of(cohort)
    np.testing.assert_array_equal(found["age"], [50, np.nan, 70])
    assert found["camera"].tolist() == ["a", "b", ""] and set(found) == {"age", "camera"}


def test_the_phantom_tells_its_ages(tmp_path):
    made = simulate_cohort(tmp_path / "p.h5", patients=2, size=32, seed=5, workers=1)
    wanted = [simulate_cube(p, eye, size=32, seed=5).age for p in range(2) for eye in ("OD", "OS")]
    assert fields_of(made)["age"].tolist() == wanted


def test_a_table_is_dealt_out_to_the_cubes(cohort, tmp_path):
    (tmp_path / "t.csv").write_text("patient,age,site\np0,41,x\np2,,y\nother,1,z\np0,41,x\n")
    found = fields_of_table(tmp_path / "t.csv", cohort)
    np.testing.assert_array_equal(found["age"], [41, np.nan, np.nan])
    assert found["site"].tolist() == ["x", "", "y"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("age\n4\n", "no patient"),
        ("patient,age\np0,4\np0,5\n", "contradicts"),
        ("patient,age\nq,4\n", "no row for any patient"),
    ],
)
def test_bad_tables(cohort, tmp_path, text, said):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(InputError, match=said):
        fields_of_table(tmp_path / "t.csv", cohort)
