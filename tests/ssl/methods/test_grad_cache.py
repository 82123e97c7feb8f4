"""A batch in parts has the gradients of the whole one; the schedules are those of their formulas."""

import pytest
import torch

from synthgen.ssl.backbone import make_backbone
from synthgen.ssl.methods.base import Method
from synthgen.ssl.methods.grad_cache import in_parts
from synthgen.ssl.methods.optim import make_optimizer, set_weight_decay, weight_decay_at
from tests.ssl.small_methods import METHODS, make, views_of


def gradients(model: Method) -> list[torch.Tensor]:
    return [p.grad.clone() for p in model.trainable_parameters() if p.grad is not None]


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_parts_have_the_gradients_of_the_whole_batch(method):
    """Five cubes in two parts. A transformer has no batch norm; that of the heads sees the whole batch either way."""
    torch.manual_seed(1)
    views = views_of(method, 5)
    whole, parts = make(method), make(method)
    loss, _ = whole(views)
    loss.backward()
    again, _, back = in_parts(parts, views, 2)
    again.backward()
    back()
    torch.testing.assert_close(again, loss)
    torch.testing.assert_close(parts.per_sample, whole.per_sample)
    for a, b in zip(gradients(parts), gradients(whole), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)
    if method == "dino":
        torch.testing.assert_close(parts.criterion.center, whole.criterion.center)


def test_random_layers_draw_alike_and_batch_norm_counts_once():
    """With dropout the two embeddings of a part agree, so the loss decreases along the gradient that comes back."""
    torch.manual_seed(2)
    model = make("simclr", "test_resnet")
    model.backbone = torch.nn.Sequential(model.backbone, torch.nn.Dropout(0.5))
    seen = []
    embed = model.embed
    model.embed = lambda piece: seen.append(embed(piece)) or seen[-1]
    norm = next(m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d))
    loss, _, back = in_parts(model, [torch.randn(4, 4, 32, 32) for _ in range(2)], 2)
    mean, state = norm.running_mean.clone(), torch.get_rng_state()
    loss.backward()
    back()
    torch.testing.assert_close(seen[2], seen[0])
    torch.testing.assert_close(seen[3], seen[1])
    assert not torch.allclose(seen[0], seen[1]) and torch.equal(norm.running_mean, mean) and norm.momentum == 0.1
    assert torch.equal(state, torch.get_rng_state()), "the stream stands where it stood after the loss"


def test_weight_decay_rises_along_a_cosine_on_matrices_alone():
    values = [weight_decay_at(s, 11, 0.04, 0.4) for s in range(11)]
    assert values[0] == pytest.approx(0.04) and values[5] == pytest.approx(0.22) and values[10] == pytest.approx(0.4)
    assert values == sorted(values) and weight_decay_at(7, 11, 0.04, None) == 0.04
    optimizer = make_optimizer(make_backbone("test_resnet", 4, 32).parameters(), weight_decay=0.0)
    set_weight_decay(optimizer, 0.3)
    assert [g["weight_decay"] for g in optimizer.param_groups] == [0.3, 0.0]
