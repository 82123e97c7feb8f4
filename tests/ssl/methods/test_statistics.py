"""The task of telling a cube's statistics, alone and beside a method."""

import copy

import numpy as np
import pytest
import torch

from synthgen.config import build
from synthgen.cubes.reflectance import band_statistics
from synthgen.integration.method import describe_spectra, make_method
from synthgen.integration.options import Pretraining
from synthgen.integration.supply.real import RealCubes
from synthgen.ssl.augment.pipeline import Augmenter
from synthgen.ssl.backbone import standardise
from synthgen.ssl.methods.grad_cache import in_parts
from synthgen.ssl.methods.statistics import WithStatistics

METHODS = ["statistics", "simclr", "vicreg", "dino"]


@pytest.fixture(scope="module")
def made(eyes):
    """A method over the eyes, its augmenter, statistics and cubes."""

    def make(method, **more):
        torch.manual_seed(0)
        config = build(Pretraining, {"method": method, "backbone": "test_resnet", **more})
        real = RealCubes(eyes, eyes.patients[:16], torch.device("cpu"))
        statistics = band_statistics(real.draw(np.arange(len(real)))[0])
        augmenter = Augmenter.of_cohort(config.augmentation, eyes, real.index)
        spectra, targets = describe_spectra(config, 0, real, statistics, augmenter)
        model = make_method(config, eyes.bands, eyes.height, False, spectra, targets)

        def views(step=0, count=8):
            cubes = real.draw((np.arange(count) + 8 * step) % len(real))[0]
            crops = model.crops(augmenter)
            return [standardise(v, statistics) for v in augmenter.views(cubes, 0, step, np.arange(count), crops=crops)]

        return model, views

    return make


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_it_learns_to_tell_the_statistics(made, method):
    model, views = made(method, statistics={"weight": 5.0, "components": 8})
    optimizer = torch.optim.AdamW(model.trainable_parameters(), 3e-3)
    losses = []
    for step in range(30):
        loss, measured = model(views(step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        model.after_step(step, 30)
        losses.append(float(measured.get("statistics_loss", loss.detach())))
        assert model.per_sample.shape == (8,)
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS[1:])
def test_the_losses_are_added_and_a_weight_of_nought_is_the_method_alone(made, method):
    model, views = made(method, statistics={"weight": 2.0})
    alone, _ = made(method, statistics={"weight": 0.0})
    assert isinstance(model, WithStatistics) and not isinstance(alone, WithStatistics)
    alone.load_state_dict(model.method.state_dict())
    seen = views()
    loss, measured = model(seen)
    torch.testing.assert_close(loss, alone(seen[:-1])[0] + 2 * measured["statistics_loss"])
    torch.testing.assert_close(model.per_sample.mean(), loss.detach(), atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_every_trained_weight_gets_a_gradient_also_in_parts(made, method):
    model, views = made(method, backbone="test_vit")  # no batch norm in it: parts see what the whole does
    parameters, before = list(model.trainable_parameters()), copy.deepcopy(model.state_dict())
    model(views())[0].backward()
    whole = [p.grad.clone() for p in parameters]
    assert all(torch.isfinite(g).all() for g in whole)
    model.load_state_dict(before)  # the centre of DINO follows what it sees
    model.zero_grad()
    loss, _, back = in_parts(model, views(), 2)
    loss.backward()
    back()
    for parameter, gradient in zip(parameters, whole, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, atol=2e-4, rtol=2e-2)


def test_the_clean_view_is_the_cube_itself_or_its_mirror_image(eyes):
    config = build(Pretraining, {"backbone": "test_resnet"}).augmentation
    augmenter = Augmenter(config, eyes.wavelengths, eyes.height)
    cubes = torch.from_numpy(eyes.cubes(np.arange(16)))
    crop = augmenter.whole._replace(scale=(1.0, 1.0), clean=True)
    view = augmenter.views(cubes, 0, 0, np.arange(16), crops=[crop])[0]
    plain = (view - cubes).abs().amax((1, 2, 3)) < 1e-5
    mirrored = (view - cubes.flip(3)).abs().amax((1, 2, 3)) < 1e-5
    assert bool((plain | mirrored).all()) and bool(plain.any()) and bool(mirrored.any())
