"""Held-out predictions: what theory says of planted targets, nothing of noise, and choices that see no held-out
patient."""

from itertools import pairwise

import numpy as np
import pytest
from sklearn.linear_model import RidgeCV
from sklearn.preprocessing import StandardScaler

from synthgen.ssl.evaluation.crossval import (
    PENALTIES,
    cross_validated,
    extrapolating_splits,
    fit_ridge,
    patient_splits,
)
from synthgen.ssl.evaluation.intervals import interval, patient_draws, r2_scores, scored
from synthgen.ssl.evaluation.targets import Target


def number(y):
    return Target("y", np.arange(len(y)), np.asarray(y)[:, None])


def classes(y):
    return Target("y", np.arange(len(y)), np.asarray(y, dtype=float)[:, None], classes=("no", "yes"))


def predicted_of(x, target, repeats=5, seed=0):
    candidates = x if isinstance(x, dict) else {"": x}
    return cross_validated(candidates, target.y, patient_splits(len(target.y), 5, repeats, seed, target.strata))


@pytest.mark.parametrize("shape", [(60, 12), (40, 90)])
def test_ridge_is_that_of_scikit_learn(shape):
    """More patients than features and fewer, several targets at once, each with a penalty of its own."""
    rng = np.random.default_rng(0)
    x, test = rng.normal(2, 3, shape), rng.normal(2, 3, (7, shape[1]))
    y = np.stack([x[:, 0] + rng.normal(size=shape[0]), rng.normal(size=shape[0]), x[:, :3].sum(1)], 1)
    finite = PENALTIES[:-1]
    found, scaler = fit_ridge(x, y, finite), StandardScaler().fit(x)
    expected = RidgeCV(finite, alpha_per_target=True).fit(scaler.transform(x), y)
    np.testing.assert_allclose(found.penalty, expected.alpha_)
    np.testing.assert_allclose(found.error, -expected.best_score_, rtol=1e-6)
    np.testing.assert_allclose(found.predict(test), expected.predict(scaler.transform(test)), rtol=1e-6, atol=1e-8)


def test_constant_features_tell_the_mean():
    y = np.arange(10.0)[:, None]
    assert fit_ridge(np.ones((10, 3)), y).predict(np.full((2, 3), 5.0)) == pytest.approx(np.full((2, 1), 4.5))


@pytest.mark.parametrize("noise", [0.5, 1.0, 2.0])
def test_a_factor_with_noise_has_the_r2_of_theory(noise):
    """y + noise e tells y with R2 1 / (1 + noise^2)."""
    rng = np.random.default_rng(1)
    y = rng.normal(size=1500)
    x = np.stack([y + noise * rng.normal(size=1500), rng.normal(size=1500)], 1)
    found = scored(number(y), [predicted_of(x, number(y), repeats=2)], patient_draws(1500))
    low, high = interval(found.draws)
    assert found.value == pytest.approx(1 / (1 + noise**2), abs=0.04)
    assert low < 1 / (1 + noise**2) < high and high - low < 0.12


def test_the_auroc_of_theory_is_met():
    """Two Gaussians d standard deviations apart: AUROC Phi(d / sqrt 2), 0.76 for d = 1."""
    rng = np.random.default_rng(2)
    y = rng.integers(0, 2, 1200)
    x = y[:, None] + rng.normal(size=(1200, 1))
    found = scored(classes(y), [predicted_of(x, classes(y), repeats=2)], patient_draws(1200))
    assert found.value == pytest.approx(0.760, abs=0.03) and found.rmse is None


def test_errors_are_in_units_and_logarithms_are_taken_back():
    rng = np.random.default_rng(3)
    y = np.exp(rng.normal(size=400))
    target = Target("y", np.arange(400), np.log(y)[:, None], unit="mm", log=True)
    predicted = predicted_of(np.log(y)[:, None] + 0.1 * rng.normal(size=(400, 1)), target, 1)
    found = scored(target, [predicted], patient_draws(400))
    error = np.exp(predicted.values[0, :, 0]) - y
    assert found.rmse == pytest.approx(np.sqrt((error**2).mean())) and found.mae == pytest.approx(np.abs(error).mean())
    assert found.value > 0.98


def test_the_mean_of_the_training_patients_has_an_r2_of_zero():
    rng = np.random.default_rng(4)
    y = rng.normal(size=30)
    predicted = predicted_of(np.ones((30, 2)), number(y), repeats=3)
    assert scored(number(y), [predicted], patient_draws(30)).value == pytest.approx(0, abs=1e-12)
    assert scored(classes(y > 0), [predicted_of(np.ones((30, 2)), classes(y > 0), 3)], patient_draws(30)).value == 0.5


