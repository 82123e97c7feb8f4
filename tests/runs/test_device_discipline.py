"""Nothing mixes devices: the steps of the line on a pretended CUDA device, which needs no card.

Under fake tensors an operation between two devices is refused as on a real card, while nothing is computed. What has
to look at values (k-means, decisions of the gates) is not run here, nor the way back, for which autograd wants a real
context; end-to-end tests with a card are marked `cuda`.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from synthgen.cubes.reflectance import BandStatistics
from synthgen.generator.config import AutoencoderConfig
from synthgen.generator.networks.autoencoder import Autoencoder, base_field
from synthgen.generator.networks.discriminators import Critics
from synthgen.generator.training.losses import coarse_error, feature_matching, spectral_chord
from synthgen.generator.training.structure_spectra import FEATURES, REGIONS, StructureError, packed, unpacked
from synthgen.ssl.augment.pipeline import Augmentation, Augmenter
from synthgen.ssl.backbone import standardise
from tests.ssl.small_methods import METHODS, make

BANDS, SIDE = 6, 32
NM = tuple(np.linspace(450, 900, BANDS))
STATISTICS = BandStatistics((-2.0,) * BANDS, (0.5,) * BANDS)


def card() -> FakeTensorMode:
    """A mode in which a CUDA device is pretended; sizes that depend on values (lightly's masks) become symbols."""
    return FakeTensorMode(shape_env=ShapeEnv(allow_dynamic_output_shape_ops=True, allow_scalar_outputs=True))


def on_card(module: nn.Module) -> nn.Module:
    """The module, made of real tensors outside of the mode, with pretended ones on the card in their place."""
    for part in module.modules():
        for held in (part._parameters, part._buffers):
            for name, value in held.items():
                if value is not None:
                    like = torch.empty(value.shape, dtype=value.dtype, device="cuda")
                    held[name] = nn.Parameter(like, value.requires_grad) if held is part._parameters else like
    return module


def test_the_instrument_sees_two_devices():
    """Positive control: what a card would refuse is refused here."""
    with card():
        x = torch.zeros(3, device="cuda")
        assert (x + 1).device.type == "cuda"
        with pytest.raises((RuntimeError, AssertionError), match=r"(?i)device"):
            x + torch.zeros(3)


def autoencoder() -> Autoencoder:
    small = {"compression": 4, "latent_channels": 4, "codes": 8, "encoder_channels": 8, "decoder_channels": 8}
    config = AutoencoderConfig(bands=BANDS, size=SIDE, max_channels=8, spectral_head=True, **small)
    return Autoencoder(config, STATISTICS)


def test_the_step_of_the_autoencoder():
    model, critics = autoencoder(), Critics(BANDS)
    with card():
        step_of(on_card(model), on_card(critics))


def step_of(model, critics):
    cubes = torch.rand(2, BANDS, SIDE, SIDE, device="cuda")
    x = model.normalise(cubes)
    field = base_field(model.base(x), (SIDE, SIDE))
    residual = model.code_vectors(x - field)
    remade = model.decode_codes(residual, field)
    where = unpacked(packed(torch.ones(2, len(REGIONS), SIDE, SIDE, dtype=torch.bool, device="cuda")), len(REGIONS))
    structures = StructureError(torch.ones(FEATURES, BANDS, BANDS, device="cuda"))
    squared, common = structures(x, remade, where)
    real, synthetic = critics(x), critics(remade)
    loss = (remade - x).abs().mean() + coarse_error(remade - x) + squared + common
    loss = loss + spectral_chord(model.denormalise(x), model.denormalise(remade))
    loss = loss + sum(feature_matching(a.features, b.features) for a, b in zip(real, synthetic, strict=True))
    assert loss.device.type == "cuda"


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_the_step_of_a_method(method):
    model = make(method)
    with card():
        step_of_method(on_card(model), method)


def step_of_method(model, method):
    views = [torch.randn(4, 4, 32, 32, device="cuda") for _ in range(2)]
    views += [torch.randn(4, 4, 16, 16, device="cuda")] * (2 * (method == "dino"))
    loss, measured = model(views)
    assert loss.device.type == "cuda" and all(torch.as_tensor(v).device.type == "cuda" for v in measured.values())
    model.after_step(0, 10)
    assert model.per_sample.device.type == "cuda"


def test_augmentations_and_standardising():
    augmenter = Augmenter(Augmentation(), NM, SIDE)
    with card():
        cubes = torch.rand(4, BANDS, SIDE, SIDE, device="cuda")
        for view in augmenter.views(cubes, 0, 3, np.arange(4)):
            assert view.device.type == "cuda"
            assert standardise(view, STATISTICS).device.type == "cuda"
