"""Spectra of structures: confident pixels only, surroundings beside them, absence as a state of its own."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from synthgen.quality.features.handcrafted import filled_logs
from synthgen.quality.features.regions import REGIONS, _widened, regions_of, structure_blocks, structure_features

SIZE, BANDS = 64, 4
ARTERY, VEIN, DISC, BACKGROUND = range(4)


def eye() -> tuple[torch.Tensor, torch.Tensor]:
    """A cube with an artery, a vein and a disc of known reflectance, and the segmenter's certain opinion of it."""
    cube = torch.full((1, BANDS, SIZE, SIZE), 0.10)
    p = torch.zeros(1, 3, SIZE, SIZE)
    for k, (rows, columns, value) in enumerate(
        (
            (slice(10, 13), slice(0, SIZE), 0.06),
            (slice(30, 34), slice(0, SIZE), 0.04),
            (slice(44, 56), slice(44, 56), 0.2),
        )
    ):
        cube[:, :, rows, columns] = value
        p[:, k, rows, columns] = 0.95
    return cube, p


def test_levels_and_contrasts_are_those_painted() -> None:
    cube, p = eye()
    found = regions_of(filled_logs(cube), p)
    level = found.spectra[0].mean(1).exp()
    assert torch.allclose(level, torch.tensor([0.06, 0.04, 0.2, 0.1]), atol=2e-3)
    ratio = found.contrast[0, :3].mean(1).exp()
    assert torch.allclose(ratio, torch.tensor([0.6, 0.4, 2.0]), atol=0.02)
    assert found.side.tolist() == [1]


def test_gain_and_a_flip_leave_contrasts_alone() -> None:
    cube, p = eye()
    plain, darker = (regions_of(filled_logs(x), p) for x in (cube, 0.8 * cube))
    assert torch.allclose(plain.contrast[:, :3], darker.contrast[:, :3], atol=5e-3)
    turned = regions_of(filled_logs(cube.flip(3)), p.flip(3))
    assert torch.allclose(turned.spectra, plain.spectra, atol=1e-5) and turned.side.tolist() == [-1]


def test_a_flip_and_an_exchange_of_vessels_show_in_the_features_of_structures() -> None:
    cube, p = eye()
    plain = regions_of(filled_logs(cube), p)
    assert torch.allclose(plain.layout[0, :2], torch.tensor([49.5, 49.5]) / 31.5 - 1, atol=1e-3)
    features = structure_features(plain)
    assert features.shape == (1, sum(structure_blocks(BANDS)))
    mirrored = structure_features(regions_of(filled_logs(cube.flip(3)), p.flip(3)))
    across, down, *quarters = features[0, BANDS:].tolist()
    expected = [-across, down, *(quarters[k] for k in (1, 0, 3, 2))]
    assert torch.allclose(mirrored[0, BANDS:], torch.tensor(expected), atol=1e-5)
    exchanged = structure_features(regions_of(filled_logs(cube), p[:, [1, 0, 2]]))
    assert torch.allclose(exchanged[:, :BANDS], -features[:, :BANDS], atol=1e-5)
    assert features[0, 0] < -0.2  # the vein is the darker


def test_uncertain_pixels_belong_to_nothing() -> None:
    cube, p = eye()
    p[:, VEIN, 32:34] = 0.5
    cube[:, :, 32:34] = 0.9
    found = regions_of(filled_logs(cube), p)
    assert torch.allclose(found.spectra[0, VEIN].exp(), torch.tensor(0.04), atol=2e-3)
    assert torch.allclose(found.spectra[0, BACKGROUND].exp(), torch.tensor(0.1), atol=2e-3)


def test_crossings_belong_to_nothing() -> None:
    cube, p = eye()
    p[:, :2, 10:34, 20:24] = 0.95
    cube[:, :, 10:34, 20:24] = 0.9
    found = regions_of(filled_logs(cube), p)
    assert torch.allclose(found.spectra[0, :2].mean(1).exp(), torch.tensor([0.06, 0.04]), atol=2e-3)


def test_an_absent_structure_is_nan_and_its_extent_small() -> None:
    cube, p = eye()
    p[:, ARTERY] = 0.1
    found = regions_of(filled_logs(cube), p)
    assert torch.isnan(found.spectra[0, ARTERY]).all() and torch.isnan(found.contrast[0, ARTERY]).all()
    assert torch.isfinite(found.extent).all() and found.extent[0, ARTERY] < found.extent[0, VEIN] - 2
    nothing = regions_of(filled_logs(cube), None)
    assert torch.isfinite(nothing.spectra[0, REGIONS.index("background")]).all() and nothing.side.tolist() == [0]


def test_widening_is_dilation() -> None:
    mask = torch.rand(2, 3, 20, 24, generator=torch.Generator().manual_seed(0)) < 0.05
    assert torch.equal(_widened(mask, 2), F.max_pool2d(mask.float(), 5, 1, 2) > 0)
