"""A backbone is read at every stage, and its file remains that of the plain timm network."""

import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import nn

from synthgen.cubes.reflectance import BandStatistics
from synthgen.errors import ConfigError
from synthgen.ssl.backbone import load_backbone, make_backbone, save_backbone, standardise
from synthgen.ssl.readout import MOST_STAGES, ReadOut, evenly, pooled

NM = (450.0, 500.0, 550.0, 600.0)
STATISTICS = BandStatistics((-3.0, -2.5, -2.0, -1.5), (0.5, 0.6, 0.7, 0.8))


def test_pooled_maps_are_mean_deviation_and_maximum():
    maps = torch.randn(3, 5, 6, 7)
    mean, std, largest = pooled(maps)
    torch.testing.assert_close(mean, maps.mean((2, 3)))
    torch.testing.assert_close(std, maps.std((2, 3), correction=0), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(largest, maps.amax((2, 3)))
    constant = torch.ones(1, 1, 4, 4, requires_grad=True)
    pooled(constant)[1].sum().backward()
    assert torch.isfinite(constant.grad).all(), "a constant map has a gradient that is a number"


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext"])
def test_the_network_s_own_features_stand_last_and_every_weight_learns(name):
    torch.manual_seed(0)
    model = make_backbone(name, 4, 32, "stages")
    x = torch.randn(4, 4, 32, 32)
    model(x).square().sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []
    model.eval()
    features, own = model(x), model.network(x)
    assert features.shape == (4, model.num_features) and model.num_features > own.shape[1]
    torch.testing.assert_close(features[:, -own.shape[1] :], own)


def test_at_most_five_stages_of_a_deep_network_the_last_among_them():
    stages = [torch.full((1,), float(i)) for i in range(12)]
    assert [int(s) for s in evenly(stages)] == [1, 4, 6, 9, 11] and len(evenly(stages)) == MOST_STAGES
    assert evenly(stages[:3]) == stages[:3]


@pytest.mark.parametrize("reading", ["stages", "last"])
def test_the_file_is_that_of_timm_and_remembers_how_it_is_read(tmp_path, reading):
    model = make_backbone("test_resnet", 4, 32, reading).eval()
    path = save_backbone(model, tmp_path, "test_resnet", NM, 32, STATISTICS)
    plain = timm.create_model("test_resnet", in_chans=4, num_classes=0).eval()
    plain.load_state_dict(load_file(path), strict=True)
    back, cube = load_backbone(tmp_path), torch.rand(2, 4, 32, 32)
    assert back.reading == reading
    torch.testing.assert_close(back(cube), model(standardise(cube, STATISTICS)))
    torch.testing.assert_close(back.network(cube), plain(cube))


def test_a_network_without_stages_is_refused_in_words():
    with pytest.raises(ConfigError, match=r"no stages to read.*--reading last"):
        ReadOut(nn.Linear(3, 2), 4, 32)
