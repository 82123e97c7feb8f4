"""Contrast with distorted cubes: the loss and the distortions."""

from __future__ import annotations

import pytest
import torch
from lightly.loss import NTXentLoss
from torch import nn

from synthgen.quality.features.contrastive import Shown, nt_xent, train_network
from synthgen.quality.features.distortions import FAULTS, blurred, layout, mild, shifted


def _rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _textured(n: int = 12, bands: int = 6, size: int = 24, seed: int = 0) -> torch.Tensor:
    """Log-reflectance with two kinds of small structures, each of its own spectrum, and a little noise."""
    rng = _rng(seed)
    spectra = torch.tensor([[1.0, 1, 1, 0, 0, 0], [0, 0, 1.0, 1, -1, -1]])[:, :bands]
    maps = torch.randn(n, 2, size, size, generator=rng) ** 3
    return torch.einsum("nkhw,kc->nchw", maps, spectra) * 0.05 + 0.01 * torch.randn(n, bands, size, size, generator=rng)


@pytest.mark.parametrize("batch", [2, 7])
def test_nt_xent_is_that_of_lightly(batch: int) -> None:
    one, two = torch.randn(2, batch, 5, generator=_rng())
    assert torch.allclose(nt_xent(one, two, 0.3), NTXentLoss(0.3)(one, two), atol=1e-5)


def test_negatives_repel_and_the_nearer_the_more() -> None:
    one = torch.randn(4, 8, generator=_rng())
    plain = nt_xent(one, one, 0.2)
    far, near = nt_xent(one, one, 0.2, -one), nt_xent(one, one, 0.2, one)
    assert plain < far < near


def test_every_family_changes_every_cube_and_draws_anew() -> None:
    cubes = _textured()
    for distort in (*FAULTS, layout):
        one, again, two = distort(cubes, _rng(1)), distort(cubes, _rng(1)), distort(cubes, _rng(2))
        assert one.shape == cubes.shape and one.isfinite().all()
        assert torch.equal(one, again) and not torch.equal(one, two)
        assert ((one - cubes).flatten(1).abs().amax(1) > 1e-3).all()


def test_mild_views_are_shifts_with_gain_and_the_cube_is_left_alone() -> None:
    cubes = _textured()
    before = cubes.clone()
    seen = mild(cubes, _rng(), 0.0, 0.0)
    assert torch.equal(cubes, before)
    shifts = [(a, b) for a in range(-2, 3) for b in range(-2, 3)]
    moved = torch.stack([shifted(cubes, torch.full((12,), a), torch.full((12,), b)) for a, b in shifts])
    assert ((seen - moved).flatten(2).abs().amax(2).amin(0) == 0).all()


def test_blur_keeps_the_mean_and_takes_contrast() -> None:
    cubes = _textured()
    smooth = blurred(cubes, 1.0)
    assert torch.allclose(smooth.mean((2, 3)), cubes.mean((2, 3)), atol=2e-3)
    assert (smooth.std((2, 3)) < 0.8 * cubes.std((2, 3))).all()


@pytest.mark.slow
def test_training_lowers_the_loss_and_leaves_the_network_in_evaluation() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(6, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 24),
        )  # fmt: skip
    logs, losses = _textured(24), []
    shown = Shown(logs, tuple(logs.mean((0, 2, 3)).tolist()), tuple(logs.std((0, 2, 3)).tolist()))
    train_network(network, shown, steps=60, seed=0, on_step=losses.append)
    assert len(losses) == 60 and sum(losses[-10:]) < 0.95 * sum(losses[:10])
    assert not network.training
