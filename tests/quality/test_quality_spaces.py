"""The coordinates in which sets are compared."""

from __future__ import annotations

import numpy as np
import torch

from synthgen.quality.spaces import Fingerprint, Space


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
    z = (x - x.mean(0)) / Space.fit(x, x, (40, 2)).scale.numpy()
    assert np.isclose(z[:, :40].var(0).sum(), z[:, 40:].var(0).sum(), rtol=0.01)


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
