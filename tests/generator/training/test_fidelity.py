"""Fidelity figures have their reference values on pictures drawn by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from synthgen.generator.training.fidelity import band_errors, oxygen_contrast, thin_vessel_contrast

NM = (540.0, 570.0, 600.0, 700.0)
DENSITY = {"artery": (0.3, 0.4, 0.08, 0.02), "vein": (0.3, 0.4, 0.2, 0.1)}


def eyes(n: int = 3) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Vessels one pixel wide: arteries in rows 8, veins in rows 20; a thick vein in rows 26-29."""
    random = np.random.default_rng(0)
    masks = {name: np.zeros((n, 36, 40), bool) for name in ("artery", "vein", "disc")}
    masks["artery"][:, 8], masks["vein"][:, 20], masks["vein"][:, 26:30] = True, True, True
    cubes = np.full((n, 4, 36, 40), 0.2) * np.exp(random.normal(0, 0.1, (n, 4, 1, 1)))
    for name, densities in DENSITY.items():
        for band, density in enumerate(densities):
            cubes[:, band][masks[name]] *= np.exp(-density)
    return cubes.astype(np.float32), masks


def test_a_perfect_reconstruction_keeps_everything():
    cubes, masks = eyes()
    assert band_errors(cubes, cubes).max() == 0
    assert thin_vessel_contrast(cubes, cubes, masks, NM) == pytest.approx(1)
    assert oxygen_contrast(cubes, cubes, masks, NM) == pytest.approx(1)


def test_half_the_contrast_is_half():
    cubes, masks = eyes()
    grey = cubes.max((2, 3), keepdims=True)
    half = grey * np.sqrt(cubes / grey)
    # LOG_FLOOR is far below these values
    assert thin_vessel_contrast(cubes, half, masks, NM) == pytest.approx(0.5, abs=1e-3)
    assert oxygen_contrast(cubes, half, masks, NM) == pytest.approx(0.5, abs=1e-3)


def test_a_grey_picture_keeps_nothing():
    cubes, masks = eyes()
    grey = np.broadcast_to(cubes.mean((0, 2, 3), keepdims=True), cubes.shape)
    assert band_errors(cubes, grey) == pytest.approx(np.ones(4), abs=1e-3)
    assert thin_vessel_contrast(cubes, grey, masks, NM) == pytest.approx(0, abs=1e-6)


def test_blur_takes_the_thin_vessels():
    cubes, masks = eyes()
    blurred = ndimage.gaussian_filter(cubes, (0, 0, 1, 1))
    assert 0.1 < thin_vessel_contrast(cubes, blurred, masks, NM) < 0.5


def test_oxygen_is_measured_where_vessels_are_as_bright_as_their_surroundings():
    """Of a density next to nothing no ratio can be taken: at 64 pixels arteries at 570 nm can come to that."""
    cubes, masks = eyes()
    faint = cubes.copy()
    for name in DENSITY:
        faint[:, 1][masks[name]] *= np.exp(DENSITY[name][1])  # no density left at 570 nm
    assert oxygen_contrast(cubes, faint, masks, NM) == pytest.approx(1, abs=1e-3)
    alike = cubes.copy()
    alike[:, 2][masks["vein"]] *= np.exp(DENSITY["vein"][2] - DENSITY["artery"][2])
    assert oxygen_contrast(cubes, alike, masks, NM) == pytest.approx(0, abs=1e-3)
    noisy = alike * np.exp(np.random.default_rng(1).normal(0, 0.05, alike.shape)).astype(np.float32)
    assert np.isnan(oxygen_contrast(noisy, noisy, masks, NM)), "no difference in the real ones: nothing to keep"


def test_exchanged_blood_reverses_the_oxygen():
    cubes, masks = eyes()
    other = cubes.copy()
    for name, densities in (("artery", DENSITY["vein"]), ("vein", DENSITY["artery"])):
        for band, density in enumerate(densities):
            other[:, band][masks[name]] *= np.exp(DENSITY[name][band] - density)
    assert oxygen_contrast(cubes, other, masks, NM) == pytest.approx(-1, abs=1e-4)


def test_what_cannot_be_measured_is_nan():
    cubes, masks = eyes()
    assert np.isnan(oxygen_contrast(cubes, cubes, masks, (450.0, 500.0, 540.0, 700.0)))
    empty = {name: np.zeros_like(mask) for name, mask in masks.items()}
    assert np.isnan(thin_vessel_contrast(cubes, cubes, empty, NM))
    assert np.isnan(oxygen_contrast(cubes, cubes, empty, NM))
    assert np.isnan(thin_vessel_contrast(cubes, cubes, masks, (600.0, 610.0, 700.0, 800.0)))
