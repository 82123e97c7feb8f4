"""Both trainings end to end on toy cubes: resume equals uninterrupted, two processes agree, bad choices are refused."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from synthgen.cubes.cohort.cohort import Cohort
from synthgen.cubes.cohort.writer import CohortWriter
from synthgen.errors import ConfigError, InputError, MismatchError, NonFiniteError, Stopped
from synthgen.generator.generator import Generator
from synthgen.generator.networks.quantizer import Quantiser
from synthgen.generator.training.adversarial import AdversarialTraining
from synthgen.generator.training.autoencoder import AutoencoderTraining, train_autoencoder
from synthgen.generator.training.checkpoint import load_autoencoder
from synthgen.generator.training.flow import DiffusionTraining, train_diffusion
from synthgen.generator.training.losses import structure_similarity
from synthgen.runs.folder import read_metrics
from synthgen.runs.state import load_state

SMALL = {
    "steps": 6, "batch_size": 2, "codes": 32, "encoder_channels": 8, "decoder_channels": 8, "max_channels": 16,
    "latent_channels": 4, "refit_steps": 3, "pool_batches": 2, "adversarial_start": 0.2, "log_every": 1,
    "validate_every": 100, "checkpoint_every": 100, "cpu": True,
}  # fmt: skip
SMALL_FLOW = {
    "steps": 6, "batch_size": 4, "channels": 8, "multipliers": (1, 2), "attention_heads": 2, "dropout": 0.1,
    "log_every": 1, "validate_every": 3, "checkpoint_every": 100, "cpu": True,
}  # fmt: skip


def autoencoder_training(cohort: Path, out: Path, **changes) -> AutoencoderTraining:
    return AutoencoderTraining(data=str(cohort), out=str(out), **{**SMALL, **changes})


def diffusion_training(cohort: Path, coder: Path, out: Path, **changes) -> DiffusionTraining:
    return DiffusionTraining(data=str(cohort), autoencoder=str(coder), out=str(out), **{**SMALL_FLOW, **changes})


@pytest.fixture(scope="module")
def coder(cohort_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_autoencoder(autoencoder_training(cohort_path, tmp_path_factory.mktemp("coder") / "run"))


def stop_after(monkeypatch: pytest.MonkeyPatch, trainer: type, steps: int) -> None:
    """Send this process SIGTERM during step `steps`, as a scheduler would."""
    whole = trainer.step

    def step(self, k: int, done: float):
        if k + 1 == steps:
            os.kill(os.getpid(), 15)
        return whole(self, k, done)

    monkeypatch.setattr(trainer, "step", step)


def last_state(run: Path) -> dict:
    newest = sorted((run / "checkpoints").glob("step_*"))[-1]
    return load_state(newest / "shared.safetensors")["task"]


def assert_equal_trees(a, b) -> None:
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_equal_trees(a[key], b[key])
    elif isinstance(a, list | tuple):
        for x, y in zip(a, b, strict=True):
            assert_equal_trees(x, y)
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    else:
        assert a == b


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


@pytest.mark.parametrize(("kmeans", "fits", "draws"), [("epoch", 2, 0), ("once", 1, 0), ("none", 0, 1)])
def test_kmeans_runs_as_often_as_it_is_told(cohort_path: Path, tmp_path: Path, monkeypatch, kmeans, fits, draws):
    called = []
    for name in ("fit", "draw"):
        whole = getattr(Quantiser, name)
        monkeypatch.setattr(Quantiser, name, lambda *a, whole=whole, name=name: called.append(name) or whole(*a))
    train_autoencoder(autoencoder_training(cohort_path, tmp_path / "a", kmeans=kmeans, quantiser_start=0.0, steps=10))
    assert (called.count("fit"), called.count("draw")) == (fits, draws)


def test_codes_follow_as_fast_as_they_are_told(cohort_path: Path, tmp_path: Path):
    """With a decay of 0 a code is the mean of the vectors that the last batch gave it; with one near 1 it stays."""
    codes = {}
    for decay in (0.0, 0.999):
        more = {"code_decay": decay, "dead_share": 0.0, "kmeans": "once"}
        at = train_autoencoder(autoencoder_training(cohort_path, tmp_path / str(decay), **more))
        quantiser = load_autoencoder(at).model.quantiser
        codes[decay] = quantiser.codebook.clone()
        first = load_state(sorted((tmp_path / str(decay) / "checkpoints").glob("step_*"))[-1] / "shared.safetensors")
        assert float(first["task"]["model"]["quantiser.revived"]) == 0
    assert not torch.allclose(codes[0.0], codes[0.999], atol=1e-3)


@pytest.mark.slow
def test_later_refits_see_enough_vectors_where_batches_hold_few(cohort_path: Path, tmp_path: Path):
    """At compression 16 a batch of two has 8 vectors: as many batches are gathered as 32 codes need."""
    few = {"compression": 16, "pool_batches": 1, "quantiser_start": 0.0, "steps": 10}
    made = load_autoencoder(train_autoencoder(autoencoder_training(cohort_path, tmp_path / "a", **few)))
    assert made.made["steps"] == 10


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
def test_a_flow_goes_on_from_another_generators(cohort_path: Path, coder: Path, tmp_path: Path):
    first = train_diffusion(diffusion_training(cohort_path, coder, tmp_path / "a"))
    again = {"start_from": str(first), "steps": 1, "learning_rate": 1e-9}
    second = train_diffusion(diffusion_training(cohort_path, first, tmp_path / "b", **again))
    one, two = (dict(Generator.load(folder, "cpu").flow.unet.named_parameters()) for folder in (first, second))
    assert all(torch.allclose(one[name], two[name], atol=1e-6) for name in one)
    assert Generator.load(second).provenance == Generator.load(first).provenance  # of the same patients
    with pytest.raises(MismatchError, match="channels 8"):
        train_diffusion(diffusion_training(cohort_path, first, tmp_path / "c", **again, channels=16))


def test_the_spectra_of_structures_are_learned_from_the_masks_and_a_resume_is_the_same(
    cohort_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    more = {"structure_weight": 0.1, "spectral_head": True}
    straight = load_autoencoder(train_autoencoder(autoencoder_training(cohort_path, tmp_path / "a", **more)))
    assert all(m["structure"] > 0 for m in read_metrics(tmp_path / "a") if "l1" in m)
    with monkeypatch.context() as patch:
        stop_after(patch, AdversarialTraining, 4)
        with pytest.raises(Stopped):
            train_autoencoder(autoencoder_training(cohort_path, tmp_path / "b", **more))
    resumed = train_autoencoder(autoencoder_training(cohort_path, tmp_path / "b", **more, resume=True))
    for name, value in load_autoencoder(resumed).model.state_dict().items():
        assert torch.equal(value, straight.model.state_dict()[name]), name
    nothing = lambda cohort, index: {}
    with pytest.raises(ConfigError, match="where arteries, veins or the disc are"):
        train_autoencoder(autoencoder_training(cohort_path, tmp_path / "c", **more), find_masks=nothing)


def test_a_spectral_head_may_be_put_on_another_autoencoder_but_not_taken_off(
    cohort_path: Path, coder: Path, tmp_path: Path
):
    more = {"start_from": str(coder), "steps": 1, "learning_rate": 1e-9, "critic_learning_rate": 1e-9}
    headed = train_autoencoder(autoencoder_training(cohort_path, tmp_path / "a", **more, spectral_head=True))
    before, after = (load_autoencoder(folder).model.decoder for folder in (coder, headed))
    latent = torch.randn(2, before.layers[0].in_channels, 8, 8)
    torch.testing.assert_close(before(latent), after(latent), rtol=1e-3, atol=1e-4)
    assert not torch.equal(after.spectra, torch.eye(6))
    again = more | {"start_from": str(headed)}
    kept = train_autoencoder(autoencoder_training(cohort_path, tmp_path / "b", **again, spectral_head=True))
    assert torch.equal(load_autoencoder(kept).model.decoder.spectra, after.spectra)
    with pytest.raises(MismatchError, match="spectral_head True"):
        train_autoencoder(autoencoder_training(cohort_path, tmp_path / "c", **again))


def test_a_decoder_learns_on_while_the_latents_stay(cohort_path: Path, coder: Path, tmp_path: Path):
    first = load_autoencoder(coder).model
    more = {"start_from": str(coder), "keep_latents": True, "levels": 2}
    second = load_autoencoder(train_autoencoder(autoencoder_training(cohort_path, tmp_path / "a", **more))).model
    residual = torch.randn(2, 6, 32, 32)
    assert torch.equal(first.code_vectors(residual), second.code_vectors(residual))
    assert second.quantiser.levels == 2 and not torch.equal(first.decoder.last.weight, second.decoder.last.weight)
    with pytest.raises(MismatchError, match="decoder_channels 8"):
        train_autoencoder(autoencoder_training(cohort_path, tmp_path / "b", start_from=str(coder), decoder_channels=16))
    with pytest.raises(ConfigError, match="no latents to keep"):
        train_autoencoder(autoencoder_training(cohort_path, tmp_path / "c", keep_latents=True))


@pytest.mark.slow
def test_a_generator_gets_a_decoder_that_learned_on(cohort_path: Path, coder: Path, tmp_path: Path):
    """The same latents from the same ids, decoded by another decoder; a recipe for half the weights stays so."""
    first = train_diffusion(diffusion_training(cohort_path, coder, tmp_path / "a", half=True))
    more = {"start_from": str(first), "keep_latents": True, "subtle_weight": 1.0}
    train_autoencoder(autoencoder_training(cohort_path, tmp_path / "b", **more))
    old, new = (Generator.load(folder, "cpu") for folder in (first, tmp_path / "b" / "generator"))
    assert all(torch.equal(a, b) for a, b in zip(old.flow.parameters(), new.flow.parameters(), strict=True))
    assert not torch.equal(old.autoencoder.decoder.last.weight, new.autoencoder.decoder.last.weight)
    assert new.half_weights and new.hash != old.hash and new.made["diffusion"] == old.made["diffusion"]
    assert torch.equal(old.sample(range(3), 0).base, new.sample(range(3), 0).base)
    assert "subtle" in read_metrics(tmp_path / "b")[0]


@pytest.mark.slow
def test_what_a_flow_started_from_is_remembered(cohort_path: Path, coder: Path, tmp_path: Path):
    from synthgen.cubes.cohort.splits import load_or_make_split

    first = train_diffusion(diffusion_training(cohort_path, coder, tmp_path / "a"))
    path = tmp_path / "others.h5"
    with CohortWriter(path, np.linspace(450, 900, 6), 32, 32) as writer:
        for k in range(12):
            writer.append(np.random.default_rng(k).random((6, 32, 32), dtype=np.float32), f"other{k}")
    own = diffusion_training(path, first, tmp_path / "b", start_from=str(first), steps=1)
    second = train_diffusion(own)
    provenance = Generator.load(second).provenance
    train = load_or_make_split(Cohort.open(cohort_path)).train
    assert provenance.seen(train) == sorted(train) and provenance.seen(["other1", "nobody"]) in ([], ["other1"])
    assert len(provenance.also) == 1  # autoencoder and flow saw the same
    back = diffusion_training(cohort_path, second, tmp_path / "c", start_from=str(second), steps=1)
    again = Generator.load(train_diffusion(back)).provenance
    assert [seen.cohort_hash for seen in again.also] == [provenance.cohort_hash]


def test_minutes_end_a_training_cleanly(cohort_path: Path, tmp_path: Path):
    out = train_autoencoder(autoencoder_training(cohort_path, tmp_path / "a", steps=10_000, minutes=0.02))
    assert 0 < load_autoencoder(out).made["steps"] < 10_000


def test_crops_train_a_model_of_full_size(cohort_path: Path, tmp_path: Path):
    out = train_autoencoder(autoencoder_training(cohort_path, tmp_path / "a", crop=16, steps=2))
    assert load_autoencoder(out).model.config.size == 32


def test_a_vq_vae_has_no_critics(cohort_path: Path, tmp_path: Path):
    plain = {"adversarial_weight": 0, "matching_weight": 0, "angle_weight": 0, "ms_ssim_weight": 0}
    train_autoencoder(autoencoder_training(cohort_path, tmp_path / "a", steps=2, **plain))
    assert "critic" not in read_metrics(tmp_path / "a")[0]


@pytest.mark.slow
def test_critics_join_without_spoiling_what_was_learned(cohort_path: Path, tmp_path: Path):
    """They learn from the first step and join the loss half way: from there on the reconstruction goes on getting
    better, and the codes stay in use."""
    more = {"steps": 140, "adversarial_start": 0.5, "adversarial_ramp": 0.1, "batch_size": 2, "learning_rate": 2e-3}
    coder = train_autoencoder(autoencoder_training(cohort_path, tmp_path / "a", refit_steps=30, **more))
    lines = [m for m in read_metrics(tmp_path / "a") if "l1" in m]
    assert [("adversarial" in m) for m in lines] == [m["step"] > 71 for m in lines] and "critic" in lines[0]
    l1 = np.array([m["l1"] for m in lines])
    before, after, last = l1[50:70], l1[70:120], l1[120:]
    assert np.isfinite(l1).all() and after.max() < 2 * before.max() and last.mean() < before.mean()
    assert load_autoencoder(coder).made["train_codes_used"] > 0.9


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


RANK_SCRIPT = """
import json, os, sys
from pathlib import Path
from synthgen.contracts import content_hash
from synthgen.generator.training import adversarial
from synthgen.generator.training import autoencoder as room

