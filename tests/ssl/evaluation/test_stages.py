"""Reading networks at any depth, and batch norms that have seen cubes."""

import pytest
import timm
import torch
from torch import nn

from synthgen.ssl.evaluation.stages import dense_maps, read_out, settled, stage_maps


def network(name):
    torch.manual_seed(0)
    more = {"dynamic_img_size": True} if "vit" in name else {}
    return timm.create_model(name, in_chans=3, num_classes=0, **more).eval()


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext"])
def test_every_stage_is_read_in_two_ways(name):
    model, x = network(name), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        maps, found = stage_maps(model, x), read_out(model, x)
        dense = dense_maps(model, x)
    assert len(found) == 2 * len(maps) + 2 and 2 <= len(maps) <= 5
    assert torch.allclose(found["stage 2, mean"], maps[1].mean((2, 3)), atol=1e-6)
    mean, std, top = found["stage 1, mean, std, max"].chunk(3, 1)
    assert torch.allclose(top, maps[0].amax((2, 3))) and (std >= 0).all() and torch.equal(mean, found["stage 1, mean"])
    wide = sum(m.shape[1] for m in maps)
    assert found["all stages, mean"].shape == (2, wide) and found["all stages, mean, std, max"].shape == (2, 3 * wide)
    assert dense.shape == (2, wide, 64, 64)


def test_the_last_stage_of_a_resnet_by_its_mean_is_what_timm_gives():
    model, x = network("test_resnet"), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        last = [v for k, v in read_out(model, x).items() if k.startswith("stage") and k.endswith(", mean")][-1]
        assert torch.allclose(last, model(x), atol=1e-5)


def test_blocks_of_a_transformer_are_evenly_spaced_up_to_the_last():
    model, x = network("test_vit"), torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        every = model.forward_intermediates(x, intermediates_only=True)
        few = stage_maps(model, x)
    assert len(few) == min(5, len(every)) and torch.equal(few[-1], every[-1])


def test_a_network_without_stages_gives_none():
    assert stage_maps(nn.Flatten(), torch.zeros(1, 3, 4, 4)) == [] and read_out(nn.Flatten(), torch.zeros(1, 2)) == {}


def test_settled_batch_norms_know_what_they_were_fed():
    model = nn.Sequential(nn.BatchNorm2d(2), nn.Dropout(0.5))
    x = 3 + 2 * torch.randn(64, 2, 8, 8)
    state = torch.get_rng_state()
    found = settled(model, x.split(16))
    assert found[0].running_mean == pytest.approx(x.mean((0, 2, 3)), abs=1e-5)
    assert not found.training and torch.equal(torch.get_rng_state(), state)
    assert model[0].running_mean.eq(0).all(), "the network itself stays as it was"
