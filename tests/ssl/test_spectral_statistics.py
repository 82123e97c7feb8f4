"""The statistics of a cube's pixels."""

import numpy as np
import pytest
import torch
from scipy.stats import kurtosis, skew

from synthgen.cubes.reflectance import band_statistics
from synthgen.errors import InputError
from synthgen.ssl.backbone import standardise
from synthgen.ssl.spectral_statistics import SpectralStatistics, StatisticsConfig
from synthgen.ssl.spectral_whitening import pixel_spectra


@pytest.fixture(scope="module")
def described(eyes):
    cubes = eyes.cubes(np.arange(48))
    statistics = band_statistics(cubes)
    standard = standardise(torch.from_numpy(cubes), statistics)
    spectra = pixel_spectra(cubes, statistics, tissue=True)
    return cubes, standard, SpectralStatistics(spectra, statistics, StatisticsConfig(components=16)).fit([standard])


def test_moments_are_those_of_scipy_over_lit_pixels(described):
    cubes, standard, targets = described
    raw = targets.raw(standard[:3]).numpy()
    z = torch.einsum("ij,bjhw->bihw", targets.axes, standard[:3] - targets.mean).clamp(-8, 8).numpy()
    for b in range(3):
        inside = np.log(cubes[b] + 5e-4).mean(0) > np.log(2.5e-3)
        pixels = z[b][:, inside].astype(np.float64)
        n = len(pixels)
        np.testing.assert_allclose(raw[b, :n], pixels.mean(1), atol=1e-3)
        np.testing.assert_allclose(raw[b, n : 2 * n], np.log(pixels.std(1)), atol=1e-3)
        np.testing.assert_allclose(raw[b, 2 * n : 3 * n], skew(pixels, axis=1), atol=5e-3)
        np.testing.assert_allclose(raw[b, 3 * n : 4 * n], np.log(kurtosis(pixels, axis=1, fisher=False)), atol=5e-3)
        np.testing.assert_allclose(raw[b, 4 * n : 5 * n], pixels.max(1), atol=1e-4)
        np.testing.assert_allclose(raw[b, 5 * n : 6 * n], pixels.min(1), atol=1e-4)
        upper = np.corrcoef(pixels)[np.triu_indices(n, 1)]
        np.testing.assert_allclose(raw[b, 6 * n : 6 * n + len(upper)], upper, atol=5e-3)


def test_over_the_cubes_of_the_fit_they_are_white(described):
    _, standard, targets = described
    statistics = targets(standard).double()
    assert statistics.shape == (48, 16) == (48, targets.count)
    torch.testing.assert_close(statistics.mean(0), torch.zeros(16).double(), atol=0.05, rtol=0)
    torch.testing.assert_close(statistics.T @ statistics / 48, torch.eye(16).double(), atol=0.05, rtol=0)
    weight = targets.weight
    assert weight.mean() == pytest.approx(1) and (weight.diff() <= 1e-6).all(), "the leading ones count most"


def test_the_grid_follows_the_image_and_moments_do_not(described):
    _, standard, targets = described
    raw, mirrored = targets.raw(standard[:2]), targets.raw(standard[:2].flip(3))
    cells = targets.grid_axes * targets.grid**2
    torch.testing.assert_close(raw[:, :-cells], mirrored[:, :-cells], atol=1e-3, rtol=1e-3)
    grid = lambda x: x[:, -cells:].view(2, targets.grid_axes, targets.grid, targets.grid)
    torch.testing.assert_close(grid(raw).flip(3), grid(mirrored), atol=1e-3, rtol=1e-3)


def test_odd_cubes_give_numbers(described):
    targets = described[2]
    for value in (-50.0, 0.0, 50.0):
        statistics = targets(torch.full((2, 16, 64, 64), value))
        assert torch.isfinite(statistics).all() and statistics.abs().max() <= 6


def test_any_size_and_fewer_bands_than_axes():
    cubes = np.random.default_rng(0).uniform(0.01, 0.5, (8, 3, 20, 20)).astype(np.float32)
    statistics = band_statistics(cubes)
    standard = standardise(torch.from_numpy(cubes), statistics)
    config = StatisticsConfig(components=500, grid=3)
    targets = SpectralStatistics(pixel_spectra(cubes, statistics), statistics, config).fit([standard])
    assert targets.count == 6 * 3 + 3 + 3 * 9 and torch.isfinite(targets(standard)).all()


def test_one_cube_has_nothing_to_differ_from(described):
    with pytest.raises(InputError, match=r"1 cube to learn from.*statistics\.weight 0"):
        described[2].fit([described[1][:1]])