config, folder = json.loads(sys.argv[1]), Path(sys.argv[2])
made, held = adversarial.AdversarialTraining.__init__, []
def init(self, *parts):
    made(self, *parts)
    held.append(self)
adversarial.AdversarialTraining.__init__ = init
room.train_autoencoder(room.AutoencoderTraining(**config))
trainer = held[0]
weights = content_hash(*[value for _, value in sorted(trainer.model.state_dict().items())])
(folder / f"rank{trainer.accelerator.process_index}").write_text(f"{trainer.accelerator.num_processes} {weights}")
"""


@pytest.mark.slow
def test_two_processes_hold_the_same_codebook(cohort_path: Path, tmp_path: Path):
    """Two gloo processes with their own cubes stay equal in every weight and every code."""
    config = json.dumps({**SMALL, "steps": 4, "data": str(cohort_path), "out": str(tmp_path / "run")})
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        **os.environ, "ACCELERATE_USE_CPU": "true", "SYNTHGEN_THREADS": "1", "SYNTHGEN_QUIET": "1", "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", RANK_SCRIPT, config, str(tmp_path)],
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}, cwd=Path(__file__).parents[3],
            stderr=(tmp_path / f"errors{rank}").open("w"),
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        codes = [process.wait(timeout=400) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert codes == [0, 0], (tmp_path / "errors0").read_text()[-2000:]
    first, second = ((tmp_path / f"rank{rank}").read_text() for rank in range(2))
    assert first == second and first.startswith("2 ")
