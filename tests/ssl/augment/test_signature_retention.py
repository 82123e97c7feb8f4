"""The default augmentations do not erase a 1 % smooth tilt at 450-585 nm."""

import numpy as np
import pytest

from synthgen.errors import InputError, MismatchError
from synthgen.ssl.augment.pipeline import Augmentation
from synthgen.ssl.augment.signature_retention import losses, signature_retained
from synthgen.ssl.augment.spectral import smooth_root

NM = tuple(float(w) for w in range(450, 901, 30))


@pytest.fixture(scope="module")
def eyes() -> np.ndarray:
    """Cubes [48, 16, 24, 24] whose mean spectra differ by 20 % smoothly and 3 % at random, as eyes do (Delori 1989)."""
    rng = np.random.default_rng(0)
    level = np.geomspace(0.01, 0.15, 16)
    curve = rng.standard_normal((48, 16)) @ smooth_root(np.array(NM), 100.0).T * 0.2 + rng.normal(0, 0.03, (48, 16))
    texture = 1 + 0.1 * rng.standard_normal((48, 1, 24, 24))
    return (np.exp(curve)[:, :, None, None] * level[:, None, None] * np.clip(texture, 0.5, 1.5)).astype(np.float32)


@pytest.fixture(scope="module")
def half(eyes) -> np.ndarray:
    """The left half of each cube, bool [48, 24, 24]: at 24 pixels a small region is all border, which shifts mix."""
    return np.broadcast_to(np.arange(24) < 12, (48, 24, 24)).copy()


@pytest.mark.slow
@pytest.mark.parametrize("where", ["everywhere", "region"])
def test_defaults_keep_the_signature(eyes, half, where):
    """Stated shares: 95 % of the difference itself (85 % after all together), half of the separation in the whole field
    (40 %); and nine views of ten show the region."""
    rows = signature_retained(eyes, NM, draws=4, region=half if where == "region" else None)
    assert losses(rows, regional=where == "region") == []
    assert all(r.kept < 1.05 for r in rows.values())
    assert all(r.shown == 1 for name, r in rows.items() if "crop" not in name and name != "all")
    assert "spectral jitter" in rows


def test_a_region_follows_the_crop(eyes, half):
    """Geometry and light shared by the bands leave a regional difference as it is; a crop that misses it is counted."""
    light = Augmentation.off(scale_min=0.5, flip=0.5, rotation=15.0, gain_max=1.4, vignette=0.3)
    assert signature_retained(eyes, NM, light, draws=2, region=half)["all"].kept == pytest.approx(1, abs=0.02)
    narrow = signature_retained(eyes, NM, Augmentation.off(scale_min=0.05, scale_max=0.1), draws=4, region=half)
    assert narrow["all"].shown < 0.9 and any("show the region" in loss for loss in losses(narrow))


def test_a_region_that_cannot_be_judged_is_refused(eyes, half):
    with pytest.raises(MismatchError, match="region does not fit"):
        signature_retained(eyes, NM, region=half[:5])
    with pytest.raises(InputError, match="nowhere to be seen"):
        signature_retained(eyes, NM, region=np.zeros_like(half))


def test_a_planted_fault_is_caught(eyes):
    """Jitter as strong as eyes differ, band by band, takes the separation away; nothing at all takes nothing."""
    harsh = signature_retained(eyes, NM, Augmentation(spectral_jitter=0.3, spectral_correlation_nm=60.0), draws=4)
    assert harsh["spectral jitter"].information < 0.5 and any("spectral jitter" in loss for loss in losses(harsh))
    nothing = signature_retained(eyes, NM, Augmentation.off(), draws=2)["all"]
    assert nothing.kept == pytest.approx(1, abs=1e-4)
    assert nothing.nuisance == pytest.approx(0, abs=1e-4)
    assert nothing.information == pytest.approx(1, abs=1e-6)
