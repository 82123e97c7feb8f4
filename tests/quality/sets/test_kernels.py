"""KID: unbiased, in closed form, by patient; Vendi: its reference values."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from synthgen.errors import InputError, MismatchError
from synthgen.quality.features.handcrafted import set_features
from synthgen.quality.sets.kernels import (
    Discrepancy,
    cosine_kernel,
    kid,
    median_distance,
    rbf_kernel,
    vendi_score,
)


def mmd2_of_shifted_gaussians(a: float, d: int) -> float:
    """MMD^2 with the cubic kernel of N(0, I) against N(mu, I), |mu|^2 = a: from the first three moments of x'y."""
    c = 1 + a / d
    return (1 + 3 / d) + c**3 + 3 * c * (2 * a + d) / d**2 + 6 * a / d**3 - 2 * (1 + 3 * (a + d) / d**2)


def shifted(rng: np.random.Generator, n: int, d: int, a: float = 0.0) -> np.ndarray:
    x = rng.normal(size=(n, d))
    x[:, 0] += np.sqrt(a)
    return x


def by_definition(x: np.ndarray, y: np.ndarray) -> float:
    def k(a: np.ndarray, b: np.ndarray) -> float:
        return float(a @ b / len(a) + 1) ** 3

    def within(s: np.ndarray) -> float:
        return float(np.mean([k(s[i], s[j]) for i in range(len(s)) for j in range(len(s)) if i != j]))

    return within(x) + within(y) - 2 * float(np.mean([k(a, b) for a in x for b in y]))


def test_kid_is_the_u_statistic_of_its_definition() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(9, 3)), rng.normal(0.5, 2, size=(6, 3))
    assert kid(x, y) == pytest.approx(by_definition(x, y), rel=1e-12)


@pytest.mark.parametrize("a", [0.0, 1.0])
@pytest.mark.parametrize("sizes", [(20, 20), (8, 30)])
def test_kid_is_unbiased(a: float, sizes: tuple[int, int]) -> None:
    """Its mean over many draws is MMD^2 itself, at small and at unequal sizes; 0 for one law."""
    rng = np.random.default_rng(1)
    n, m = sizes
    values = [kid(shifted(rng, n, 6), shifted(rng, m, 6, a)) for _ in range(600)]
    error = np.std(values) / np.sqrt(len(values))
    assert abs(np.mean(values) - mmd2_of_shifted_gaussians(a, 6)) < 3 * error


def test_pairs_of_one_patient_would_bias_it() -> None:
    """Four cubes of each of ten patients: unbiased when the patients are known, far above 0 when they are not."""
    rng = np.random.default_rng(2)
    patients = np.repeat(np.arange(10), 4)

    def clustered() -> np.ndarray:
        return rng.normal(size=(10, 6))[patients] + 0.3 * rng.normal(size=(40, 6))

    known, unknown = [], []
    for _ in range(300):
        x, y = clustered(), clustered()
        known.append(kid(x, y, patients, patients))
        unknown.append(kid(x, y))
    error = np.std(known) / np.sqrt(len(known))
    assert abs(np.mean(known)) < 3 * error
    assert np.mean(unknown) > 10 * error


def test_bootstrap_lies_about_the_value_and_is_as_wide_as_the_draws_differ() -> None:
    rng = np.random.default_rng(3)
    values, centres, spreads = [], [], []
    for _ in range(60):
        both = Discrepancy.polynomial(shifted(rng, 80, 6), shifted(rng, 80, 6, 2.0))
        draws = both.bootstrap(rng, 300)
        values.append(float(both()))
        centres.append(draws.mean())
        spreads.append(draws.std())
    assert np.mean(centres) == pytest.approx(np.mean(values), rel=0.03)
    assert np.mean(spreads) == pytest.approx(np.std(values), rel=0.3)


def test_bootstrap_draws_patients_not_cubes() -> None:
    """Each patient's cube repeated four times adds no information: the interval stays as wide."""
    rng = np.random.default_rng(4)
    x, y = shifted(rng, 40, 6), shifted(rng, 40, 6, 2.0)
    patients = np.repeat(np.arange(40), 4)
    copied = Discrepancy.polynomial(x[patients], y[patients], patients, patients)
    once = Discrepancy.polynomial(x, y)
    assert float(copied()) == pytest.approx(float(once()), rel=1e-9)
    wide = once.bootstrap(np.random.default_rng(5), 200)
    assert copied.bootstrap(np.random.default_rng(5), 200) == pytest.approx(wide, rel=1e-9)


