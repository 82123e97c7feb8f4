"""Probes: no leak between patients, honest intervals, clear refusals."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from synthgen.cubes.reflectance import BandStatistics
from synthgen.errors import InputError, MismatchError
from synthgen.ssl.backbone import make_backbone, standardise
from synthgen.ssl.evaluation.auroc import auroc, weighted_auroc
from synthgen.ssl.evaluation.knn import knn_scores
from synthgen.ssl.evaluation.probe import compare, embed, fit_lda, group_folds, probe
from synthgen.ssl.evaluation.spectra import mean_spectra


def cohort(n: int = 60, cubes: int = 3, dim: int = 24, effect: float = 0.0, identity: float = 1.0, seed: int = 0):
    """Features of n patients; `identity` is how much cubes of one patient resemble each other."""
    rng = np.random.default_rng(seed)
    who = np.repeat(np.arange(n), cubes)
    labels = who % 2
    x = identity * rng.normal(size=(n, dim))[who] + rng.normal(size=(n * cubes, dim))
    x[:, 0] += effect * labels
    return x, labels.astype(float), np.array([f"p{i:03d}" for i in who])


def test_auroc_is_scikit_learns_ties_included():
    rng = np.random.default_rng(0)
    scores, labels = rng.integers(0, 6, 50).astype(float), rng.integers(0, 2, 50)
    assert auroc(scores, labels) == pytest.approx(roc_auc_score(labels, scores))
    counts = rng.multinomial(50, np.full(50, 0.02), size=3)
    expected = [roc_auc_score(labels, scores, sample_weight=c) for c in counts]
    np.testing.assert_allclose(weighted_auroc(scores, labels, counts), expected)


@pytest.mark.slow
def test_a_strong_difference_is_found_and_none_is_not():
    strong = probe(*cohort(effect=4.0))
    assert strong.auroc > 0.93 and strong.interval[0] > 0.8 and strong.knn_auroc > 0.75
    none = [probe(*cohort(seed=s), repeats=1).auroc for s in range(5)]
    assert 0.38 < np.mean(none) < 0.62
    assert strong.n_patients == 60 and strong.n_cubes == 180 and strong.folds == 5


@pytest.mark.slow
def test_patient_identity_alone_gives_nothing():
    """Cubes of one patient are near copies: a probe that split them would look perfect."""
    results = [probe(*cohort(identity=20.0, seed=s), repeats=1) for s in range(4)]
    assert 0.3 < np.mean([r.auroc for r in results]) < 0.65
    assert 0.3 < np.mean([r.knn_auroc for r in results]) < 0.65


@pytest.mark.slow
def test_interval_holds_the_value_and_covers_the_truth():
    """95 % intervals of a known AUROC (one feature, effect 1 sd: 0.76) hold it in most of 12 cohorts."""
    hits = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        labels = np.arange(80) % 2
        result = probe((rng.normal(size=80) + labels)[:, None], labels, np.arange(80).astype(str), repeats=1)
        assert result.interval[0] <= result.auroc <= result.interval[1]
        hits += result.interval[0] <= 0.76 <= result.interval[1]
    assert hits >= 9


def test_no_patient_is_on_both_sides_and_both_classes_are_in_training():
    _, y, who = cohort(n=9)
    groups = np.unique(who, return_inverse=True)[1]
    tested = []
    for train, test in group_folds(y.astype(int), groups, 5, seed=0):
        assert not set(groups[train]) & set(groups[test]) and set(y[train]) == {0, 1}
        tested += test.tolist()
    assert sorted(tested) == list(range(len(y)))


@pytest.mark.slow
def test_results_are_reproducible_and_plain():
    x, y, who = cohort(effect=1.0)
    first, again = probe(x, y, who, seed=3, repeats=1), probe(x, y, who, seed=3, repeats=1)
    assert first == again and first.model_dump(mode="json")["n_cubes"] == 180
    shuffled = np.random.default_rng(0).permutation(len(y))
    assert probe(x[shuffled], y[shuffled], who[shuffled], seed=3, repeats=1).patients == first.patients


def test_two_patients_in_each_class_suffice():
    result = probe(*cohort(n=4, effect=3.0))
    assert result.folds == 2 and 0 <= result.auroc <= 1


@pytest.mark.slow
def test_paired_comparison():
    x, y, who = cohort(n=80, effect=2.5)
    good, same = probe(x, y, who, repeats=1), probe(x, y, who, repeats=1)
    poor = probe(x[:, 1:], y, who, repeats=1)
    better = compare(good, poor)
    assert better.difference > 0.15 and better.interval[0] > 0 and better.conclusion == "better"
    assert compare(poor, good).conclusion == "worse"
    nothing = compare(good, same)
    assert nothing.difference == 0 and nothing.interval == (0, 0) and nothing.conclusion == "no gain"
    with pytest.raises(MismatchError, match="different patients"):
        compare(good, probe(*cohort(n=40), repeats=1))


def test_knn_votes_by_definition_and_never_within_a_patient():
    x, y, who = cohort(n=6, cubes=2, dim=4)
    got = knn_scores(x, x, y, who, who, (3,), rows=5)[0]
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    for i in range(len(x)):
        others = np.flatnonzero(who != who[i])
        near = others[np.argsort(-(unit[others] @ unit[i]))[:3]]
        vote = np.exp(unit[near] @ unit[i] / 0.07)
        assert got[i] == pytest.approx((vote * y[near]).sum() / vote.sum())


def test_knn_with_more_neighbours_than_there_are():
    x, y, who = cohort(n=4, cubes=1, dim=3)
    all_others = knn_scores(x, x, y, who, who, (20,))
    assert np.isfinite(all_others).all()
    alone = knn_scores(x, x[:1], y[:1], who, who[:1], (1,))[0]
    assert alone[0] == y[0]  # no other patient: the bank's share


def test_mean_spectra_leave_the_black_border_out():
    cubes = np.zeros((1, 3, 8, 8), dtype=np.float32)
    cubes[0, :, 2:6, 2:6] = np.array([0.01, 0.1, 0.3])[:, None, None]
    expected = np.log(np.array([0.01, 0.1, 0.3]) + 5e-4)
    np.testing.assert_allclose(mean_spectra(cubes)[0], expected, rtol=1e-5)
    fov = np.zeros((1, 8, 8), dtype=bool)
    fov[0, 2:4, 2:6] = True
    np.testing.assert_allclose(mean_spectra(cubes, fov)[0], expected, rtol=1e-5)
    assert np.isfinite(mean_spectra(np.zeros((1, 3, 4, 4), dtype=np.float32))).all()


def test_lda_on_mean_spectra_finds_a_tilt():
    rng = np.random.default_rng(0)
    labels, who = np.arange(40) % 2, np.array([f"p{i}" for i in range(40)])
    tilt = np.linspace(0.15, -0.15, 8) * labels[:, None]
    gain = np.exp(rng.normal(0, 0.3, (40, 1)) + tilt + rng.normal(0, 0.03, (40, 8)))
    cubes = (0.1 * gain[:, :, None, None] * np.ones((1, 1, 6, 6))).astype(np.float32)
    assert probe(mean_spectra(cubes), labels, who, fit=fit_lda).auroc > 0.95


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y, w: (x, np.where(w == "p003", np.nan, y), w), "labels are missing; found 3 of 30 cubes, 1 of 10"),
        (lambda x, y, w: (x, y * 0, w), r"two classes; found labels 0 \(30 cubes\)"),
        (lambda x, y, w: (x, y + (w == "p003"), w), "two classes"),
        (lambda x, y, w: (x, y, np.full_like(w, "p000")), r"several patients; found one \(p000\)"),
        (lambda x, y, w: (x, np.arange(30) % 2, w), "both labels; found 10"),
        (lambda x, y, w: (x, (w == "p001").astype(float), w), "too few patients .* found 1 with label 1, 9 with"),
        (lambda x, y, w: (x[:5], y, w), "differ in number; found 5, 30, 30"),
        (lambda x, y, w: (np.where(np.arange(30)[:, None] == 4, np.nan, x), y, w), "not finite; found 1 cubes"),
    ],
)
def test_what_cannot_be_probed_is_refused_in_one_line(change, message):
    with pytest.raises(InputError, match=message) as caught:
        probe(*change(*cohort(n=10)))
    assert "\n" not in str(caught.value)


def test_embed_is_in_evaluation_mode_and_puts_the_mode_back():
    torch.manual_seed(0)
    model = make_backbone("resnet10t", 4, 32)
    statistics = BandStatistics((-2.0,) * 4, (0.5,) * 4)
    cubes = np.random.default_rng(0).uniform(0, 0.5, (7, 4, 32, 32)).astype(np.float32)
    features = embed(model, statistics, cubes, batch_size=3)
    assert model.training and features.shape == (7, 512) and features.dtype == np.float32
    with torch.no_grad():
        expected = model.eval()(standardise(torch.from_numpy(cubes), statistics)).numpy()
    np.testing.assert_allclose(features, expected, atol=1e-5)