@pytest.mark.slow
def test_intervals_hold_on_noise_where_those_over_patients_alone_do_not():
    """60 cohorts of noise: of the usual way (scores averaged over the repeats, patients resampled) a fifth miss."""
    hold, usual = {"classes": 0, "number": 0}, {"classes": 0, "number": 0}
    for cohort in range(60):
        rng = np.random.default_rng((5, cohort))
        x, z = rng.normal(size=(100, 10)), rng.normal(size=100)
        for kind, target, nothing in (("classes", classes(z > 0), 0.5), ("number", number(z), 0.0)):
            predicted, draws = predicted_of(x, target, seed=cohort), patient_draws(100, cohort)
            averaged = predicted._replace(
                values=predicted.values.mean(0)[None], reference=predicted.reference.mean(0)[None]
            )
            for held, fits in ((hold, predicted), (usual, averaged)):
                low, high = interval(scored(target, [fits], draws).draws)
                held[kind] += low <= nothing <= high
    assert min(hold.values()) >= 55, hold
    assert max(usual.values()) <= 53, usual


def test_what_is_chosen_inside_finds_a_planted_stage():
    """One of eight stages holds the target: choosing is as good as knowing it, and better than reading all of them."""
    rng = np.random.default_rng(6)
    y = rng.normal(size=120)
    stages = {f"stage {i}": rng.normal(size=(120, 40)) for i in range(8)}
    stages["stage 3"][:, 0] = y + 0.7 * rng.normal(size=120)
    stages["all stages"] = np.concatenate(list(stages.values()), 1)
    draws = patient_draws(120)
    predicted = predicted_of(stages, number(y))
    chosen = scored(number(y), [predicted], draws)
    known, every = (scored(number(y), [predicted_of(stages[k], number(y))], draws) for k in ("stage 3", "all stages"))
    assert predicted.chosen[0].most_common(1)[0][0] == "stage 3" and predicted.chosen[0].total() == 25
    assert chosen.value > known.value - 0.02
    assert interval(chosen.draws - every.draws)[0] > 0


def test_choosing_among_noise_gains_nothing():
    """The best of thirty, chosen with the held-out patients in view, would seem to tell something."""
    rng = np.random.default_rng(7)
    y = rng.normal(size=80)
    stages = {f"stage {i}": rng.normal(size=(80, 3)) for i in range(30)}
    found = scored(number(y), [predicted_of(stages, number(y))], patient_draws(80))
    peeked = max(scored(number(y), [predicted_of(x, number(y), 1)], patient_draws(80)).value for x in stages.values())
    assert interval(found.draws)[0] <= 0 and found.value < 0.03 < peeked


def test_a_planted_difference_is_seen_on_the_same_draws():
    """Where two features differ little and each interval is wide, the paired one is narrow."""
    rng = np.random.default_rng(8)
    y = rng.normal(size=300)
    base = y + rng.normal(size=300)
    better = np.stack([base, y + 2 * rng.normal(size=300)], 1)
    draws = patient_draws(300)
    a, b = (scored(number(y), [predicted_of(x, number(y))], draws) for x in (better, base[:, None]))
    low, high = interval(a.draws - b.draws)
    assert 0 < low < high < 0.12
    assert interval(a.draws)[0] < interval(b.draws)[1], "unpaired they overlap"
    same = scored(number(y), [predicted_of(base[:, None] * 2, number(y))], draws)
    assert np.abs(same.draws - b.draws).max() < 1e-9


def test_every_patient_is_held_out_once_a_repeat_and_learned_from_in_no_other_part():
    strata = np.repeat([0, 1], [40, 10])
    splits = patient_splits(50, 5, 3, seed=1, strata=strata)
    for split in splits:
        assert sorted(np.concatenate([test for _, test in split])) == list(range(50))
        for train, test in split:
            assert not set(train) & set(test) and len(train) + len(test) == 50 and strata[test].sum() == 2
    assert any((a[0][1] != b[0][1]).any() for a, b in pairwise(splits))


def test_extrapolation_learns_below_and_judges_above():
    age = np.arange(40.0, 90.0)
    splits = extrapolating_splits(age, 65, folds=5, repeats=3)
    for ((train, test),) in splits:
        assert age[train].max() <= 65 < age[test].min() and len(test) == 24 and len(train) == 20
    assert len({tuple(split[0][0]) for split in splits}) == 3
    x, y = age[:, None], age + np.random.default_rng(0).normal(0, 1, 50)
    predicted = cross_validated({"": x}, y[:, None], splits, own_mean=True)
    found = scored(number(y), [predicted], patient_draws(50))
    assert np.isnan(predicted.values[:, age <= 65]).all() and found.value > 0.9
    expected = 1 - ((predicted.values[0, 26:, 0] - y[26:]) ** 2).sum() / ((y[26:] - y[26:].mean()) ** 2).sum()
    assert r2_scores(y[26:], predicted.values[0, 26:, 0], predicted.reference[0, 26:, 0])[0] == pytest.approx(expected)
