"""A first layer that begins with whitened spectra."""

import numpy as np
import torch
from torch import nn

from synthgen.cubes.reflectance import band_statistics, log_reflectance
from synthgen.ssl.backbone import make_backbone, standardise
from synthgen.ssl.spectral_whitening import LIT, PixelSpectra, lit, pixel_spectra, whiten_first_layer


def correlated(count=6, size=16):
    """Cubes whose bands rise and fall together, with a weak second axis."""
    rng = np.random.default_rng(0)
    brightness, pigment = rng.normal(size=(2, count, 1, size, size))
    slope = np.linspace(-1, 1, 5)[:, None, None]
    logs = -2 + 0.5 * brightness + 0.01 * pigment * slope + 1e-4 * rng.normal(size=(count, 5, size, size))
    return np.exp(logs).astype(np.float32)


def test_mean_and_covariance_are_those_of_the_pixels():
    cubes = correlated()
    statistics = band_statistics(cubes)
    found = pixel_spectra(cubes, statistics)
    flat = standardise(torch.from_numpy(cubes).double(), statistics).permute(1, 0, 2, 3).flatten(1).numpy()
    np.testing.assert_allclose(found.mean, flat.mean(1), atol=1e-6)
    np.testing.assert_allclose(found.covariance, np.cov(flat, bias=True), atol=1e-6)


def test_tissue_alone_counts_where_it_is_asked_for():
    cubes = correlated()
    dark = cubes.copy()
    dark[:, :, :8] = 1e-5
    statistics = band_statistics(cubes)
    lower = pixel_spectra(cubes[:, :, 8:], statistics)
    tissue, whole = (pixel_spectra(dark, statistics, tissue=t) for t in (True, False))
    torch.testing.assert_close(tissue.mean, lower.mean)
    assert (whole.mean < tissue.mean - 1).all()
    assert torch.isfinite(pixel_spectra(np.zeros_like(cubes), statistics, tissue=True).covariance).all()


def test_lit_pixels_are_those_above_a_mean_reflectance():
    logs = log_reflectance(torch.tensor([0.5 * LIT, 2 * LIT]).expand(3, 1, 2))
    assert lit(logs).tolist() == [[False, True]]


def test_whitened_spectra_have_unit_covariance_above_the_floor():
    cubes = correlated()
    spectra = pixel_spectra(cubes, band_statistics(cubes))
    white = spectra.whitening(floor=1e-9).double()
    torch.testing.assert_close(white @ spectra.covariance @ white.T, torch.eye(5).double(), atol=0.1, rtol=0)
    rows = spectra.components(2, floor=0.0).double()
    torch.testing.assert_close(rows @ spectra.covariance @ rows.T, torch.eye(2).double(), atol=1e-3, rtol=0)
    values = torch.linalg.eigvalsh(spectra.covariance).flip(0)
    floored = spectra.whitening(floor=0.1).double()
    found = torch.linalg.eigvalsh(floored @ spectra.covariance @ floored.T).flip(0)
    torch.testing.assert_close(found, values / (values + 0.1 * values[0]), atol=1e-4, rtol=1e-3)


def test_the_first_layer_alone_is_changed_and_sees_whitened_bands():
    torch.manual_seed(0)
    covariance = torch.tensor([[2.0, 0.9], [0.9, 1.0]]).double()
    white = PixelSpectra(torch.zeros(2), covariance).whitening()
    for name in ("test_resnet", "test_vit"):
        plain = make_backbone(name, 2, 32).eval()
        changed = make_backbone(name, 2, 32).eval()
        changed.load_state_dict(plain.state_dict())
        assert whiten_first_layer(changed, white)
        x = torch.randn(2, 2, 32, 32)
        torch.testing.assert_close(changed(x), plain(torch.einsum("ij,bjhw->bihw", white, x)), atol=1e-4, rtol=1e-4)
        other = [n for n, p in changed.named_parameters() if not torch.equal(p, plain.get_parameter(n))]
        assert len(other) == 1
    assert not whiten_first_layer(nn.Linear(2, 2), white)
