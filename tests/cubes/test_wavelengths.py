"""Band centres: parsing, checking, resampling by band shape."""

import numpy as np
import pytest

from synthgen.cubes.wavelengths import (
    checked,
    parse_bands,
    resample,
    resampling_matrix,
    same_wavelengths,
)
from synthgen.errors import ConfigError, InputError, MismatchError

CAMERA = np.arange(450.0, 901.0, 5.0)  # 91 bands
SIXTEEN = parse_bands("450:900:30")


def spectrum(nm):
    """A smooth rise with an absorption dip, as of haemoglobin."""
    nm = np.asarray(nm, float)
    return 0.02 + 0.3 / (1 + np.exp((600 - nm) / 25)) - 0.01 * np.exp(-(((nm - 575) / 12) ** 2))


def test_a_range_includes_both_ends():
    assert list(SIXTEEN) == list(range(450, 901, 30))
    assert len(parse_bands("380:2490:9.46")) == 224
    assert parse_bands("450, 480,510") == (450, 480, 510)
    assert parse_bands("450.1:450.3:0.1") == pytest.approx((450.1, 450.2, 450.3))
    assert parse_bands("0.45:0.9:0.03um") == pytest.approx(SIXTEEN) == parse_bands("4500:9000:300 Angstrom")
    assert parse_bands("10000:20000:5000 cm-1") == pytest.approx((500, 1e7 / 15000, 1000))
    assert parse_bands("8000, 9000 nm") == (8000, 9000), "given in so many words"


@pytest.mark.parametrize(
    "text", ["", "a,b", "450:900", "9:4:1", "450:900:0", "450:900:1e-9", "nan:2:1", "500,450", "900:450:-30"]
)
def test_unusable_wavelengths_are_refused(text):
    with pytest.raises(InputError):
        parse_bands(text)


@pytest.mark.parametrize("text", ["0.45:0.9:0.03", "4500:9000:300", "1:16:1"])
def test_numbers_that_are_no_nm_need_their_unit(text):
    with pytest.raises(ConfigError, match="not plausible in nm"):
        parse_bands(text)


@pytest.mark.parametrize("bad", [[], [450, np.nan], [-1, 450], [450, 450]])
def test_checked_refuses(bad):
    with pytest.raises(InputError):
        checked(bad)


def test_resampling_agrees_with_a_direct_computation():
    nm = np.arange(380.0, 1000.0, 9.46)
    cube = (spectrum(nm)[:, None, None] * np.linspace(0.5, 1.5, 12).reshape(1, 3, 4)).astype(np.float32)
    direct = np.zeros((16, 3, 4))
    for t, centre in enumerate(SIXTEEN):
        weights = [np.exp(-4 * np.log(2) * ((s - centre) / 30) ** 2) for s in nm]  # FWHM of 30 nm
        for s in range(len(nm)):
            direct[t] += weights[s] / sum(weights) * cube[s]
    assert np.abs(resample(cube, nm, SIXTEEN) - direct).max() < 1e-6


def test_weights_are_normalised_and_keep_a_flat_spectrum():
    matrix = resampling_matrix(CAMERA, SIXTEEN)
    assert matrix.shape == (16, 91)
    assert np.allclose(matrix.sum(1), 1) and (matrix >= 0).all()


def test_a_band_keeps_its_stated_wavelength_up_to_the_ends():
    assert np.allclose(resampling_matrix(CAMERA, SIXTEEN) @ CAMERA, SIXTEEN, atol=0.1)


def test_same_bands_pass_unchanged_and_a_coarse_source_is_interpolated():
    cube = np.random.default_rng(0).random((16, 2, 2)).astype(np.float32)
    assert np.array_equal(resample(cube, SIXTEEN, SIXTEEN), cube)
    fine = resample(cube, SIXTEEN, parse_bands("465:885:10"))
    assert np.allclose(fine[0], (cube[0] + cube[1]) / 2, atol=1e-6)


def test_any_leading_axes_and_integer_cubes():
    cube = np.random.default_rng(0).integers(0, 4000, (3, 91, 4, 5)).astype(np.uint16)
    out = resample(cube, CAMERA, SIXTEEN)
    assert out.shape == (3, 16, 4, 5) and out.dtype == np.float32
    assert np.allclose(out[1], resample(cube[1], CAMERA, SIXTEEN))


def test_extrapolation_is_refused_beyond_half_a_spacing():
    resampling_matrix(CAMERA, (447.6, 500))
    with pytest.raises(InputError, match="outside"):
        resampling_matrix(CAMERA, (447.4, 500))
    with pytest.raises(InputError, match="outside"):
        resampling_matrix(CAMERA, (500, 1000))
    with pytest.raises(MismatchError):
        resample(np.zeros((4, 2, 2)), CAMERA, SIXTEEN)


def test_same_wavelengths():
    assert same_wavelengths((450, 480), (450.4, 479.6)) and not same_wavelengths((450, 480), (450, 481))
    assert not same_wavelengths((450,), (450, 480))