def test_weights_stand_for_repeated_cubes() -> None:
    rng = np.random.default_rng(6)
    x, y = rng.normal(size=(7, 3)), rng.normal(size=(5, 3))
    times = np.array([2, 0, 1, 1, 3, 0, 1])
    rows = np.repeat(np.arange(7), times)
    weighted = float(Discrepancy.polynomial(x, y)(times.astype(float)))
    assert weighted == pytest.approx(kid(x[rows], y, rows), rel=1e-12)


def test_kid_rises_with_blur_and_with_shift() -> None:
    """Of cubes, through the features that the gates use."""
    draw = torch.Generator().manual_seed(0)

    def textures(n: int) -> torch.Tensor:
        rough = F.avg_pool2d(torch.randn(n, 4, 36, 36, generator=draw), 3, 1)
        return (0.2 * (0.6 * rough + 0.2 * torch.randn(n, 4, 1, 1, generator=draw)).exp()).clamp(0, 1)

    real, fresh = textures(60), textures(60)
    own = set_features(real).double().numpy()
    mean, scale = own.mean(0), own.std(0)

    def distance(cubes: torch.Tensor) -> float:
        return kid((own - mean) / scale, (set_features(cubes).double().numpy() - mean) / scale)

    blurred = [distance(F.avg_pool2d(fresh, k, 1, k // 2, count_include_pad=False)) for k in (1, 3, 5)]
    gained = [distance((fresh * gain).clamp(0, 1)) for gain in (1.0, 1.2, 1.5)]
    for values in (blurred, gained):
        assert values[0] < values[1] < values[2]
        assert values[1] > abs(values[0]) + 0.05


def test_vendi_reference_values() -> None:
    """The two examples of vendi-score's README; n for nothing alike, 1 for duplicates."""
    points = np.array([0, 0, 10, 10, 20, 20.0])
    assert vendi_score(np.exp(-np.abs(points[:, None] - points))) == pytest.approx(2.999999996, rel=1e-9)
    likeness = [[1, 0.9, 0], [0.9, 1, 0], [0, 0, 1]]
    assert vendi_score(likeness) == pytest.approx(2.1573004834, rel=1e-9)
    assert vendi_score(np.eye(5)) == pytest.approx(5, rel=1e-12)
    assert vendi_score(np.ones((7, 7))) == pytest.approx(1, rel=1e-9)


def test_vendi_counts_the_modes_of_a_set() -> None:
    """Tight groups count as one each with either kernel; duplicating every cube changes nothing."""
    rng = np.random.default_rng(0)
    x = np.eye(6)[rng.permutation(60) % 6] * 10 + 0.01 * rng.normal(size=(60, 6))
    assert vendi_score(rbf_kernel(x, 1.0)) == pytest.approx(6, rel=0.01)
    assert vendi_score(cosine_kernel(x)) == pytest.approx(6, rel=0.01)
    y = rng.normal(size=(40, 5))
    scale = median_distance(y)
    twice = np.concatenate([y, y])
    assert vendi_score(rbf_kernel(twice, scale)) == pytest.approx(vendi_score(rbf_kernel(y, scale)), rel=1e-9)
    assert vendi_score(cosine_kernel(twice)) == pytest.approx(vendi_score(cosine_kernel(y)), rel=1e-9)


def test_vendi_falls_when_the_spread_shrinks() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(80, 8))
    scale = median_distance(x)
    scores = [vendi_score(rbf_kernel(x * share, scale)) for share in (1.0, 0.7, 0.4)]
    assert scores[0] > scores[1] > scores[2] > 1


def test_a_zero_row_is_like_itself_only() -> None:
    assert cosine_kernel([[0.0, 0], [1, 0], [2, 0]]) == pytest.approx(np.array([[1, 0, 0], [0, 1, 1], [0, 1, 1.0]]))


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: kid(np.zeros((3, 2)), np.zeros((3, 4))), MismatchError),
        (lambda: kid(np.zeros((3, 2)), np.full((3, 2), np.nan)), InputError),
        (lambda: kid(np.zeros(3), np.zeros((3, 2))), InputError),
        (lambda: kid(np.zeros((1, 2)), np.zeros((3, 2))), InputError),
        (lambda: kid(np.zeros((3, 2)), np.zeros((3, 2)), ["a", "a", "a"]), InputError),
        (lambda: kid(np.zeros((3, 2)), np.zeros((3, 2)), ["a", "b"]), MismatchError),
        (lambda: rbf_kernel(np.zeros((3, 2)), 0.0), InputError),
        (lambda: median_distance(np.zeros((1, 2))), InputError),
        (lambda: vendi_score(np.ones((2, 3))), InputError),
        (lambda: vendi_score(2 * np.eye(3)), InputError),
    ],
)
def test_bad_features_are_refused(call, error: type) -> None:
    with pytest.raises(error):
        call()
