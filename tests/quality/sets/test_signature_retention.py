"""Tilt retained: 1 for the identity, less for a blur over bands, 0 where the blue is erased."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from synthgen.cubes.reflectance import log_reflectance, reflectance
from synthgen.errors import InputError, MismatchError
from synthgen.quality.sets.signature_retention import TiltRetained, inject_tilt, tilt_retained

WAVELENGTHS = [450.0 + 30 * i for i in range(16)]  # five bands up to 585 nm


@pytest.fixture(scope="module")
def cubes() -> torch.Tensor:
    draw = torch.Generator().manual_seed(0)
    spectrum = torch.linspace(0.02, 0.4, 16)[:, None, None]
    return spectrum * (0.3 * torch.randn(6, 16, 12, 14, generator=draw)).exp()


def retained(encode_decode, cubes: torch.Tensor, **options) -> TiltRetained:
    return tilt_retained(encode_decode, cubes, WAVELENGTHS, np.random.default_rng(0), **options)


def blur_bands(cubes: torch.Tensor, reach: int = 1) -> torch.Tensor:
    logs = log_reflectance(cubes)
    near = [logs.roll(k, 1) for k in range(-reach, reach + 1)]
    return reflectance(torch.stack(near).mean(0))


def mean_spectrum(cubes: torch.Tensor) -> torch.Tensor:
    return reflectance(log_reflectance(cubes).mean((2, 3), keepdim=True)).expand_as(cubes)


def erase_blue(cubes: torch.Tensor) -> torch.Tensor:
    return torch.cat([torch.full_like(cubes[:, :5], 0.05), cubes[:, 5:]], 1)


@pytest.mark.parametrize("left_half", [False, True])
@pytest.mark.parametrize("amplitude", [0.01, -0.03])
def test_identity_retains_all_and_an_erased_blue_nothing(cubes, left_half: bool, amplitude: float) -> None:
    whole = retained(lambda c: c, cubes, left_half=left_half, amplitude=amplitude)
    assert whole.cubes == pytest.approx(np.ones(len(cubes)), abs=1e-12)
    assert (whole.low, whole.value, whole.high) == pytest.approx((1, 1, 1), abs=1e-12)
    gone = retained(erase_blue, cubes, left_half=left_half, amplitude=amplitude)
    assert (gone.cubes == 0).all() and gone.value == gone.low == gone.high == 0


def test_a_fixed_gain_and_offset_in_the_logs_do_not_matter(cubes) -> None:
    """It is paired: what is done to a cube with and without the tilt cancels."""
    assert retained(lambda c: c * 0.5, cubes).value == pytest.approx(1, abs=0.05)  # the log's floor makes it inexact


def test_a_blur_over_bands_retains_less_the_wider_it_is(cubes) -> None:
    values = [retained(lambda c, r=reach: blur_bands(c, r), cubes).value for reach in (0, 1, 2)]
    assert values[0] == pytest.approx(1, abs=1e-3)
    assert values[0] > values[1] + 0.1 > values[2] + 0.2


def test_half_of_a_shrunken_difference_is_a_half(cubes) -> None:
    """A decoder that halves every departure from a fixed spectrum halves the tilt."""
    fixed = log_reflectance(cubes).mean((0, 2, 3), keepdim=True)
    halved = retained(lambda c: reflectance((log_reflectance(c) + fixed) / 2), cubes)
    assert halved.value == pytest.approx(0.5, abs=1e-3)


def test_a_mean_spectrum_carries_the_whole_image_but_half_of_a_half(cubes) -> None:
    assert retained(mean_spectrum, cubes).value == pytest.approx(1, abs=0.01)
    assert retained(mean_spectrum, cubes, left_half=True).value == pytest.approx(0.5, abs=0.01)


def test_what_is_injected(cubes) -> None:
    tilt = torch.tensor([0.01 * (nm / 450) ** -4 if nm <= 585 else 0 for nm in WAVELENGTHS])[:, None, None]
    dark = cubes.clone()
    dark[..., :3, :] = 0  # outside the field of view
    change = log_reflectance(inject_tilt(dark, tilt)) - log_reflectance(dark)
    assert torch.allclose(change[..., 3:, :], tilt.expand_as(change[..., 3:, :]), atol=1e-5)
    assert (change[..., :3, :] == 0).all()
    half = inject_tilt(cubes, tilt, left_half=True)
    assert torch.equal(half[..., 7:], cubes[..., 7:]) and not torch.equal(half[..., :7], cubes[..., :7])


def test_interval_is_over_patients(cubes) -> None:
    """Half of the patients lose everything; copies of their cubes do not narrow the interval."""
    rows = torch.arange(6).repeat_interleave(4)
    lost = torch.arange(6) % 2 == 0

    def lossy(block: torch.Tensor) -> torch.Tensor:
        which = lost[torch.arange(len(block)) * 6 // len(block)][:, None, None, None]
        return torch.where(which, erase_blue(block), block)

    few = retained(lossy, cubes)
    copied = retained(lossy, cubes[rows], patients=rows.numpy())
    naive = retained(lossy, cubes[rows])
    assert few.value == copied.value == naive.value == pytest.approx(0.5)
    assert (copied.low, copied.high) == pytest.approx((few.low, few.high), rel=1e-9)
    assert naive.high - naive.low < 0.7 * (few.high - few.low)


def test_bad_input_is_refused(cubes) -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(MismatchError, match="wavelengths"):
        tilt_retained(lambda c: c, cubes, WAVELENGTHS[:3], rng)
    with pytest.raises(InputError, match="585 nm"):
        tilt_retained(lambda c: c, cubes, [700.0 + i for i in range(16)], rng)
    with pytest.raises(InputError, match="585 nm"):
        retained(lambda c: c, cubes, amplitude=0.0)
    with pytest.raises(MismatchError, match="another shape"):
        retained(lambda c: c[..., 1:], cubes)
    with pytest.raises(InputError, match="NaN"):
        retained(lambda c: c * float("nan"), cubes)
    with pytest.raises(InputError, match="saturated"):
        retained(lambda c: c, torch.ones_like(cubes))
    with pytest.raises(InputError, match="not cubes"):
        retained(lambda c: c, cubes[:0])
    with pytest.raises(MismatchError, match="patient"):
        retained(lambda c: c, cubes, patients=["a"])
