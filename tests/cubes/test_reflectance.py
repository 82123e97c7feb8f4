"""Log-reflectance, band statistics, and the spectra of structures."""

import numpy as np
import pytest
import torch

from synthgen.cubes.cohort.structures import STRUCTURES, masks_from_codes, region_masks, region_spectra
from synthgen.cubes.reflectance import LOG_FLOOR, BandStatistics, band_statistics, log_reflectance, reflectance
from synthgen.errors import InputError


def test_reflectance_inverts_its_logarithm():
    cube = torch.linspace(0, 1, 101).view(1, 1, 101)
    assert torch.allclose(reflectance(log_reflectance(cube)), cube, atol=1e-6)
    assert log_reflectance(torch.tensor(-1.0)).item() == pytest.approx(np.log(LOG_FLOOR))
    assert reflectance(torch.tensor([-50.0, 50.0])).tolist() == [0, 1]


def test_statistics_standardise_what_they_were_taken_from():
    cubes = torch.rand(5, 3, 8, 8) * torch.tensor([0.01, 0.1, 1.0]).view(1, 3, 1, 1)
    statistics = band_statistics(cubes.numpy())
    logs = log_reflectance(cubes)
    normal = statistics.normalise(logs)
    assert torch.allclose(normal.mean((0, 2, 3)), torch.zeros(3), atol=1e-4)
    assert torch.allclose(normal.std((0, 2, 3), unbiased=False), torch.ones(3), atol=1e-4)
    assert torch.allclose(statistics.denormalise(normal), logs, atol=1e-5)
    assert isinstance(statistics, BandStatistics) and len(statistics.mean) == 3


def test_constant_bands_and_nan_are_named():
    cubes = np.random.default_rng(0).random((2, 3, 4, 4)).astype(np.float32)
    cubes[:, 1] = 0.25
    with pytest.raises(InputError, match="band 1 is constant"):
        band_statistics(cubes)
    cubes[1, 2, 0, 0] = np.nan
    with pytest.raises(InputError, match="NaN"):
        band_statistics(cubes)
    with pytest.raises(InputError, match="no cubes"):
        band_statistics(cubes[:0])


def test_codes_become_masks():
    masks = masks_from_codes(np.array([[0, 1, 2, 3, 4, 255]], np.uint8))
    assert masks["artery"].tolist() == [[False, True, False, False, False, False]]
    assert masks["fov"].tolist() == [[True] * 5 + [False]]


def test_region_spectra_are_means_of_the_right_pixels():
    cubes = np.full((2, 3, 10, 10), 0.5, np.float32)
    masks = {name: np.zeros((2, 10, 10), bool) for name in ("artery", "vein", "disc", "fov", "crossing")}
    masks["fov"][:, :, :8] = True
    masks["artery"][:, :, 0:2], masks["vein"][:, :, 1:4] = True, True  # column 1 is a crossing
    masks["disc"][0, :5, 4:9] = True  # column 8 is outside the field of view
    for name, value in (("artery", 0.2), ("vein", 0.1)):
        cubes[np.broadcast_to(masks[name][:, None], cubes.shape)] = value
    spectra = region_spectra(cubes, masks)
    assert set(spectra) == set(STRUCTURES)
    assert np.exp(spectra["artery"]) - LOG_FLOOR == pytest.approx(np.full((2, 3), 0.2))
    assert np.exp(spectra["vein"]) - LOG_FLOOR == pytest.approx(np.full((2, 3), 0.1))
    assert np.exp(spectra["background"]) - LOG_FLOOR == pytest.approx(np.full((2, 3), 0.5))
    assert np.isnan(spectra["disc"][1]).all() and not np.isnan(spectra["disc"][0]).any()
    assert np.isnan(spectra["macula"]).all()
    regions = region_masks(masks, (2, 10, 10))
    assert sum(regions[name].astype(int) for name in STRUCTURES).max() == 1  # no pixel stands for two
    assert not (regions["disc"] & ~masks["fov"]).any()
    assert np.isnan(region_spectra(cubes, masks, min_pixels=21)["vein"]).all()


def test_without_masks_everything_is_background():
    cubes = np.full((1, 2, 4, 4), 0.3, np.float32)
    spectra = region_spectra(cubes, {})
    assert np.exp(spectra["background"]) - LOG_FLOOR == pytest.approx(np.full((1, 2), 0.3))
