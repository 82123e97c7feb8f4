"""Reference values of the metrics, and agreement with the field's tools."""

from __future__ import annotations

import numpy as np
import piq
import pytest
import torch
from torch import nn

from synthgen.quality.sets import metrics


def test_frechet_distance_of_known_gaussians_is_44() -> None:
    """N(0, diag(1..8)) against N(1, 4 diag(1..8)): 8 for the means and sum(i) for the covariances."""
    diagonal = np.diag(np.arange(1.0, 9.0))
    assert metrics.frechet_gaussians(np.zeros(8), diagonal, np.ones(8), 4 * diagonal) == pytest.approx(44.0, rel=1e-12)


def test_frechet_distance_of_three_points() -> None:
    """MONAI's test case."""
    x, y = np.array([[1.0, 2]] * 3), np.array([[2.0, 2], [1, 2], [1, 2]])
    assert metrics.frechet_distance(x, y) == pytest.approx(0.4444, abs=1e-4)


@pytest.mark.parametrize(("n", "d"), [(200, 16), (20, 48)])
def test_frechet_distance_of_samples_is_that_of_their_gaussians(n: int, d: int) -> None:
    """Also where the covariances are singular."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(n, d)), rng.normal(0.3, 1.5, size=(n + 7, d))
    closed = metrics.frechet_gaussians(x.mean(0), np.cov(x.T), y.mean(0), np.cov(y.T))
    assert metrics.frechet_distance(x, y) == pytest.approx(closed, rel=1e-6)
    assert metrics.frechet_distance(x, x) == pytest.approx(0, abs=1e-9)
    assert metrics.frechet_distance(x, y) == pytest.approx(metrics.frechet_distance(y, x), rel=1e-9)


def test_frechet_distance_equals_torchmetrics() -> None:
    from torchmetrics.image.fid import FrechetInceptionDistance

    class Identity(nn.Module):
        num_features = 12

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1)

    draw = torch.Generator().manual_seed(0)
    x = torch.randn(300, 12, 1, 1, generator=draw, dtype=torch.float64)
    y = 1.3 * torch.randn(250, 12, 1, 1, generator=draw, dtype=torch.float64) + 0.2
    theirs = FrechetInceptionDistance(feature=Identity(), normalize=True)
    theirs.set_dtype(torch.float64)
    theirs.update(x, real=True)
    theirs.update(y, real=False)
    ours = metrics.frechet_distance(x.flatten(1).numpy(), y.flatten(1).numpy())
    assert float(theirs.compute()) == pytest.approx(ours, rel=1e-6)


def test_frechet_distance_equals_torch_fidelity() -> None:
    fidelity = pytest.importorskip("torch_fidelity.metric_fid")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(300, 12)), rng.normal(0.2, 1.3, size=(250, 12))
    stats = [fidelity.fid_features_to_statistics(torch.from_numpy(f)) for f in (x, y)]
    theirs = fidelity.fid_statistics_to_metric(*stats, False)["frechet_inception_distance"]
    assert metrics.frechet_distance(x, y) == pytest.approx(theirs, rel=1e-6)


def test_gaussian_kl_equals_torch_distributions() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, 50, 4)) @ rng.normal(size=(4, 4))
    p, q = (torch.distributions.MultivariateNormal(*map(torch.from_numpy, (f.mean(0), np.cov(f.T)))) for f in (a, b))
    expected = float(torch.distributions.kl_divergence(p, q))
    assert metrics.gaussian_kl(a.mean(0), np.cov(a.T), b.mean(0), np.cov(b.T)) == pytest.approx(expected, rel=1e-9)


def test_kl_null_follows_theory() -> None:
    """Two samples of one law: mean p/(2n) + p/(2m) with p = d + d(d+1)/2; 0.09 for d=3 and n=m=100."""
    rng = np.random.default_rng(0)
    values = []
    for _ in range(400):
        x, y = rng.normal(size=(2, 100, 3))
        values.append(metrics.gaussian_kl(x.mean(0), np.cov(x.T), y.mean(0), np.cov(y.T)))
    assert np.mean(values) == pytest.approx(9 / 2 * 2 / 100, rel=0.12)


def test_spectral_kl_tells_lost_modes_from_implausible_ones() -> None:
    rng = np.random.default_rng(0)
    real = rng.normal(size=(400, 2))
    lost, implausible = metrics.spectral_kl(real, 0.4 * real)
    assert lost > 3 * implausible > 0
    forth, back = metrics.spectral_kl(real, 2.5 * real)
    assert back > 3 * forth


@pytest.mark.parametrize(("side", "scales"), [(10, 0), (11, 1), (32, 2), (64, 3), (160, 4), (161, 5), (672, 5)])
def test_scales_that_fit(side: int, scales: int) -> None:
    assert metrics.ms_ssim_scales(side) == scales


def test_ms_ssim() -> None:
    x, y = torch.rand(2, 3, 2, 176, 176, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(metrics.ms_ssim(x, x), torch.ones(3))
    assert torch.allclose(metrics.ms_ssim(x, y), piq.multi_scale_ssim(x, y, reduction="none"), atol=1e-6)
    small = metrics.ms_ssim(x[..., :64, :64], y[..., :64, :64])
    assert small.shape == (3,) and (small < 0.3).all()
    with pytest.raises(ValueError, match="smaller than"):
        metrics.ms_ssim(x[..., :8, :8], y[..., :8, :8])


def test_bootstrap_over_images_is_wider_than_over_pairs() -> None:
    """Pairs that share an image are not independent: the naive error is several times too small."""
    rng = np.random.default_rng(0)
    effect = rng.normal(size=40)  # each image's own part in its similarities
    similarity = effect[:, None] + effect[None, :]
    values = similarity[np.triu_indices(40, 1)]
    naive = values.std() / np.sqrt(len(values))
    spread = metrics.bootstrap_pairwise(similarity, rng).std()
    assert metrics.mean_pairwise(similarity) == pytest.approx(values.mean())
    assert spread > 3 * naive
    assert spread == pytest.approx(2 * effect.std() / np.sqrt(40), rel=0.3)
