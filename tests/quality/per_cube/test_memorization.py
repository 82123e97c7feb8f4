"""Copies in every form are nearer to their originals than eyes of patients never seen are to anything."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from synthgen.cubes.phantom.cohort import simulate_cohort
from synthgen.errors import InputError, MismatchError
from synthgen.quality.features.distortions import blurred
from synthgen.quality.per_cube.memorization import MemorizationDetector, _closest, shift

pytestmark = pytest.mark.slow  # one fixture of all takes seconds

SIZE = 64


@pytest.fixture(scope="module")
def eyes(tmp_path_factory: pytest.TempPathFactory) -> torch.Tensor:
    folder = tmp_path_factory.mktemp("eyes")
    return torch.from_numpy(simulate_cohort(folder / "eyes.h5", patients=60, size=SIZE, seed=6, workers=1).cubes())


@pytest.fixture(scope="module")
def detector(eyes: torch.Tensor) -> MemorizationDetector:
    torch.set_num_threads(1)
    return MemorizationDetector.fit(eyes[:60], steps=40)


def _noisy(x: torch.Tensor, share: float) -> torch.Tensor:
    return (x * (1 + share * torch.randn(x.shape, generator=torch.Generator().manual_seed(0)))).clamp(0, 1)


FORMS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "exact": lambda x: x,
    "flipped left-right": lambda x: x.flip(3),
    "flipped top-bottom": lambda x: x.flip(2),
    "shifted by 2": lambda x: shift(x, 2, -2),
    "shifted by 1": lambda x: shift(x, 0, 1),
    "darker": lambda x: 0.9 * x,
    "noise of 1 %": lambda x: _noisy(x, 0.01),
    "noise of 3 %": lambda x: _noisy(x, 0.03),
    "one band replaced": lambda x: torch.cat([x[:, :7], x[:, 6:7], x[:, 8:]], 1),
    "flipped, shifted and darker": lambda x: 0.9 * shift(x.flip(3), -2, 0),
    "slightly blurred": lambda x: blurred(x, 0.7),
    "rounded to 8 bits": lambda x: (x * 255).round() / 255,
}


@pytest.mark.parametrize("form", FORMS)
def test_copies_are_nearer_than_unseen_eyes(detector: MemorizationDetector, eyes: torch.Tensor, form: str) -> None:
    """At the 5 % quantile of eyes never seen, 95 % of the copies are found, and the original is named."""
    limit = detector.nearest(eyes[60:]).score.quantile(0.05)
    near = detector.nearest(FORMS[form](eyes[:60]))
    assert (near.score < limit).float().mean() >= 0.95
    assert (near.index == torch.arange(60)).float().mean() >= 0.95


def test_flips_and_gain_change_nothing(detector: MemorizationDetector, eyes: torch.Tensor) -> None:
    plain = detector.nearest(eyes[60:70])
    for same in (eyes[60:70].flip(3), eyes[60:70].flip(2)):
        found = detector.nearest(same)
        assert torch.allclose(found.coarse, plain.coarse, atol=0.05)
    assert (detector.nearest(eyes[:60].flip(2, 3)).score < 0.2).all()


def test_the_score_is_the_smaller_distance_and_about_one_between_training_cubes(
    detector: MemorizationDetector, eyes: torch.Tensor
) -> None:
    near = detector.nearest(eyes[60:])
    assert torch.equal(near.score, torch.minimum(near.contrastive, near.coarse))
    others = detector.with_bank(eyes[1:60])
    assert others.count == 59 and others.scales == detector.scales
    assert 0.3 < float(others.nearest(eyes[:1]).score) < 2
    assert detector.count == 60


def test_results_do_not_depend_on_the_batch_nor_on_storage(detector: MemorizationDetector, eyes: torch.Tensor) -> None:
    together = detector.nearest(eyes[50:120])
    alone = [detector.nearest(cube[None]) for cube in eyes[50:54]]
    assert torch.allclose(torch.cat([a.score for a in alone]), together.score[:4], atol=1e-3)
    again = MemorizationDetector.restored(detector.about(), detector.tensors()).nearest(eyes[50:120])
    assert torch.equal(again.index, together.index) and torch.allclose(again.score, together.score, atol=1e-5)
    assert len(detector.nearest(eyes[:0]).score) == 0


def test_the_bank_is_searched_in_blocks_as_if_at_once() -> None:
    rng = torch.Generator().manual_seed(0)
    unit = torch.nn.functional.normalize(torch.randn(40_000, 8, generator=rng), dim=1)
    bank, query = (unit * 127).round().to(torch.int8), unit[[3, 20_001, 39_999]]
    distance, index = _closest(query, bank, 20_000)
    assert index.tolist() == [3, 1, 19_999] and (distance < 0.05).all()
    besides = _closest(query, bank, 20_000, index)
    assert not (besides[1] == index).any() and (besides[0] > distance).all()


def test_what_it_cannot_use_is_refused(detector: MemorizationDetector, eyes: torch.Tensor) -> None:
    with pytest.raises(MismatchError, match="bands"):
        detector.nearest(eyes[:2, :5])
    with pytest.raises(InputError, match="too few"):
        MemorizationDetector.fit(eyes[:1], steps=1)
