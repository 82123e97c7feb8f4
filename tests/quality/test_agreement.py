"""Agreement of the set metrics with the field's tools on the same features.

torchmetrics is a dependency, so its test always runs; the others are in the `bench` extra and are skipped without it.
`python -m benchmarks.quality.agreement` records the differences.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from synthgen.quality.sets.kernels import cosine_kernel, kid, median_distance, rbf_kernel, vendi_score
from synthgen.quality.sets.neighbours import neighbourhood


@pytest.fixture(scope="module")
def sets() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    scale = 1 / np.sqrt(np.arange(1, 25))
    return rng.normal(size=(120, 24)) * scale, rng.normal(0.15, 1.2, size=(120, 24)) * scale


def test_kid_equals_torchmetrics_with_one_subset(sets) -> None:
    from torchmetrics.image.kid import KernelInceptionDistance

    class Features(nn.Module):
        num_features = 24

        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)

    theirs = KernelInceptionDistance(feature=Features(), subsets=1, subset_size=120)
    theirs.set_dtype(torch.float64)
    for features, real in zip(sets, (True, False), strict=True):
        theirs.update(torch.from_numpy(features)[:, :, None, None], real=real)
    assert kid(*sets) == pytest.approx(float(theirs.compute()[0]), rel=1e-6)


def test_kid_equals_torch_fidelity_with_one_subset(sets) -> None:
    fidelity = pytest.importorskip("torch_fidelity.metric_kid")
    x, y = (torch.from_numpy(s) for s in sets)
    theirs = fidelity.kid_features_to_metric(x, y, kid_subsets=1, kid_subset_size=120, verbose=False)
    assert kid(*sets) == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-6)


@pytest.mark.parametrize("k", [1, 5])
def test_density_and_coverage_equal_prdc(sets, k: int) -> None:
    prdc = pytest.importorskip("prdc")
    real, made = sets
    for other in (made, made[:70], made + 1):
        theirs = prdc.compute_prdc(real, other, k)
        assert neighbourhood(real, other, k).density == pytest.approx(theirs["density"], rel=1e-12)
        assert neighbourhood(real, other, k).coverage == pytest.approx(theirs["coverage"], rel=1e-12)


def test_vendi_equals_vendi_score(sets) -> None:
    vendi = pytest.importorskip("vendi_score.vendi")
    x, y = sets
    similarity = rbf_kernel(y, median_distance(x))
    assert vendi_score(similarity) == pytest.approx(float(vendi.score_K(similarity)), rel=1e-9)
    assert vendi_score(cosine_kernel(y)) == pytest.approx(float(vendi.score_X(y)), rel=1e-6)
    assert vendi_score(cosine_kernel(y)) == pytest.approx(float(vendi.score_dual(y)), rel=1e-6)


def test_auth_pct_equals_dgm_eval_s_definition(sets) -> None:
    """Written out as in its paper's code: 100 times the share of made cubes with d(made, train) > d(train, train)."""
    from synthgen.quality.sets.neighbours import auth_pct

    train, made = (torch.from_numpy(s) for s in sets)
    made = torch.cat([made[:60], train[:60] + 0.05 * made[60:]])
    own = torch.cdist(train, train).fill_diagonal_(float("inf")).min(0).values
    there = torch.cdist(train, made).min(0)
    expected = 100 * (own[there.indices] < there.values).double().mean()
    assert auth_pct(train.numpy(), made.numpy()) == pytest.approx(float(expected), rel=1e-12)
