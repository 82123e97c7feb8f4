"""The two trainings of a generator, with the pictures that they leave: contact sheet, spectra, curves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from synthgen.generator.training import autoencoder
from synthgen.generator.training import flow as diffusion
from synthgen.generator.training.autoencoder import AutoencoderTraining
from synthgen.generator.training.flow import DiffusionTraining
from synthgen.integration.pages.run import end_with_report
from synthgen.integration.pages.snapshots import validation_callback
from synthgen.quality.gates import load_gates
from synthgen.report.curves import training_curves
from synthgen.runs.folder import read_metrics


def train_autoencoder(config: AutoencoderTraining, note: str = "") -> Path:
    """Train the VQ-GAN; returns the folder `out/autoencoder`. `note` is written below the contact sheet."""
    folder = autoencoder.train_autoencoder(config, validation_callback(note))
    _curves(config.out, ("loss", "validation_l1", "spectral_angle_deg", "psnr_db", "train_perplexity"))
    end_with_report(config.out)
    return folder


class WatchedDiffusion(DiffusionTraining):
    """The training of the latent flow with gates that judge its validations."""

    command: ClassVar[str] = "train-diffusion"
    gates_folder: str | None = Field(
        None,
        description="gates: at each validation, log the fractions of synthetic cubes that they reject and call copies",
    )


def train_diffusion(config: WatchedDiffusion, note: str = "") -> Path:
    """Train the latent diffusion; returns the folder `out/generator`. `note` is written below the contact sheet."""
    gates = load_gates(config.gates_folder) if config.gates_folder else None
    folder = diffusion.train_diffusion(
        config, validation_callback(note, gates), gates_folder=gates.hash if gates else None
    )
    _curves(config.out, ("loss", "train_loss", "held_out_loss", *(("rejected_share", "copy_share") if gates else ())))
    end_with_report(config.out)
    return folder


def _curves(out: str, names: Sequence[str]) -> None:
    training_curves(Path(out) / "curves.png", read_metrics(out), names)
