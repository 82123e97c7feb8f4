"""Trainings on toy cubes that take seconds, for the tests of both."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from synthgen.generator.training.autoencoder import AutoencoderTraining
from synthgen.generator.training.flow import DiffusionTraining
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
