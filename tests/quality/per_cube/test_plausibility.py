"""A single cube is judged by its spectra, the signs that physics dictates, and how far it is from real ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from synthgen.quality.per_cube.plausibility import GATES, SIGNS, Plausibility, in_words, limits_of

NM = tuple(450.0 + 30 * i for i in range(16))


def spectra_of(n: int, seed: int) -> dict[str, np.ndarray]:
    """Toy log-spectra with the signs of blood: veins darker at 600-750 nm, the disc brighter than the background."""
    rng, nm = np.random.default_rng(seed), np.array(NM)
    level = rng.normal(-2.5, 0.3, (n, 1)) + 0.004 * (nm - 450)
    blood = 0.5 * np.exp(-np.square((nm - 560) / 30))
    red = 0.3 * ((nm >= 600) & (nm <= 750))
    noise = lambda: 0.01 * rng.normal(size=(n, 16))
    return {
        "artery": level - blood + noise(),
        "vein": level - blood - red + noise(),
        "disc": level + 0.5 + noise(),
        "background": level + noise(),
    }


def coordinates(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 6))


@pytest.fixture(scope="module")
def fitted() -> Plausibility:
    return Plausibility.fit(spectra_of(80, 0), coordinates(80, 0), NM)


def scores(fitted: Plausibility, spectra: dict[str, np.ndarray], where: np.ndarray) -> dict[str, np.ndarray]:
    found = fitted.scores({k: torch.from_numpy(v).float() for k, v in spectra.items()}, torch.from_numpy(where).float())
    return {k: v.numpy() for k, v in found.items()}


def test_signs_that_hold_are_asked_for(fitted: Plausibility) -> None:
    words = {in_words(place) for place in fitted.signs}
    assert "artery brighter than vein at 600-750 nm" in words
    assert "disc brighter than background at 500-650 nm" in words
    assert "artery darker than vein at 810-900 nm" not in words  # equal there in these toys, so it says nothing
    assert len(words) < len(SIGNS)


def test_fresh_cubes_are_rejected_at_about_alpha(fitted: Plausibility) -> None:
    held = scores(fitted, spectra_of(400, 1), coordinates(400, 1))
    limits = limits_of(held, np.arange(400), 0.05)
    assert limits is not None
    fresh = scores(fitted, spectra_of(1000, 2), coordinates(1000, 2))
    for name in GATES:
        assert (fresh[name] > limits[name]).mean() < 0.09, name


def test_faults_are_found_each_by_its_gate(fitted: Plausibility) -> None:
    limits = limits_of(scores(fitted, spectra_of(400, 1), coordinates(400, 1)), np.arange(400), 0.01)
    assert limits is not None
    exchanged = spectra_of(20, 3)
    exchanged["artery"], exchanged["vein"] = exchanged["vein"], exchanged["artery"]
    assert (scores(fitted, exchanged, coordinates(20, 3))["physics"] > limits["physics"]).all()
    odd = spectra_of(20, 3)
    odd["background"] = odd["background"] + 0.3 * np.sin(np.arange(16))
    assert (scores(fitted, odd, coordinates(20, 3))["spectra"] > limits["spectra"]).all()
    far = scores(fitted, spectra_of(20, 3), coordinates(20, 3) + 6)
    assert (far["density"] > limits["density"]).all() and (far["physics"] > limits["physics"]).sum() <= 2


def test_an_absent_structure_is_not_judged(fitted: Plausibility) -> None:
    spectra = spectra_of(5, 3)
    spectra["vein"][:] = np.nan
    spectra["artery"][:] = np.nan
    found = scores(fitted, spectra, coordinates(5, 3))
    assert np.isfinite(found["spectra"]).all() and np.isfinite(found["physics"]).all()  # the disc is still there
    only = {"background": spectra["background"]}
    assert np.isneginf(scores(fitted, only, coordinates(5, 3))["physics"]).all()


def test_too_few_patients_certify_nothing(fitted: Plausibility) -> None:
    held = scores(fitted, spectra_of(98, 1), coordinates(98, 1))
    assert limits_of(held, np.arange(98), 0.01) is None
    assert limits_of(held, np.arange(98), 0.02) is not None
