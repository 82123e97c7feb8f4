"""Training of the segmenter: goes on as if never stopped, and paints what it says."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from synthgen.cubes.phantom.demographics import draw_patient
from synthgen.cubes.phantom.simulate import draw_eye
from synthgen.quality.segmenter.domain_randomization import BLOOD, paint
from synthgen.quality.segmenter.layers import MAPS, beside_vessels, eye_layers
from synthgen.quality.segmenter.segmenter import load_segmenter
from synthgen.quality.segmenter.training import SegmentTraining, centred, train_segmenter
from synthgen.runs.files import remove
from synthgen.runs.folder import read_metrics


@pytest.mark.slow
def test_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    config = SegmentTraining(
        out=str(tmp_path / "whole"),
        eyes_64=3,
        eyes_224=1,
        batch_64=2,
        batch_224=1,
        steps=3,
        validate_every=2,
        held_out=2,
    )
    whole = load_segmenter(train_segmenter(config))
    shutil.copytree(tmp_path / "whole", tmp_path / "again")
    remove(tmp_path / "again" / "checkpoints" / "step_00000003")
    again = load_segmenter(train_segmenter(config.model_copy(update={"out": str(tmp_path / "again"), "resume": True})))
    ours, theirs = whole.tensors(), again.tensors()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    validated = [line["step"] for line in read_metrics(tmp_path / "again") if "vessel_64" in line]
    assert validated == [2, 3]


@pytest.fixture(scope="module")
def layers() -> torch.Tensor:
    return torch.from_numpy(np.stack([eye_layers(3, i, 64) for i in range(12)])).float()


def test_masks_are_what_covers_the_pixels(layers: torch.Tensor) -> None:
    logs, masks, lit = paint(layers, torch.Generator().manual_seed(0))
    maps = dict(zip(MAPS, layers[:, -len(MAPS) :].unbind(1), strict=True))
    assert torch.isfinite(logs).all() and set(masks.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(masks[:, 1] > 0, (maps["vein"] >= 0.3) & lit[:, 0])
    assert not masks[~lit.expand_as(masks)].any()


def test_true_blood_is_darker_in_veins_at_660_and_exchanged_blood_is_not(
    layers: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    contrasts = {}
    for kind in ("true", "exchanged"):
        for name in BLOOD:
            monkeypatch.setitem(BLOOD, name, float(name == kind))
        logs, masks, lit = paint(layers, torch.Generator().manual_seed(1))
        x = centred(logs, lit, torch.ones(logs.shape[1]))[:, 7]  # 660 nm
        artery, vein = masks[:, 0] > masks[:, 1], masks[:, 1] > masks[:, 0]
        contrasts[kind] = float(x[artery].mean() - x[vein].mean())
    assert contrasts["true"] > contrasts["exchanged"]
    assert contrasts["true"] > 0


def test_vessels_meet_in_the_middle_of_some_discs_and_at_the_rim_of_others() -> None:
    anatomy = draw_eye(1, 0, "OD", draw_patient(1, 0), generations=1)
    apart = []
    for seed in range(40):
        eye = beside_vessels(anatomy, np.random.default_rng(seed))
        apart.append(float(np.hypot(*((anatomy.disc - eye.disc) / eye.disc_axes))))
    assert min(apart) < 0.2 and 0.7 < max(apart) < 1.2


def test_painted_discs_are_faint_in_some_eyes_and_bright_in_others(layers: torch.Tensor) -> None:
    contrasts = []
    for seed in range(4):
        logs, masks, lit = paint(layers, torch.Generator().manual_seed(seed))
        x = centred(logs, lit, torch.ones(logs.shape[1]))[:, 3]  # 540 nm
        bare = lit[:, 0] & (masks[:, :2].amax(1) == 0)
        for image, disc, shown in zip(x, masks[:, 2] > 0, bare, strict=True):
            if (disc & shown).sum() > 12:
                contrasts.append(float(image[disc & shown].mean() - image[~disc & shown].mean()))
    assert len(contrasts) > 20
    assert min(abs(c) for c in contrasts) < 0.1 and max(contrasts) > 0.8
