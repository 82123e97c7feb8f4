"""The default augmentations do not erase a 1 % smooth tilt at 450-585 nm."""

import numpy as np
import pytest

from synthgen.ssl.augment import Augmentation
from synthgen.ssl.signature import retained_table, signature_retained, smooth_tilt
from synthgen.ssl.spectral import smooth_root

NM = tuple(float(w) for w in range(450, 901, 30))


@pytest.fixture(scope="module")
def eyes() -> np.ndarray:
    """Cubes [48, 16, 24, 24] whose mean spectra differ by 20 % smoothly and 3 % at random, as eyes do (Delori 1989)."""
    rng = np.random.default_rng(0)
    level = np.geomspace(0.01, 0.15, 16)
    curve = rng.standard_normal((48, 16)) @ smooth_root(np.array(NM), 100.0).T * 0.2 + rng.normal(0, 0.03, (48, 16))
    texture = 1 + 0.1 * rng.standard_normal((48, 1, 24, 24))
    return (np.exp(curve)[:, :, None, None] * level[:, None, None] * np.clip(texture, 0.5, 1.5)).astype(np.float32)


def test_tilt_is_one_percent_in_the_blue_and_gone_above_585_nm():
    s = smooth_tilt(NM)
    assert s[0] == pytest.approx(0.01) and (np.diff(s[:5]) < 0).all() and (s[5:] == 0).all()


def test_defaults_keep_the_signature(eyes):
    """Stated shares: at least 95 % of the difference itself, half of the separation for each, 40 % for all together."""
    rows = signature_retained(eyes, NM, draws=6)
    print("\n" + retained_table(rows))
    assert all(0.95 < r.kept < 1.05 for r in rows.values())
    assert all(r.information > (0.4 if name == "all" else 0.5) for name, r in rows.items())
    assert "spectral jitter" in retained_table(rows)


def test_a_planted_fault_is_caught(eyes):
    """Jitter as strong as eyes differ, band by band, takes the separation away; nothing at all takes nothing."""
    harsh = signature_retained(eyes, NM, Augmentation(spectral_jitter=0.3, spectral_correlation_nm=60.0), draws=4)
    assert harsh["spectral jitter"].information < 0.5
    nothing = signature_retained(eyes, NM, Augmentation.off(), draws=2)["all"]
    assert nothing.kept == pytest.approx(1, abs=1e-4)
    assert nothing.nuisance == pytest.approx(0, abs=1e-4)
    assert nothing.information == pytest.approx(1, abs=1e-6)
