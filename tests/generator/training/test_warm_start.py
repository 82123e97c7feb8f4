"""Trainings that go on from another generator: what is kept, what may change, what is remembered."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from synthgen.cubes.cohort.cohort import Cohort
from synthgen.cubes.cohort.writer import CohortWriter
from synthgen.errors import ConfigError, MismatchError
from synthgen.generator.generator import Generator
from synthgen.generator.training.autoencoder import train_autoencoder
from synthgen.generator.training.checkpoint import load_autoencoder
from synthgen.generator.training.flow import train_diffusion
from synthgen.runs.folder import read_metrics
from tests.generator.training.small_trainings import (
    autoencoder_training,
    diffusion_training,
)


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
