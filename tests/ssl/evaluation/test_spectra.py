"""Features of spectra alone, at reference values."""

import numpy as np
import pytest

from synthgen.cubes.floor import LOG_FLOOR
from synthgen.ssl.evaluation.spectra import mean_spectra, phasors, spectral_features


def test_moments_are_of_the_pixels_in_the_field():
    rng = np.random.default_rng(0)
    cubes = rng.uniform(0.1, 0.5, (2, 3, 8, 8)).astype(np.float32)
    cubes[:, :, :2] = 0
    found = spectral_features(cubes)
    logs = np.log(cubes[:, :, 2:].astype(np.float64) + LOG_FLOOR).reshape(2, 3, -1)
    np.testing.assert_allclose(found["mean"], logs.mean(2), rtol=1e-6)
    np.testing.assert_allclose(found["std"], logs.std(2), rtol=1e-6)
    np.testing.assert_array_equal(found["mean"], mean_spectra(cubes))
    assert found["phasor"].shape == (2, 4)


def test_the_phasor_of_a_cosine_lies_at_its_phase():
    """1 + m cos(x - p) has its first harmonic at m / 2 (cos p, sin p), however bright; a flat spectrum has none."""
    x = 2 * np.pi * np.arange(16) / 16
    spectra = np.stack([1 + 0.8 * np.cos(x - 0.7), 5 * (1 + 0.8 * np.cos(x - 0.7)), np.ones(16), np.zeros(16)], 1)
    found = phasors(spectra)
    assert found[:, 0] == pytest.approx([0.4 * np.cos(0.7), 0.4 * np.sin(0.7)])
    assert found[:, 1] == pytest.approx(found[:, 0]) and found[:, 2:] == pytest.approx(np.zeros((2, 2)))
