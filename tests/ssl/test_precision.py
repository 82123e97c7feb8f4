"""Mixed precision: the gradient points where that of 32 bits points, whole and in parts; heads and losses have 32."""

from functools import partial

import pytest
import torch

from synthgen.ssl.backbone import make_backbone
from synthgen.ssl.methods.base import Method
from synthgen.ssl.methods.dino import DINO
from synthgen.ssl.methods.grad_cache import in_parts
from tests.ssl.small_methods import METHODS, make, views_of

half = partial(torch.autocast, "cpu", dtype=torch.bfloat16)


def views_for(method: str) -> list[torch.Tensor]:
    torch.manual_seed(1)
    return views_of(method, 6)


def gradient(model: Method) -> torch.Tensor:
    return torch.cat([p.grad.reshape(-1) for p in model.trainable_parameters() if p.grad is not None])


def backward(model: Method, views: list[torch.Tensor], parts: int, autocast) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss and gradient, as the loop computes them."""
    if parts > 1:
        loss, _, back = in_parts(model, views, parts, autocast)
        loss.backward()
        back()
    else:
        with autocast():
            loss, _ = model(views)
        loss.backward()
    return loss.detach(), gradient(model)


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("method", METHODS)
def test_gradients_in_half_precision_point_where_the_exact_ones_do(method, parts):
    views, model = views_for(method), make(method)
    exact_loss, exact = backward(make(method), views, 1, partial(torch.autocast, "cpu", enabled=False))
    loss, found = backward(model, views, parts, half)
    assert loss.dtype == torch.float32 and {p.dtype for p in model.parameters()} == {torch.float32}
    assert (found - exact).norm() > 1e-3 * exact.norm(), "nothing was computed in half precision"
    assert torch.cosine_similarity(found, exact, dim=0) > 0.98
    assert found.norm() == pytest.approx(float(exact.norm()), rel=0.05)
    torch.testing.assert_close(loss, exact_loss, rtol=0.02, atol=0.0)


@pytest.mark.parametrize("method", METHODS)
def test_heads_and_losses_run_in_32_bits(method):
    """What comes out of a convolutional backbone is half precision; what goes into and out of heads and loss is not."""
    model, seen = make(method, "test_resnet"), set()

    def note(module, given, made):
        tensors = [given[0], made] if isinstance(given[0], torch.Tensor) else [*given[0], *given[1], made]
        seen.update(tensor.dtype for tensor in tensors)

    parts = (model.student["head"], model.teacher["head"]) if isinstance(model, DINO) else (model.head,)
    for part in (*parts, model.criterion):
        part.register_forward_hook(note)
    with half():
        assert model.embed(views_for(method)).dtype == torch.bfloat16
        loss, _ = model(views_for(method))
    assert seen == {torch.float32} and loss.dtype == torch.float32


@pytest.mark.parametrize(("name", "size"), [("test_vit", 64), ("convnext_atto", 64), ("vit_tiny_patch16_224", 224)])
def test_sixteen_bands_cut_into_patches_keep_their_features_in_half_precision(name, size):
    """oneDNN's kernel for processors with AMX gives noise for just this layer."""
    torch.manual_seed(0)
    network, cubes = make_backbone(name, 16, size).eval(), torch.randn(4, 16, size, size)
    with torch.no_grad():
        exact = network(cubes)
        with half():
            found = network(cubes)
    mean = exact.mean(0)  # what all cubes share says nothing
    assert torch.cosine_similarity(found - mean, exact - mean).min() > 0.98
