"""Arms compared over seeds: the interval is over patients and seeds, and equal arms are rarely called different."""

import numpy as np
import pytest

from synthgen.errors import InputError, MismatchError
from synthgen.science.bootstrap import middle
from synthgen.ssl.evaluation.auroc import auroc
from synthgen.ssl.evaluation.paired import compare_seeds, luck_of_seeds
from synthgen.ssl.evaluation.probe import ProbeResult, compare

LABELS = np.arange(60) % 2


def judged(scores: np.ndarray) -> ProbeResult:
    about = {"n_patients": 60, "n_cubes": 60, "folds": 5, "repeats": 1, "interval": (0.0, 1.0)}
    names, labels = tuple(f"p{i:02d}" for i in range(60)), tuple(LABELS.tolist())
    return ProbeResult(
        auroc=auroc(scores, LABELS), patients=names, labels=labels, scores=tuple(scores.tolist()), **about
    )


def arm(rng: np.random.Generator, patient: np.ndarray, seeds: int, std: float, quality: float = 1.0):
    """Probes of one arm; how well its features predict differs between seeds by `std`."""
    predicted = quality + std * rng.normal(size=seeds)
    return [judged(t * LABELS + patient + 0.5 * rng.normal(size=60)) for t in predicted]


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [2, 3])
def test_equal_arms_are_called_different_in_about_one_of_twenty(seeds):
    """With seeds that matter much; resampling two seeds calls 30 % different, three 16 %."""
    called, rounds = 0, 300
    for number in range(rounds):
        rng = np.random.default_rng(number)
        patient = rng.normal(size=60)
        one, two = (arm(rng, patient, seeds, std=0.6) for _ in range(2))
        called += compare_seeds(one, two, number).conclusion != "no gain"
    assert 0.01 < called / rounds < 0.09


def test_a_difference_that_every_seed_shows_is_found():
    rng = np.random.default_rng(0)
    patient = rng.normal(size=60)
    good, poor = arm(rng, patient, 3, 0.1, quality=3.0), arm(rng, patient, 3, 0.1, quality=0.0)
    found = compare_seeds(good, poor)
    assert found.conclusion == "better" and compare_seeds(poor, good).conclusion == "worse"
    assert found.difference == pytest.approx(found.first - found.second) and found.seeds == 3


def test_the_same_arm_differs_by_nothing_and_many_seeds_make_the_interval_narrow():
    rng = np.random.default_rng(4)
    patient = rng.normal(size=60)
    one, two = arm(rng, patient, 8, 0.1), arm(rng, patient, 8, 0.1)
    assert compare_seeds(one, one).interval == (0, 0) and compare_seeds(one, one).conclusion == "no gain"
    width = lambda k: np.ptp(compare_seeds(one[:k], two[:k]).interval)
    assert width(8) < width(1) and width(8) < width(3) < width(2)


def test_probes_of_other_patients_or_without_a_partner_are_refused():
    rng = np.random.default_rng(5)
    one = arm(rng, rng.normal(size=60), 3, 0.1)
    with pytest.raises(MismatchError, match="different patients"):
        compare_seeds(one, [one[0].model_copy(update={"patients": ("x",)})] * 3)
    with pytest.raises(InputError, match="unequal numbers of seeds"):
        compare_seeds(one, one[:1])


def test_one_seed_is_the_comparison_over_patients():
    rng = np.random.default_rng(1)
    one, two = (arm(rng, rng.normal(size=60), 1, 0.0) for _ in range(2))
    assert compare_seeds(one, two).interval == compare(one[0], two[0]).interval


@pytest.mark.parametrize("differences", [(0.1, 0.3), (0.1, 0.3, -0.2), (0.0, 0.1, 0.2, 0.3, 0.4)])
def test_the_luck_of_seeds_is_students(differences):
    """Alone it gives the textbook interval; two seeds lie well inside theirs."""
    from scipy.stats import t

    seen = np.array(differences)
    drawn = luck_of_seeds(seen, 1000, seed=3)
    half = t.ppf(0.975, len(seen) - 1) * seen.std(ddof=1) / np.sqrt(len(seen))
    assert middle(drawn) == pytest.approx((-half, half), rel=0.03)
    assert np.array_equal(drawn, luck_of_seeds(seen, 1000, seed=3)) and drawn.mean() == pytest.approx(0, abs=1e-9)


def test_an_interval_stays_among_possible_differences():
    rng = np.random.default_rng(2)
    patient = rng.normal(size=60)
    low, high = compare_seeds(arm(rng, patient, 2, 3.0), arm(rng, patient, 2, 3.0)).interval
    assert -1 <= low < high <= 1
