"""Samplers on flows whose end is known, and losses at their reference values."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from synthgen.errors import ConfigError
from synthgen.generator.samplers import SAMPLERS, ab2, euler, heun, pick_sampler, time_grid
from synthgen.generator.training import losses


def growth(x: torch.Tensor, t: float) -> torch.Tensor:
    return x  # dx/dt = x: from t = 1 to 0 the state falls by e


def error(sampler, steps: int) -> float:
    x = sampler(growth, torch.ones(1, 1, dtype=torch.float64), time_grid(steps))
    return abs(float(x) - math.exp(-1))


@pytest.mark.parametrize(("sampler", "order"), [(euler, 1), (heun, 2), (ab2, 2)])
def test_order_of_convergence(sampler, order: int):
    assert error(sampler, 40) / error(sampler, 80) == pytest.approx(2**order, rel=0.1)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_straight_flow_is_exact_in_any_number_of_steps(name: str):
    noise, data = torch.randn(3, 5), torch.randn(3, 5)
    for steps in (1, 3, 8):
        end = SAMPLERS[name](lambda x, t: noise - data, noise, time_grid(steps, shift=3.0))
        assert torch.allclose(end, data, atol=1e-5)


def test_time_grid_falls_from_one_to_zero_and_shift_dwells_at_the_noise():
    grid, shifted = time_grid(8), time_grid(8, 3.0)
    assert grid[0] == shifted[0] == 1 and grid[-1] == shifted[-1] == 0
    assert all(a > b for a, b in itertools.pairwise(shifted))
    assert all(s >= g for g, s in zip(grid, shifted, strict=True))


def test_unknown_sampler_and_zero_steps_are_refused():
    with pytest.raises(ConfigError, match="heun"):
        pick_sampler("ddim")
    with pytest.raises(ConfigError):
        time_grid(0)


def test_spectral_angle_has_its_reference_values():
    a, b = torch.zeros(1, 2, 1, 1), torch.zeros(1, 2, 1, 1)
    a[0, 0], b[0, 0], b[0, 1] = 1.0, 1.0, math.tan(math.radians(30))
    assert float(losses.spectral_angle(a, b)) == pytest.approx(30, abs=1e-3)
    assert float(losses.spectral_angle(a, 3 * a)) == pytest.approx(0, abs=1e-4)
    assert float(losses.spectral_chord(a, b)) == pytest.approx(2 * math.sin(math.radians(15)), abs=1e-3)


def test_the_coarse_error_sees_what_noise_hides():
    """Of an even error it is three times that, of unit noise the mean of |N(0, 1/side^2)| at each side."""
    assert float(losses.coarse_error(torch.full((1, 2, 16, 16), -0.5))) == pytest.approx(1.5)
    noise = torch.randn(8, 4, 64, 64)
    assert float(losses.coarse_error(noise)) == pytest.approx((2 / math.pi) ** 0.5 * (1 / 2 + 1 / 4 + 1 / 8), rel=0.03)
    assert float(losses.coarse_error(torch.ones(1, 1, 5, 3))) == 1  # what fits: squares of 2 pixels


def test_the_subtle_error_counts_along_short_axes_and_where_spectra_are_rare():
    x = torch.randn(8, 4, 32, 32)[:, :, ::4, ::4].repeat_interleave(4, 2).repeat_interleave(4, 3)
    x = x * torch.tensor([10, 1, 0.1, 0.01]).view(4, 1, 1)  # one axis a band, of these standard deviations
    subtle = losses.subtle_axes(x.split(3))
    assert float(losses.subtle_error(x, x, subtle)) == 0
    by_band = []
    for band in range(4):
        made = x.clone()
        made[:, band] += 0.05
        by_band.append(float(losses.subtle_error(x, made, subtle)))
    expected = [2 * 0.05**2 / (sd**2 + losses.SUBTLE**2) / 4 for sd in (10, 1, 0.1, 0.01)]
    assert by_band == pytest.approx(expected, rel=0.35)  # at 2 and at 4 pixels; the mean weight is 0.8, by the floor
    rare = x.clone()
    rare[0, :, :4, :4] = torch.tensor([50, 5, 0.5, 0.05]).view(4, 1, 1)  # five standard deviations along each axis
    there, elsewhere = rare.clone(), rare.clone()
    there[0, :, :4, :4] += 0.05
    elsewhere[0, :, 8:12, 8:12] += 0.05
    assert losses.subtle_error(rare, there, subtle) > 5 * losses.subtle_error(rare, elsewhere, subtle)
    hidden = x + 0.05 * (torch.arange(32) % 2 * 2 - 1)  # what even two pixels do not show
    assert float(losses.subtle_error(x, hidden, subtle)) < 1e-6


def test_thin_things_weigh_more_and_the_mean_weight_is_one():
    x = 0.05 * torch.randn(2, 16, 32, 32)
    x[:, :, :, 10] -= 1  # a vessel, one pixel wide
    weights = losses.detail_weights(x, 1.0)
    assert weights.shape == (2, 1, 32, 32) and torch.allclose(weights.mean((1, 2, 3)), torch.ones(2))
    assert weights[:, 0, :, 10].mean() > 3 * weights[:, 0, :, 20].mean()
    assert torch.allclose(losses.detail_weights(torch.ones(1, 3, 8, 8), 2.0), torch.ones(1, 1, 8, 8))


def test_ms_ssim_is_one_for_equal_and_falls_with_noise():
    x = torch.randn(2, 3, 64, 64)
    smooth = torch.nn.functional.avg_pool2d(x, 5, 1, 2)
    assert float(losses.structure_similarity(smooth, smooth)) == pytest.approx(1, abs=1e-5)
    assert float(losses.structure_similarity(smooth, smooth + 0.3 * x)) < 0.95
    assert float(losses.structure_similarity(x[..., :8, :8], smooth[..., :8, :8])) == 1  # no scale fits


def test_a_grid_may_start_below_the_noise():
    assert time_grid(4, 2.0, 1.0) == time_grid(4, 2.0) and time_grid(3, 2.0)[0] == 1
    later = time_grid(4, 3.0, 0.6)
    assert later[0] == pytest.approx(0.6) and later[-1] == 0 and later == sorted(later, reverse=True)
    # the tail of the whole grid, where it passes through the start
    whole = time_grid(8, 3.0)
    assert time_grid(5, 3.0, whole[3]) == pytest.approx(whole[3:])


def test_hinge_and_adaptive_weight():
    assert float(losses.hinge_critic(torch.full((3,), 2.0), torch.full((3,), -2.0))) == 0
    assert float(losses.hinge_critic(torch.zeros(3), torch.zeros(3))) == 1
    assert float(losses.adaptive_weight(torch.tensor([3.0, 4.0]), torch.tensor([5.0]))) == pytest.approx(1, abs=1e-4)
    assert float(losses.adaptive_weight(torch.ones(1), torch.zeros(1))) == 1e4


def test_psnr_is_relative_to_each_bands_range():
    real = torch.tensor([0.0, 1.0]).view(1, 1, 1, 2).repeat(1, 2, 1, 1)
    real[:, 1] *= 0.01
    other = real + torch.tensor([0.1, 0.001]).view(1, 2, 1, 1)
    assert float(losses.psnr(real, other)) == pytest.approx(20, abs=1e-3)
