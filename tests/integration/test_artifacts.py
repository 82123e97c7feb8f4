"""What gates can say of a generator: copies of cubes that they do not hold go unseen, and the user is warned."""

from synthgen.contracts import Provenance
from synthgen.generator.generator import Generator
from synthgen.integration.artifacts import PACKAGED, memorization_unseen
from synthgen.quality.gates import load_gates

ONE, TWO = "1" * 64, "2" * 64  # hashes of two cohorts


def test_gates_that_hold_every_patient_of_the_generator_say_nothing():
    generator = Provenance.of(ONE, ["a", "b"])
    assert memorization_unseen(generator, Provenance.of(ONE, ["a", "b", "c"])) is None
    assert memorization_unseen(generator, Provenance.of(TWO, ["d"], also=[generator])) is None


def test_patients_of_the_generator_that_the_gates_lack_are_counted():
    warning = memorization_unseen(Provenance.of(ONE, ["a", "b", "c"]), Provenance.of(ONE, ["a"]))
    assert warning is not None and "1 of the 3 patients" in warning


def test_what_an_earlier_training_learned_from_counts_too():
    generator = Provenance.of(ONE, ["a"], also=[Provenance.of(TWO, ["b"])])
    warning = memorization_unseen(generator, Provenance.of(ONE, ["a"]))
    assert warning is not None and "1 of the 2 patients" in warning


def test_patients_of_the_same_name_in_another_cohort_are_others():
    warning = memorization_unseen(Provenance.of(ONE, ["a"]), Provenance.of(TWO, ["a"]))
    assert warning is not None and "0 of the 1 patients" in warning


def test_a_generator_of_unknown_origin_is_not_accused():
    assert memorization_unseen(None, Provenance.of(ONE, ["a"])) is None


def test_the_packaged_gates_lack_most_of_the_packaged_generators_eyes():
    warning = memorization_unseen(Generator.load(PACKAGED).provenance, load_gates(PACKAGED).provenance)
    assert warning is not None and warning.startswith(
        "the gates know 358 of the 2150 patients"
    )  # as docs/gates.md says
