"""What an autoencoder learns with: codes, structures, crops, discriminators; two processes agree."""

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

from synthgen.errors import ConfigError, Stopped
from synthgen.generator.networks.quantizer import Quantiser
from synthgen.generator.training.adversarial import AdversarialTraining
from synthgen.generator.training.autoencoder import train_autoencoder
from synthgen.generator.training.checkpoint import load_autoencoder
from synthgen.runs.folder import read_metrics
from synthgen.runs.state import load_state
from tests.generator.training.small_trainings import (
    SMALL,
    autoencoder_training,
    stop_after,
)


@pytest.mark.slow
@pytest.mark.parametrize(("kmeans", "fits", "draws"), [("epoch", 2, 0), ("once", 1, 0), ("none", 0, 1)])
def test_kmeans_runs_as_often_as_it_is_told(cohort_path: Path, tmp_path: Path, monkeypatch, kmeans, fits, draws):
    called = []
    for name in ("fit", "draw"):
        whole = getattr(Quantiser, name)
        monkeypatch.setattr(Quantiser, name, lambda *a, whole=whole, name=name: called.append(name) or whole(*a))
    train_autoencoder(autoencoder_training(cohort_path, tmp_path / "a", kmeans=kmeans, quantiser_start=0.0, steps=10))
    assert (called.count("fit"), called.count("draw")) == (fits, draws)


@pytest.mark.slow
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
def test_the_spectra_of_structures_are_learned_from_the_masks_and_a_resume_is_the_same(
    cohort_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    more = {"structure_weight": 0.1, "shift_weight": 0.01, "spectral_head": True}
    straight = load_autoencoder(train_autoencoder(autoencoder_training(cohort_path, tmp_path / "a", **more)))
    assert all(m["structure"] > 0 for m in read_metrics(tmp_path / "a") if "l1" in m)
    with monkeypatch.context() as patch:
        stop_after(patch, AdversarialTraining, 4)
        with pytest.raises(Stopped):
            train_autoencoder(autoencoder_training(cohort_path, tmp_path / "b", **more))
    resumed = train_autoencoder(autoencoder_training(cohort_path, tmp_path / "b", **more, resume=True))
    for name, value in load_autoencoder(resumed).model.state_dict().items():
        assert torch.equal(value, straight.model.state_dict()[name]), name
    nothing = lambda cohort, index: [{}]
    with pytest.raises(ConfigError, match="where arteries, veins or the disc are"):
        train_autoencoder(autoencoder_training(cohort_path, tmp_path / "c", **more), find_masks=nothing)


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
