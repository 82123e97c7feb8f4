"""VICReg's loss is the paper's; every method takes every kind of network, at the sizes of its crops."""

import pytest
import torch
from torch import nn

from synthgen.config import build
from synthgen.errors import ConfigError
from synthgen.integration.options import Pretraining
from synthgen.integration.pretrain import make_method
from synthgen.ssl.augment.pipeline import Augmentation, Augmenter
from synthgen.ssl.methods.vicreg import VICReg, VICRegConfig

NM = tuple(range(450, 901, 90))
NETWORKS = ("resnet10t", "vit_tiny_patch16_224", "convnext_atto")


def test_the_loss_is_that_of_the_paper():
    """Bardes et al. 2022, equations 1 to 6, term by term."""
    torch.manual_seed(0)
    z0, z1 = torch.randn(7, 5), 0.5 * torch.randn(7, 5)
    backbone = nn.Identity()
    backbone.num_features = 5
    model = VICReg(backbone, VICRegConfig(invariance=3, variance=2, covariance=0.5))
    model.head = nn.Identity()
    loss, _ = model([z0, z1])
    invariance = ((z0 - z1) ** 2).mean()  # lightly and the authors' code divide by the dimension as well
    variance, covariance = 0.0, 0.0
    for z in (z0, z1):
        for j in range(5):
            variance += torch.relu(1 - (z[:, j].var() + 1e-4).sqrt()) / 5 / 2
            for k in range(5):
                if k != j:
                    c = ((z[:, j] - z[:, j].mean()) * (z[:, k] - z[:, k].mean())).sum() / 6
                    covariance += c**2 / 5
    torch.testing.assert_close(loss, 3 * invariance + 2 * variance + 0.5 * covariance)
    torch.testing.assert_close(model.per_sample.mean(), loss)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "network"), [*(("dino", name) for name in NETWORKS), ("vicreg", NETWORKS[1]), ("simclr", NETWORKS[2])]
)
def test_every_method_trains_every_kind_of_network(method, network):
    """One step on six bands, DINO with local crops of half the size: the gradient reaches the first kernel."""
    torch.manual_seed(0)
    small = {"local_crops": 2, "local_size": 32, "output_dim": 32, "freeze_steps": 0}
    model = make_method(build(Pretraining, {"method": method, "backbone": network, "dino": small}), 6, 64)
    views = Augmenter(Augmentation(), NM, 64).views(
        torch.rand(3, 6, 64, 64), 0, 0, torch.arange(3), crops=model.crops(Augmenter(Augmentation(), NM, 64))
    )
    assert [v.shape[-1] for v in views] == [64, 64] + [32, 32] * (method == "dino")
    loss, _ = model(views)
    loss.backward()
    trained = [p for p in model.trainable_parameters() if p.requires_grad]
    assert loss.isfinite() and all(p.grad is not None and p.grad.isfinite().all() for p in trained)
    assert float(next(p for p in trained if p.ndim == 4).grad.abs().sum()) > 0


def test_a_local_crop_that_the_network_does_not_take_is_refused():
    given = {"method": "dino", "backbone": "vit_tiny_patch16_224", "dino": {"local_size": 24}}
    with pytest.raises(ConfigError, match="does not take cubes of 24 x 24") as caught:
        make_method(build(Pretraining, given), 6, 64)
    assert "\n" not in str(caught.value)
    make_method(build(Pretraining, {**given, "dino": {"local_size": 24, "local_crops": 0}}), 6, 64)


def test_views_that_the_network_does_not_take_are_refused_and_local_crops_follow_their_size():
    given = {"method": "dino", "backbone": "vit_tiny_patch16_224", "augmentation": {"view_size": 72}}
    with pytest.raises(ConfigError, match="does not take cubes of 72 x 72"):
        make_method(build(Pretraining, given), 6, 224)
    config = build(Pretraining, {**given, "augmentation": {"view_size": 112}})
    crops = make_method(config, 6, 224).crops(Augmenter(config.augmentation, NM, 224))
    assert [crop.size for crop in crops] == [112, 112] + [48] * 4


def test_a_transformer_of_patches_takes_the_default_local_crops_at_every_size():
    for size, local in ((64, 32), (224, 96)):
        made = make_method(build(Pretraining, {"method": "dino", "backbone": "vit_tiny_patch16_224"}), 6, size)
        sizes = [crop.size for crop in made.crops(Augmenter(Augmentation(), NM, size))]
        assert sizes == [size, size] + [local] * 4


def test_networks_are_asked_how_many_features_they_give():
    """MobileNetV3 counts 576 channels and gives 1024; what gives a map instead of a vector is refused."""
    loss, _ = make_method(build(Pretraining, {"method": "simclr", "backbone": "mobilenetv3_small_050"}), 6, 32)(
        [torch.rand(2, 6, 32, 32)] * 2
    )
    assert loss.isfinite()
