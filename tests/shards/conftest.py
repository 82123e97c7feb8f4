"""A tiny untrained generator: shards do not care how good the cubes are."""

from __future__ import annotations

import pytest
import torch

from synthgen.contracts import Provenance
from synthgen.cubes.reflectance import BandStatistics
from synthgen.generator.config import AutoencoderConfig, FlowConfig
from synthgen.generator.flow import Flow
from synthgen.generator.generator import Generator
from synthgen.generator.networks.autoencoder import Autoencoder

BANDS = 4


def make_generator(seed: int) -> Generator:
    torch.manual_seed(seed)
    about = AutoencoderConfig(
        bands=BANDS, size=16, codes=32, base_grid=2, encoder_channels=8, decoder_channels=8, max_channels=8
    )
    autoencoder = Autoencoder(about, BandStatistics((-3.0,) * BANDS, (1.0,) * BANDS))
    torch.nn.init.normal_(autoencoder.quantiser.codebook)
    flow = Flow(
        FlowConfig(
            channels=8,
            multipliers=(1,),
            attention_heads=0,
            latent_channels=about.latent_channels,
            latent_size=about.latent_size,
            bands=BANDS,
            base_grid=2,
        )
    )
    provenance = Provenance.of("f" * 32, ["p1"])
    return Generator(autoencoder, flow, (450, 550, 650, 750), provenance, chunk=4)


@pytest.fixture(scope="session")
def generator() -> Generator:
    return make_generator(0)


@pytest.fixture(scope="session")
def another() -> Generator:
    return make_generator(1)
