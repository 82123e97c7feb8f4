"""The gates' own statistics against the field's tools on the same features, and against their definitions written out.

torchmetrics is a dependency, so its tests always run; torch-fidelity, prdc and vendi-score are in the `bench` extra,
and their tests are skipped without it. `python -m benchmarks.quality.agreement` records the differences.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from synthgen.quality.sets.moments import frechet_distance, vendi
from synthgen.quality.sets.statistics import NEIGHBOURS, Lens, Pair
from synthgen.quality.sets.table import Rows

N, D = 120, 24


def compared(x: np.ndarray, y: np.ndarray, x_patients=None, y_patients=None) -> dict[str, float]:
    """The statistics of one space, as the gates compute them, of features [n, d] and [m, d]."""
    rows = Rows.of({"encoder": x}, x_patients), Rows.of({"encoder": y}, y_patients)
    found = Pair(Lens({}, {}, {"encoder": x.shape[1]}), *rows, size=5 * x.shape[1])()
    return {name.removeprefix("encoder_"): float(value[0]) for name, value in found.items()}


@pytest.fixture(scope="module")
def sets() -> tuple[np.ndarray, np.ndarray]:
    """Exact in float32, as rows are kept."""
    rng = np.random.default_rng(0)
    scale = 1 / np.sqrt(np.arange(1, D + 1))
    both = rng.normal(size=(N, D)) * scale, rng.normal(0.15, 1.2, size=(N, D)) * scale
    return both[0].astype(np.float32).astype(float), both[1].astype(np.float32).astype(float)


class Features(nn.Module):
    """An extractor for torchmetrics that hands on features [n, d, 1, 1]."""

    num_features = D

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)


def updated(metric: nn.Module, sets):
    metric.set_dtype(torch.float64)
    for features, real in zip(sets, (True, False), strict=True):
        metric.update(torch.from_numpy(features)[:, :, None, None], real=real)
    return metric.compute()


def test_frechet_and_kernel_distance_equal_torchmetrics(sets) -> None:
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import KernelInceptionDistance

    found = compared(*sets)
    frechet = float(updated(FrechetInceptionDistance(feature=Features(), normalize=True), sets))
    kid = float(updated(KernelInceptionDistance(feature=Features(), subsets=1, subset_size=N), sets)[0])
    assert found["frechet"] == frechet_distance(*sets) == pytest.approx(frechet, rel=1e-6)
    assert found["kid"] == pytest.approx(kid, rel=1e-9)


def test_frechet_and_kernel_distance_equal_torch_fidelity(sets) -> None:
    fid, kid = (pytest.importorskip(f"torch_fidelity.metric_{name}") for name in ("fid", "kid"))
    x, y = (torch.from_numpy(s) for s in sets)
    statistics = [fid.fid_features_to_statistics(s) for s in (x, y)]
    frechet = fid.fid_statistics_to_metric(*statistics, False)["frechet_inception_distance"]
    kernel = kid.kid_features_to_metric(x, y, kid_subsets=1, kid_subset_size=N, verbose=False)
    found = compared(*sets)
    assert found["frechet"] == pytest.approx(frechet, rel=1e-6)
    assert found["kid"] == pytest.approx(kernel["kernel_inception_distance_mean"], rel=1e-9)


def test_coverage_equals_prdc(sets) -> None:
    prdc = pytest.importorskip("prdc")
    real, made = sets
    for other in (made, made[:70], made + 1):
        assert 1 - compared(real, other)["coverage"] == prdc.compute_prdc(real, other, NEIGHBOURS)["coverage"]


def test_vendi_equals_vendi_score(sets) -> None:
    score = pytest.importorskip("vendi_score.vendi")
    for x in sets:
        assert vendi(x)[0] == pytest.approx(float(score.score_X(x)), rel=1e-6)


def kernel(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / len(a) + 1) ** 3


def test_kernel_distance_is_the_u_statistic_over_pairs_of_different_patients(sets) -> None:
    """Binkowski 2018 with the sums written out: pairs of one patient are not independent and do not count."""
    x, y = sets[0][:18], sets[1][:12]
    x_of, y_of = np.arange(18) // 2, np.arange(12) // 3

    def within(s: np.ndarray, of: np.ndarray) -> float:
        pairs = [(i, j) for i in range(len(s)) for j in range(len(s)) if of[i] != of[j]]
        return float(np.mean([kernel(s[i], s[j]) for i, j in pairs]))

    between = float(np.mean([kernel(a, b) for a in x for b in y]))
    assert compared(x, y, x_of, y_of)["kid"] == pytest.approx(within(x, x_of) + within(y, y_of) - 2 * between)


def test_kernel_distance_is_unbiased_by_patient() -> None:
    """Four cubes of each of ten patients of one law: 0 on average when the patients are known, far above when not."""
    rng, patients = np.random.default_rng(2), np.repeat(np.arange(10), 4)

    def clustered() -> np.ndarray:
        return rng.normal(size=(10, 6))[patients] + 0.3 * rng.normal(size=(40, 6))

    draws = [(clustered(), clustered()) for _ in range(150)]
    known = [compared(x, y, patients, patients)["kid"] for x, y in draws]
    unknown = [compared(x, y)["kid"] for x, y in draws]
    error = np.std(known) / np.sqrt(len(known))
    assert abs(np.mean(known)) < 3 * error
    assert np.mean(unknown) > 8 * error


def test_coverage_is_the_share_of_real_balls_that_hold_a_cube(sets) -> None:
    """Naeem 2020, equation 4, written out; the ball reaches to the k-th nearest cube of another patient."""
    real, made = sets[0][:40], sets[1][:30]
    of = np.arange(40) // 2
    covered = []
    for i, centre in enumerate(real):
        radius = np.sort(np.linalg.norm(real[of != of[i]] - centre, axis=1))[NEIGHBOURS - 1]
        covered.append((np.linalg.norm(made - centre, axis=1) < radius).any())
    assert 0.1 < np.mean(covered) < 1
    assert 1 - compared(real, made, of)["coverage"] == pytest.approx(np.mean(covered))


def test_coverage_of_one_law_is_as_expected() -> None:
    """Naeem 2020, lemma 2, whatever the law: 1 - prod (n - i) / (m + n - i) over i = 1..k."""
    rng, n, m = np.random.default_rng(0), 60, 50
    found = [1 - compared(*(rng.normal(size=(k, 8)) for k in (n, m)))["coverage"] for _ in range(150)]
    i = np.arange(1, NEIGHBOURS + 1)
    expected = 1 - np.prod((n - i) / (m + n - i))
    assert abs(np.mean(found) - expected) < 3 * np.std(found) / np.sqrt(len(found))
