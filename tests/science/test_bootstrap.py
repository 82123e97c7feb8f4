"""The bootstrap over patients: whole patients, as many as there are; the percentile interval covers."""

import numpy as np
import pytest
from scipy.stats import bootstrap

from synthgen.errors import MismatchError
from synthgen.science.bootstrap import draw_counts, middle, owners, patient_weights


def test_rows_of_a_patient_are_drawn_together():
    owner = owners(["b", "a", "b", "c"], 4)
    assert owner.tolist() == [1, 0, 1, 2] and owners(None, 3).tolist() == [0, 1, 2]
    weights = patient_weights(owner, np.random.default_rng(0), 50)
    assert (weights[:, 0] == weights[:, 2]).all() and len(set(weights[:, 1])) > 1
    assert (weights[:, [0, 1, 3]].sum(1) == 3).all()
    with pytest.raises(MismatchError, match="not one patient for each cube"):
        owners(["a"], 2)


def test_copies_of_cubes_do_not_narrow_the_interval():
    """Each patient's value four times over adds no information."""
    values, copied = np.random.default_rng(0).normal(size=40), np.repeat(np.arange(40), 4)
    once = patient_weights(owners(None, 40), np.random.default_rng(1), 300)
    four = patient_weights(copied, np.random.default_rng(1), 300)
    assert (four @ values[copied] / four.sum(1)) == pytest.approx(once @ values / once.sum(1))


def test_of_single_cubes_it_is_scipys_percentile_interval():
    values, rng = np.random.default_rng(0).normal(size=200), np.random.default_rng(1)
    low, high = middle(draw_counts(200, rng, 4000) @ values / 200)
    found = bootstrap((values,), np.mean, method="percentile", n_resamples=4000, rng=2)
    assert (low, high) == pytest.approx(tuple(found.confidence_interval), abs=0.01)
