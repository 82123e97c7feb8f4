"""The coordinates in which sets are compared."""

from __future__ import annotations

import numpy as np
import torch

from synthgen.quality.features.projection import Fingerprint, Space


def _features(n: int, seed: int) -> np.ndarray:
    rng, axes = np.random.default_rng(seed), np.random.default_rng(99).normal(size=(3, 200))
    return rng.normal(size=(n, 3)) @ axes + 0.05 * rng.normal(size=(n, 200))


def test_a_fault_off_the_real_manifold_is_not_projected_out() -> None:
    """Real features vary in three directions; a shift in a fourth shows in the coordinate of what is left over."""
    space = Space.fit(_features(80, 0), _features(80, 1), (150, 50))
    fresh, off = _features(80, 2), _features(80, 2)
    off[:, 170] += 0.5
    plain, moved = (space(torch.from_numpy(x)).numpy() for x in (fresh, off))
    assert space.dimension == 40 and plain.shape == (80, 42)
    assert np.abs(plain.mean(0)).max() < 0.6
    assert moved[:, 41].mean() - plain[:, 41].mean() > 3 * plain[:, 41].std()


def test_blocks_weigh_the_same() -> None:
    """A block of many features has no more variance than one of few."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(300, 40)), 100 * rng.normal(size=(300, 2))], 1)
    z = Space.fit(x, x, (40, 2)).standardised(torch.from_numpy(x)).numpy()
    assert np.isclose(z[:, :40].var(0).sum(), z[:, 40:].var(0).sum(), rtol=0.02)


def test_one_odd_cube_does_not_make_a_set() -> None:
    x, odd = _features(200, 0), _features(1, 1)
    space = Space.fit(x, x, (150, 50))
    odd[0, 7], far = 1e6, odd.copy()
    far[0, 7] = np.inf
    assert np.allclose(space(torch.from_numpy(odd)), space(torch.from_numpy(far)), atol=1e-4)
    assert space.standardised(torch.from_numpy(odd)).abs().max() < 1


def test_a_feature_that_a_cube_lacks_takes_its_mean() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 6))
    x[:50, 2], x[:, 5] = np.nan, np.nan
    space = Space.fit(x, x, (3, 3))
    filled = np.where(np.isnan(x), np.append(np.nanmean(x[:, :5], 0), 0), x)
    assert np.allclose(space(torch.from_numpy(x)), space(torch.from_numpy(filled)), atol=1e-5)
    assert np.isfinite(space(torch.from_numpy(x))).all()


def test_the_fingerprint_sees_a_shift_that_no_real_eye_shows() -> None:
    """Spectra vary by tenths along two directions and by thousandths else: a hundredth off those stands out."""
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(8, 2)))[0].T

    def spectra(n: int) -> np.ndarray:
        return 0.3 * rng.normal(size=(n, 2)) @ axes + 0.002 * rng.normal(size=(n, 8))

    found = Fingerprint.fit(spectra(200))
    assert found is not None
    off = np.linalg.svd(axes)[2][-1] * 0.01
    shift = found.whitened(spectra(100) + off).mean(0) - found.whitened(spectra(100)).mean(0)
    along = found.whitened(spectra(100) + 0.01 * axes[0]).mean(0) - found.whitened(spectra(100)).mean(0)
    assert np.linalg.norm(shift) > 2 and np.linalg.norm(along) < 1
    assert np.isnan(found.whitened(np.full((1, 8), np.nan))).all()


def test_a_structure_in_few_cubes_has_no_fingerprint() -> None:
    spectra = np.full((40, 8), np.nan)
    spectra[:15] = np.random.default_rng(0).normal(size=(15, 8))
    assert Fingerprint.fit(spectra) is None
