"""The study's comparisons, in words that fit."""

import pytest

from synthgen.experiments.study.findings import findings_of
from synthgen.experiments.study.options import ARMS
from synthgen.experiments.study.plan import Job, fingerprint_of, jobs_of
from tests.experiments.study.studies import leave, outcome


def concluded(make_study, qualities, **more):
    study = make_study(seeds=[0, 1, 2], arms=list(qualities), **more)
    for job in jobs_of(study):
        leave(study, outcome(study, job, qualities.get(job.arm.name if job.arm else "", 1.0)))
    return " ".join(findings_of(study, fingerprint_of(study)).conclusion)


def test_a_gain_is_called_one_and_a_crude_simulators_gain_is_not_the_generators(make_study):
    text = concluded(make_study, {"real": 0.0, "mixed-0.5": 2.0, "procedural": 2.0, "real-longer": 0.0})
    assert text.startswith("Synthetic cubes helped at equal optimiser steps") and "3 seeds" in text
    assert "A crude simulator did as well" in text and "not counting the training" in text and "still better" in text


def test_no_gain_and_harm_are_called_so(make_study):
    text = concluded(make_study, {"real": 1.0, "mixed-0.5": 1.0, "random-weights": 1.0})
    assert text.startswith("No gain from synthetic cubes") and "could not have been seen" in text
    assert "no better than the untrained network" in text
    assert concluded(make_study, {"real": 3.0, "mixed-0.5": 0.0}).startswith("Synthetic cubes did harm")


def test_two_arms_that_guess_are_reported_to_guess(make_study):
    assert "Neither arm predicts the label better than chance" in concluded(make_study, {"real": 0.0, "mixed-0.5": 0.0})
    assert "from chance" not in concluded(make_study, {"real": 0.0, "mixed-0.5": 3.0})


@pytest.mark.slow
def test_a_given_generator_and_missing_arms_are_reported(make_study):
    given = {"given_generator": "phantom64", "given_gates": "phantom64"}
    assert "it has seen other patients" in concluded(make_study, {"real": 0.0, "mixed-0.5": 2.0}, **given)


def test_why_the_patients_differ_is_reported(make_study):
    """A given generator, a split that changed between jobs, two trainings of the generator: each has its own words."""
    study = make_study(seeds=[0], arms=["real", "mixed-0.5"])
    for job in jobs_of(study):
        leave(study, outcome(study, job))
    text = " ".join(findings_of(study, fingerprint_of(study)).conclusion)
    assert "was given" not in text and "same patients" not in text and "trainings of the generator" not in text
    one, other = (job for job in jobs_of(study) if job.arm is not None)
    leave(study, outcome(study, one).model_copy(update={"patients": "others"}))
    found = findings_of(study, fingerprint_of(study))
    text = " ".join(found.conclusion)
    assert not found.same_patients and "the split has changed between jobs" in text and "was given" not in text
    leave(study, outcome(study, one))
    for job, made in ((other, "a"), (Job("mixed-0.25-seed0", "arm", ARMS["mixed-0.25"]), "b")):
        leave(study, outcome(study, job).model_copy(update={"generator": made}))
    assert "2 trainings of the generator" in " ".join(findings_of(study, fingerprint_of(study)).conclusion)


def test_an_arm_of_one_seed_is_reported_to_be(make_study):
    text = concluded(make_study, {"real": 0.0, "mixed-0.5": 2.0, "real-longer": 0.0}, seeds_of={"real-longer": [0]})
    assert "over 40 patients and 3 seeds" in text and "one seed (the interval is over patients alone)" in text


def test_without_the_two_arms_nothing_is_concluded(make_study):
    text = concluded(make_study, {"real": 0.0, "gates-off": 2.0})
    assert "Nothing can be concluded yet" in text and "Without gates: better" in text
