"""Targets: numbers and classes of patients, from covariates of cubes."""

import numpy as np
import pytest

from synthgen.cubes.cohort.covariates import Covariate
from synthgen.cubes.phantom.demographics import LEARNABLE
from synthgen.errors import InputError
from synthgen.ssl.evaluation.targets import targets_of, usual_mean

PATIENT = np.repeat(np.arange(20), 2)


def test_numbers_are_means_over_the_cubes_that_have_one():
    values = np.arange(40.0)
    values[[0, 2, 3]] = np.nan
    (target,), _ = targets_of({"age": Covariate(values, "years")}, PATIENT, ["age"])
    assert target.rows.tolist() == [0, *range(2, 20)] and target.unit == "years" and target.strata is None
    assert target.y[:2, 0].tolist() == [1.0, 4.5]


def test_a_logarithm_is_taken_where_it_is_stated_or_asked_for():
    values = np.exp(np.repeat(np.linspace(-1, 1, 20), 2))
    for covariate, log in ((Covariate(values, "mm", True), ()), (Covariate(values, "mm"), ("m",))):
        (target,), _ = targets_of({"m": covariate}, PATIENT, ["m"], log)
        assert target.log and target.y[:, 0] == pytest.approx(np.linspace(-1, 1, 20))
        assert target.in_units(target.y[:, 0]) == pytest.approx(values[::2])


def test_few_values_and_texts_are_classes():
    camera = np.repeat(np.array(["a", "b", "c", "b"] * 5), 2)
    label = np.repeat([0.0, 1.0] * 10, 2)
    two, _ = targets_of({"camera": Covariate(camera), "label": Covariate(label)}, PATIENT, None)
    by_name = {t.name: t for t in two}
    assert by_name["camera"].classes == ("a", "b", "c") and by_name["camera"].y.shape == (20, 3)
    assert by_name["camera"].strata.tolist() == [0, 1, 2, 1] * 5
    assert by_name["label"].classes == ("0", "1") and by_name["label"].y[:, 0].tolist() == [0, 1] * 10


@pytest.mark.parametrize(
    ("covariate", "message"),
    [
        (Covariate(np.where(PATIENT < 3, 1.0 + np.arange(40), np.nan)), "known of 3 patients"),
        (Covariate(np.array(["OD", "OS"] * 20)), "differs between cubes of one patient"),
        (Covariate(np.full(40, "x")), "the same for every patient"),
        (Covariate(PATIENT.astype(str)), "20 classes"),
        (Covariate(np.where(PATIENT < 2, "rare", "usual")), "2 patients with 'rare'"),
        (Covariate(np.arange(40.0) - 5, log=True), "logarithm"),
        (Covariate(np.where(PATIENT < 1, np.inf, np.arange(40.0))), "not finite"),
    ],
)
def test_what_cannot_be_asked_for(covariate, message):
    """Named it is an error; among all it is left out with the reason."""
    with pytest.raises(InputError, match=message):
        targets_of({"it": covariate}, PATIENT, ["it"])
    _, left_out = targets_of({"it": covariate, "age": Covariate(np.arange(40.0))}, PATIENT, None)
    assert message in left_out["it"]


def test_a_name_that_is_not_there():
    with pytest.raises(InputError, match="no target 'agee'; expected one of age"):
        targets_of({"age": Covariate(np.arange(40.0))}, PATIENT, ["agee"])


def test_the_usual_mean_is_that_of_the_phantoms_eight_or_of_all():
    assert usual_mean(["age", "gain", "melanin"], {*LEARNABLE, "gain"}) == ("age", "melanin")
    assert usual_mean(["age", "pressure"], {"age", "pressure"}) == ("age", "pressure")
