"""The segmenter finds structures in eyes it has not seen, in other bands too, and says when it cannot."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch

from synthgen.cubes.phantom.simulate import simulate_cube
from synthgen.errors import InputError, MismatchError
from synthgen.quality.segmenter.segmenter import (
    PACKAGED,
    STRUCTURES,
    Segmenter,
    dice,
    fine_tune,
    load_segmenter,
    save_segmenter,
)

NM = tuple(450.0 + 30 * i for i in range(16))
Eyes = tuple[torch.Tensor, dict[str, np.ndarray]]


def _eyes(count: int, size: int, seed: int, wavelengths: tuple[float, ...] = NM) -> Eyes:
    made = [simulate_cube(i, ("OD", "OS")[i % 2], size=size, seed=seed, wavelengths=wavelengths) for i in range(count)]
    cubes = torch.from_numpy(np.stack([m.cube for m in made]))
    return cubes, {name: np.stack([m.masks[name] for m in made]) for name in STRUCTURES}


def _scores(segmenter: Segmenter, cubes: torch.Tensor, masks: dict[str, np.ndarray], wavelengths=NM):
    p = segmenter.probabilities(cubes, wavelengths).numpy()
    return dice({name: p[:, k] > 0.5 for k, name in enumerate(STRUCTURES)}, masks)


def _vessel(segmenter: Segmenter, cubes: torch.Tensor, masks: dict[str, np.ndarray], wavelengths=NM) -> float:
    p = segmenter.probabilities(cubes, wavelengths).numpy()
    found, truth = p[:, 0] + p[:, 1] > 0.5, masks["artery"] | masks["vein"]
    return float(2 * (found & truth).sum() / (found.sum() + truth.sum()))


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return load_segmenter()


@pytest.fixture(scope="module")
def eyes() -> Eyes:
    return _eyes(24, 64, seed=31_337)


def test_the_package_is_small() -> None:
    assert sum(path.stat().st_size for path in PACKAGED.iterdir()) <= 4e6


@pytest.mark.slow
@pytest.mark.parametrize(("size", "count"), [(64, 24), (224, 4)])
def test_structures_of_unseen_phantoms_are_found(segmenter: Segmenter, size: int, count: int) -> None:
    cubes, masks = _eyes(count, size, seed=31_338)
    scores = _scores(segmenter, cubes, masks)
    assert scores["disc"] > FLOORS[size]["disc"]
    assert scores["artery"] > FLOORS[size]["artery"] and scores["vein"] > FLOORS[size]["vein"]
    assert _vessel(segmenter, cubes, masks) > FLOORS[size]["vessel"]


FLOORS = {
    64: {"disc": 0.85, "artery": 0.30, "vein": 0.62, "vessel": 0.65},
    224: {"disc": 0.85, "artery": 0.35, "vein": 0.55, "vessel": 0.62},
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "wavelengths",
    [tuple(np.linspace(460, 890, 11)), tuple(np.arange(440.0, 911, 5))],
    ids=["fewer and narrower", "many and wider"],
)
def test_other_bands_show_nearly_the_same(segmenter: Segmenter, eyes: Eyes, wavelengths: tuple[float, ...]) -> None:
    _, masks = eyes
    cubes, same = _eyes(24, 64, seed=31_337, wavelengths=wavelengths)
    assert all((same[name] == masks[name]).all() for name in STRUCTURES)
    own, other = _scores(segmenter, *eyes), _scores(segmenter, cubes, masks, wavelengths)
    assert other["disc"] > own["disc"] - 0.08
    assert _vessel(segmenter, cubes, masks, wavelengths) > _vessel(segmenter, *eyes) - 0.08


@pytest.mark.slow
@pytest.mark.parametrize("size", [80, 256])
def test_other_sizes_are_seen_at_the_nearest_scale(segmenter: Segmenter, size: int) -> None:
    cubes, masks = _eyes(4, size, seed=31_339)
    p = segmenter.probabilities(cubes, NM)
    assert p.shape == (4, 3, size, size) and p.min() >= 0 and p.max() <= 1
    assert _scores(segmenter, cubes, masks)["disc"] > 0.6


def test_oblong_cubes_keep_their_shape(segmenter: Segmenter, eyes: Eyes) -> None:
    cubes = eyes[0][:2, :, 8:56]
    assert segmenter.probabilities(cubes, NM).shape == (2, 3, 48, 64)


def test_unreadable_bands_give_the_reason(segmenter: Segmenter, eyes: Eyes) -> None:
    assert segmenter.unreadable(NM) is None
    assert segmenter.unreadable(tuple(np.linspace(464, 886, 71))) is None  # within half a band at either end
    short, sparse = tuple(np.arange(450.0, 701, 30)), (450.0, 600.0, 900.0)
    for bands, word in ((short, "450-690 nm"), (sparse, "apart")):
        reason = segmenter.unreadable(bands)
        assert reason is not None and reason.startswith("cannot certify structures: ") and word in reason
        with pytest.raises(MismatchError, match="cannot certify structures"):
            segmenter.probabilities(eyes[0][:1, : len(bands)], bands)
    with pytest.raises(MismatchError, match="wavelengths"):
        segmenter.probabilities(eyes[0][:1, :5], NM)


def test_a_cube_is_judged_alone(segmenter: Segmenter, eyes: Eyes) -> None:
    cubes = eyes[0]
    together = segmenter.probabilities(cubes, NM)
    alone = torch.cat([segmenter.probabilities(cube[None], NM) for cube in cubes[:4]])
    assert torch.allclose(together[:4], alone, atol=1e-4)
    assert segmenter.probabilities(cubes[:0], NM).shape == (0, 3, 64, 64)


def test_gain_changes_nothing(segmenter: Segmenter, eyes: Eyes) -> None:
    cubes = eyes[0][:4]
    brighter = segmenter.probabilities(cubes * 1.2, NM)
    assert (brighter - segmenter.probabilities(cubes, NM)).abs().mean() < 0.01


def test_what_is_stored_comes_back_bit_by_bit(segmenter: Segmenter, eyes: Eyes, tmp_path) -> None:
    about = json.loads(json.dumps(segmenter.about()))
    again = Segmenter.restored(about, segmenter.tensors())
    assert again.hash == segmenter.hash
    assert torch.equal(again.probabilities(eyes[0][:3], NM), segmenter.probabilities(eyes[0][:3], NM))
    save_segmenter(tmp_path / "mine", segmenter)
    assert load_segmenter(tmp_path / "mine").hash == segmenter.hash


def test_the_hash_names_the_weights(segmenter: Segmenter) -> None:
    other = copy.deepcopy(segmenter)
    assert other.hash == segmenter.hash
    weight = next(other.network.parameters())
    weight.data[0] += 0.5
    assert Segmenter.restored(other.about(), other.tensors()).hash != segmenter.hash


def test_altered_folders_are_refused(segmenter: Segmenter, tmp_path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        load_segmenter(tmp_path / "absent")
    save_segmenter(tmp_path / "mine", segmenter)
    path = tmp_path / "mine" / "segmenter.safetensors"
    data = bytearray(path.read_bytes())
    data[-100] ^= 64
    path.write_bytes(bytes(data))
    with pytest.raises(InputError, match="altered"):
        load_segmenter(tmp_path / "mine")
    path.write_bytes(bytes(data[:1000]))
    with pytest.raises(InputError, match="damaged"):
        load_segmenter(tmp_path / "mine")


def _another_camera(cubes: torch.Tensor) -> torch.Tensor:
    """Vessels and disc much fainter, and their spectra bent: log-contrast of each pixel, cut and turned by band."""
    logs = torch.log(cubes + 1e-3)
    lit = (cubes.mean(1, keepdim=True) > 0.01).float()
    mean = (logs * lit).sum((2, 3), keepdim=True) / lit.sum((2, 3), keepdim=True)
    bend = torch.linspace(-0.35, 0.5, cubes.shape[1])[:, None, None]
    return (torch.exp(mean + (logs - mean) * bend) * lit).clamp(0, 1)


@pytest.mark.slow
def test_fine_tuning_learns_another_camera_and_keeps_the_phantom(segmenter: Segmenter, eyes: Eyes) -> None:
    cubes, masks = _eyes(40, 64, seed=31_340)
    unseen, truth = eyes
    losses: list[float] = []
    known = {name: masks[name] for name in ("artery", "vein")}
    tuned = fine_tune(segmenter, _another_camera(cubes), known, NM, steps=80, seed=1, on_step=losses.append)
    assert len(losses) == 80
    before, after = _scores(segmenter, _another_camera(unseen), truth), _scores(tuned, _another_camera(unseen), truth)
    assert after["vein"] > before["vein"] + 0.05 and after["artery"] > before["artery"]
    assert tuned.hash != segmenter.hash and load_segmenter().hash == segmenter.hash
    home = fine_tune(segmenter, cubes, masks, NM, steps=40, seed=1)
    before, after = _scores(segmenter, *eyes), _scores(home, *eyes)
    assert all(after[name] > before[name] - 0.02 for name in STRUCTURES)


def test_without_masks_nothing_is_tuned(segmenter: Segmenter, eyes: Eyes) -> None:
    assert fine_tune(segmenter, eyes[0], {}, NM, steps=5, seed=0).hash == segmenter.hash
