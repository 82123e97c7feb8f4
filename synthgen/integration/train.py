"""The two trainings of a generator, with the pictures that they leave: contact sheet, spectra, curves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field

from synthgen.cubes.cohort.cohort import Cohort
from synthgen.errors import MismatchError
from synthgen.generator.training import autoencoder
from synthgen.generator.training import flow as diffusion
from synthgen.generator.training.autoencoder import AutoencoderTraining
from synthgen.generator.training.flow import DiffusionTraining
from synthgen.integration.artifacts import check_belongs
from synthgen.integration.pages.run import end_with_report
from synthgen.integration.pages.snapshots import validation_callback
from synthgen.quality.features.handcrafted import field_of_view
from synthgen.quality.gates import Gates, load_gates
from synthgen.quality.segmenter.segmenter import CONFIDENT, STRUCTURES, load_segmenter
from synthgen.report.curves import training_curves
from synthgen.runs.folder import read_metrics

SEGMENTED = 64  # cubes whose structures are looked for at a time


class WatchedAutoencoder(AutoencoderTraining):
    """The training of the VQ-GAN with gates that judge its reconstructions."""

    gates_folder: str | None = Field(
        None,
        description="gates: at each validation, log how many of their checks real and reconstructed eyes fail",
    )


def train_autoencoder(config: WatchedAutoencoder, note: str = "") -> Path:
    """Train the VQ-GAN; returns the folder `out/autoencoder`. `note` is written below the contact sheet.

    Where the cohort has no masks, `structure_weight` takes the structures that the packaged segmenter finds.
    """
    gates = _gates_for(config.data, config.gates_folder)
    folder = autoencoder.train_autoencoder(
        config, validation_callback(note, gates), structure_masks, gates_folder=gates.hash if gates else None
    )
    watched = ("gates_failed", "gates_undecided", "gates_failed_real", "joint_frechet_ratio") if gates else ()
    _curves(config.out, ("loss", "validation_l1", "spectral_angle_deg", "psnr_db", "train_perplexity", *watched))
    end_with_report(config.out)
    return folder


def structure_masks(cohort: Cohort, index: np.ndarray) -> list[dict[str, np.ndarray]]:
    """Where artery, vein, disc and field of view are, bool [n, H, W] by name: by the cohort's masks where it has them,
    and as the packaged segmenter, and so every gate, finds them: its surest pixels are the darkest of a vessel.

    MismatchError where the cohort has no masks and the segmenter cannot read its bands.
    """
    own = [cohort.masks(index)] if set(STRUCTURES) <= set(cohort.mask_names) else []
    try:
        return [*own, _segmented(cohort, index)]
    except MismatchError:
        if not own:
            raise
        return own


def _segmented(cohort: Cohort, index: np.ndarray) -> dict[str, np.ndarray]:
    segmenter, found, lit = load_segmenter(), [], []
    for part in np.array_split(index, -(-len(index) // SEGMENTED)):
        cubes = torch.from_numpy(cohort.cubes(part))
        found.append(segmenter.probabilities(cubes, cohort.wavelengths).numpy() > CONFIDENT)
        lit.append(field_of_view(cubes).numpy())
    masks = np.concatenate(found)
    return {name: masks[:, k] for k, name in enumerate(segmenter.structures)} | {"fov": np.concatenate(lit)}


class WatchedDiffusion(DiffusionTraining):
    """The training of the latent flow with gates that judge its validations."""

    command: ClassVar[str] = "train-diffusion"
    gates_folder: str | None = Field(
        None,
        description="gates: at each validation, log the fractions of synthetic cubes that they reject and call copies",
    )


def train_diffusion(config: WatchedDiffusion, note: str = "") -> Path:
    """Train the latent diffusion; returns the folder `out/generator`. `note` is written below the contact sheet."""
    gates = _gates_for(config.data, config.gates_folder)
    folder = diffusion.train_diffusion(
        config, validation_callback(note, gates), gates_folder=gates.hash if gates else None
    )
    _curves(config.out, ("loss", "train_loss", "held_out_loss", *(("rejected_share", "copy_share") if gates else ())))
    end_with_report(config.out)
    return folder


def _gates_for(data: str, folder: str | None) -> Gates | None:
    """The gates that look on, if any. MismatchError, before anything is trained, for gates of other bands or sizes."""
    if not folder:
        return None
    gates = load_gates(folder)
    check_belongs(Cohort.open(data), gates.wavelengths, gates.size, "gates", folder)
    return gates


def _curves(out: str, names: Sequence[str]) -> None:
    training_curves(Path(out) / "curves.png", read_metrics(out), names)
