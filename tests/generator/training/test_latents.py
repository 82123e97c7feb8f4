"""The training set's latents are encoded once, and never taken for another autoencoder's or another cohort's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from synthgen.cubes.cohort.cohort import Cohort
from synthgen.generator.config import AutoencoderConfig
from synthgen.generator.networks.autoencoder import Autoencoder
from synthgen.generator.training import latents as room
from synthgen.generator.training.autoencoder import AutoencoderTraining, train_autoencoder
from synthgen.generator.training.cube_source import CubeSource, statistics_of
from synthgen.generator.training.flow import DiffusionTraining, train_diffusion
from synthgen.generator.training.latents import cached_latents, encode_both_ways


@pytest.fixture
def source(cohort_path: Path) -> CubeSource:
    cohort = Cohort.open(cohort_path)
    return CubeSource(cohort, np.arange(4), statistics_of(cohort, np.arange(4)))


def network(seed: int, source: CubeSource) -> Autoencoder:
    torch.manual_seed(seed)
    narrow = {"encoder_channels": 8, "decoder_channels": 8, "max_channels": 8, "latent_channels": 4}
    config = AutoencoderConfig(bands=6, size=32, codes=8, **narrow)
    return Autoencoder(config, source.statistics).eval()


def same(a, b) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.slow
def test_every_eye_is_encoded_both_ways_round(source: CubeSource):
    model = network(0, source)
    found = encode_both_ways(model, source, show=False)
    x = source[np.arange(4)]
    assert torch.allclose(found.base[0::2], model.base(x).float())
    assert torch.allclose(found.base[1::2], model.base(x.flip(-1)).float())
    assert found.vectors.shape == (8, 4, *found.vectors.shape[2:]) and not torch.equal(*found.vectors[:2])


def test_a_cache_is_read_under_its_own_key_only(source: CubeSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    encoded, whole = [], encode_both_ways
    monkeypatch.setattr(room, "encode_both_ways", lambda *a, **k: (encoded.append(1), whole(*a, **k))[1])
    path, one, two = tmp_path / "latents.safetensors", network(0, source), network(1, source)
    first = cached_latents(path, "one", one, source, main=True)
    assert same(cached_latents(path, "one", one, source, main=True), first) and len(encoded) == 1
    other = cached_latents(path, "two", two, source, main=True)
    assert len(encoded) == 2 and not same(other, first) and same(other, whole(two, source, show=False))
    for damage in (b"", path.read_bytes()[:-10]):
        path.write_bytes(damage)
        assert same(cached_latents(path, "two", two, source, main=True), other)
    assert len(encoded) == 4
    cached_latents(tmp_path / "other.safetensors", "one", one, source, main=False)
    assert not (tmp_path / "other.safetensors").exists()


@pytest.mark.slow
def test_a_flow_never_learns_from_another_autoencoders_latents(cohort_path: Path, tmp_path: Path):
    """A cache left in the run folder by an earlier training: with another autoencoder it is made anew."""
    small = {
        "codes": 32, "encoder_channels": 8, "decoder_channels": 8, "max_channels": 16, "latent_channels": 4,
        "batch_size": 2, "pool_batches": 2, "cpu": True, "adversarial_weight": 0, "matching_weight": 0,
    }  # fmt: skip
    flow = {"channels": 8, "multipliers": (1,), "attention_heads": 0, "batch_size": 4, "steps": 2, "cpu": True}
    kept = []
    for seed in (0, 1):
        out = str(tmp_path / f"coder{seed}")
        coder = train_autoencoder(AutoencoderTraining(data=str(cohort_path), out=out, seed=seed, steps=2, **small))
        (tmp_path / f"flow{seed}").mkdir()
        if kept:
            (tmp_path / "flow1" / "latents_train.safetensors").write_bytes(kept[0])
        asked = {"data": str(cohort_path), "autoencoder": str(coder), **flow}
        train_diffusion(DiffusionTraining(out=str(tmp_path / f"flow{seed}"), **asked))
        kept.append((tmp_path / f"flow{seed}" / "latents_train.safetensors").read_bytes())
    assert kept[0] != kept[1]
