"""Both trainings end to end on toy cubes: resume equals uninterrupted, bad choices and bad losses are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from synthgen.cubes.cohort.cohort import Cohort
from synthgen.cubes.cohort.writer import CohortWriter
from synthgen.errors import ConfigError, InputError, MismatchError, NonFiniteError, Stopped
from synthgen.generator.generator import Generator
from synthgen.generator.training.adversarial import AdversarialTraining
from synthgen.generator.training.autoencoder import train_autoencoder
from synthgen.generator.training.checkpoint import load_autoencoder
from synthgen.generator.training.flow import train_diffusion
from synthgen.generator.training.losses import structure_similarity
from synthgen.runs.folder import read_metrics
from synthgen.runs.state import load_state
from tests.generator.training.small_trainings import (
    assert_equal_trees,
    autoencoder_training,
    diffusion_training,
    last_state,
    stop_after,
)


@pytest.mark.slow
def test_autoencoder_resumed_equals_uninterrupted(cohort_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    straight = load_autoencoder(train_autoencoder(autoencoder_training(cohort_path, tmp_path / "a")))
    with monkeypatch.context() as patch:
        stop_after(patch, AdversarialTraining, 4)
        with pytest.raises(Stopped) as stopped:
            train_autoencoder(autoencoder_training(cohort_path, tmp_path / "b"))
    assert stopped.value.exit_code == 143
    resumed = load_autoencoder(train_autoencoder(autoencoder_training(cohort_path, tmp_path / "b", resume=True)))
    assert_equal_trees(straight.model.state_dict(), resumed.model.state_dict())  # codebook and its averages included
    assert_equal_trees(last_state(tmp_path / "a"), last_state(tmp_path / "b"))
    assert [m["step"] for m in read_metrics(tmp_path / "b")] == [m["step"] for m in read_metrics(tmp_path / "a")]


@pytest.mark.slow
def test_diffusion_resumed_equals_uninterrupted(
    cohort_path: Path, coder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from synthgen.generator.training import flow as room

    straight = Generator.load(train_diffusion(diffusion_training(cohort_path, coder, tmp_path / "a")), "cpu")
    with monkeypatch.context() as patch:
        stop_after(patch, room._Trainer, 4)
        with pytest.raises(Stopped):
            train_diffusion(diffusion_training(cohort_path, coder, tmp_path / "b"))
    resumed = Generator.load(
        train_diffusion(diffusion_training(cohort_path, coder, tmp_path / "b", resume=True)), "cpu"
    )
    assert_equal_trees(straight.state_dict(), resumed.state_dict())
    assert_equal_trees(last_state(tmp_path / "a"), last_state(tmp_path / "b"))
    with pytest.raises(ConfigError, match="already holds a run"):
        train_diffusion(diffusion_training(cohort_path, coder, tmp_path / "b"))


@pytest.mark.slow
def test_a_compiled_training_learns_the_same_and_saves_plain_networks(
    cohort_path: Path, coder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from synthgen.generator.networks.unet import UNet

    def compile(self, **options):  # the compiler's front without its code generator, which is slow
        calls.append(options)
        torch.nn.Module.compile(self, backend="aot_eager", **options)

    calls: list[dict] = []
    monkeypatch.setattr(UNet, "compile", compile, raising=False)
    plain = Generator.load(train_diffusion(diffusion_training(cohort_path, coder, tmp_path / "a")), "cpu")
    other = Generator.load(train_diffusion(diffusion_training(cohort_path, coder, tmp_path / "b", compile=True)), "cpu")
    assert calls == [{"dynamic": False}]
    assert plain.state_dict().keys() == other.state_dict().keys()
    for name, value in plain.state_dict().items():
        assert torch.allclose(value, other.state_dict()[name], atol=1e-4), name


@pytest.mark.slow
def test_callbacks_get_real_reconstructed_and_synthetic_cubes(cohort_path: Path, tmp_path: Path):
    seen: list[tuple[str, dict, int]] = []

    def on_validation(kind: str, arrays: dict, folder: Path, step: int) -> None:
        seen.append((kind, arrays, step))

    out = train_autoencoder(autoencoder_training(cohort_path, tmp_path / "a", validate_every=4), on_validation)
    generator = Generator.load(
        train_diffusion(diffusion_training(cohort_path, out, tmp_path / "d", half=True), on_validation), "cpu"
    )
    assert [(kind, step) for kind, _, step in seen] == [
        ("autoencoder", 4), ("autoencoder", 6), ("diffusion", 3), ("diffusion", 6)
    ]  # fmt: skip
    for kind, arrays, _ in seen:
        names = ["real", "reconstructed"] + ["synthetic"] * (kind == "diffusion")
        for name in names:
            assert arrays[name].dtype == np.float32 and arrays[name].shape[1:] == (6, 32, 32)
        assert arrays["masks"]["disc"].shape == (len(arrays["real"]), 32, 32)
    figures = read_metrics(tmp_path / "a")[-1]
    assert {"validation_l1", "spectral_angle_deg", "psnr_db", "train_codes_used", "train_perplexity"} <= figures.keys()
    assert "held_out_loss" in read_metrics(tmp_path / "d")[-1]
    made = generator.made
    assert made["autoencoder"]["steps"] == 6 and made["diffusion"]["steps"] == 6
    assert generator.half_weights and len(generator.provenance.patients) == 8


def test_test_patients_are_never_seen(cohort_path: Path, coder: Path):
    from synthgen.cubes.cohort.splits import load_or_make_split

    split = load_or_make_split(Cohort.open(cohort_path))
    provenance = load_autoencoder(coder).provenance
    assert provenance.seen(split.test) == [] and provenance.seen(split.train) == sorted(split.train)


@pytest.mark.slow
def test_minutes_end_a_training_cleanly(cohort_path: Path, tmp_path: Path):
    out = train_autoencoder(autoencoder_training(cohort_path, tmp_path / "a", steps=10_000, minutes=0.02))
    assert 0 < load_autoencoder(out).made["steps"] < 10_000


def test_three_bad_losses_running_stop_the_training(cohort_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    whole = AdversarialTraining._reconstruction

    def spoiled(self, x, out, where, step):
        losses = whole(self, x, out, where, step)
        return losses if step < 2 else {**losses, "loss": losses["loss"] * float("nan")}

    monkeypatch.setattr(AdversarialTraining, "_reconstruction", spoiled)
    with pytest.raises(NonFiniteError):
        train_autoencoder(autoencoder_training(cohort_path, tmp_path / "a", checkpoint_every=1))
    kept = last_state(tmp_path / "a")["model"]
    assert all(torch.isfinite(v).all() for v in kept.values() if isinstance(v, torch.Tensor))


@pytest.mark.parametrize("ms_ssim_weight", [0.0, 0.2])
def test_gradients_that_are_not_finite_never_reach_the_weights(
    cohort_path: Path, tmp_path: Path, monkeypatch, ms_ssim_weight
):
    """Those of the critics' part, say, while the reconstruction's loss is finite: skipped, then stopped."""
    whole = AdversarialTraining._with_critics

    def spoiled(self, x, out, reconstruction, ramp):
        total, more = whole(self, x, out, reconstruction, ramp)
        return total * float("nan"), more

    monkeypatch.setattr(AdversarialTraining, "_with_critics", spoiled)
    asked = {"checkpoint_every": 1, "steps": 12, "ms_ssim_weight": ms_ssim_weight}
    with pytest.raises(NonFiniteError):
        train_autoencoder(autoencoder_training(cohort_path, tmp_path / "a", **asked))
    for folder in (tmp_path / "a" / "checkpoints").glob("step_*"):
        state = load_state(folder / "shared.safetensors")["task"]["model"]
        assert all(torch.isfinite(v).all() for v in state.values() if isinstance(v, torch.Tensor))


def test_ms_ssim_of_what_is_not_finite_is_nan():
    """So that the loop skips the step; piq refuses such input with an assertion."""
    x = torch.rand(1, 2, 64, 64)
    assert torch.isnan(structure_similarity(x, x * float("nan")))
    assert float(structure_similarity(x, x)) == pytest.approx(1)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"compression": 64}, "does not divide"),
        ({"crop": 30}, "does not divide"),
        ({"crop": 64}, "larger than the cubes"),
        ({"latent_channels": 64, "compression": 2}, "larger than the cube"),
        ({"codes": 4096}, "fewer latent vectors than codes"),
    ],
)
def test_choices_that_cannot_work_leave_nothing_behind(cohort_path: Path, tmp_path: Path, changes: dict, words: str):
    with pytest.raises(ConfigError, match=words):
        train_autoencoder(autoencoder_training(cohort_path, tmp_path / "a", **changes))
    assert not (tmp_path / "a").exists()


def test_a_cohort_of_other_bands_is_refused(coder: Path, tmp_path: Path):
    path = tmp_path / "five.h5"
    with CohortWriter(path, np.linspace(450, 900, 5), 32, 32) as writer:
        for k in range(6):
            writer.append(np.random.default_rng(k).random((5, 32, 32), dtype=np.float32), f"p{k}")
    with pytest.raises(MismatchError, match="5x32x32"):
        train_diffusion(diffusion_training(path, coder, tmp_path / "d"))
    with pytest.raises(InputError):
        train_diffusion(diffusion_training(path, tmp_path / "nowhere", tmp_path / "d"))
