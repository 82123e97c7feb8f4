"""SimCLR, VICReg and DINO: the loss is the paper's, resume equals uninterrupted."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from synthgen.errors import ConfigError
from synthgen.runs.state import load_state, save_state
from synthgen.ssl.augment.pipeline import Augmentation, Augmenter
from synthgen.ssl.methods.base import Method
from synthgen.ssl.methods.dino import DINO, DINOConfig, teacher_temperature
from synthgen.ssl.methods.optim import make_optimizer
from synthgen.ssl.methods.simclr import SimCLR, SimCLRConfig
from tests.ssl.small_methods import METHODS
from tests.ssl.small_methods import make as small

NM = tuple(range(450, 901, 30))
DINO_SMALL = {"local_crops": 2, "local_size": 16, "warmup_steps": 4, "freeze_steps": 2}


def make(method: str, seed: int = 0) -> Method:
    return small(method, "resnet10t", 16, seed, **(DINO_SMALL if method == "dino" else {}))


def train(model: Method, optimizer: torch.optim.Optimizer, steps: range, total: int = 6) -> list[float]:
    augmenter = Augmenter(Augmentation(), NM, 32)
    cubes = torch.rand(6, 16, 32, 32, generator=torch.Generator().manual_seed(1)) * 0.3
    losses = []
    for step in steps:
        views = augmenter.views(cubes, 0, step, torch.arange(6), crops=model.crops(augmenter))
        loss, measured = model([v * 5 for v in views])
        assert all(torch.as_tensor(v).numel() == 1 for v in measured.values())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        model.after_step(step, total)
        losses.append(loss.item())
    return losses


def test_nt_xent_equals_its_definition():
    """Chen et al. 2020, equation 1, written out pair by pair."""
    torch.manual_seed(0)
    z0, z1 = torch.randn(5, 8), torch.randn(5, 8)
    model = SimCLR(Linear(8), SimCLRConfig(temperature=0.3))
    model.head = nn.Identity()
    model.backbone = nn.Identity()
    loss, _ = model([z0, z1])
    z = F.normalize(torch.cat([z0, z1]), dim=1)
    terms = []
    for i in range(10):
        partner, similarity = (i + 5) % 10, z[i] @ z.T / 0.3
        others = torch.tensor([k for k in range(10) if k != i])
        terms.append(-(similarity[partner] - similarity[others].logsumexp(0)))
    terms = torch.stack(terms)
    torch.testing.assert_close(loss, terms.mean())
    torch.testing.assert_close(model.per_sample, (terms[:5] + terms[5:]) / 2)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_resume_equals_uninterrupted(method, tmp_path):
    straight = make(method)
    expected = train(straight, make_optimizer(straight.trainable_parameters()), range(6))

    model = make(method)
    optimizer = make_optimizer(model.trainable_parameters())
    begun = train(model, optimizer, range(3))
    save_state(tmp_path / "state", {"model": model.state_dict(), "optimizer": optimizer.state_dict()})
    again = make(method, seed=99)
    optimizer = make_optimizer(again.trainable_parameters())
    state = load_state(tmp_path / "state")
    again.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    assert begun + train(again, optimizer, range(3, 6)) == expected
    for (name, a), b in zip(straight.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(torch.as_tensor(a), torch.as_tensor(b)), name


@pytest.mark.parametrize("method", METHODS)
def test_loss_per_sample_averages_to_the_loss(method):
    model = make(method)
    views = [torch.rand(4, 16, 32, 32) for _ in range(2)] + [torch.rand(4, 16, 16, 16)] * (2 * (method == "dino"))
    loss, _ = model(views)
    assert model.per_sample.shape == (4,) and not model.per_sample.requires_grad
    torch.testing.assert_close(model.per_sample.mean(), loss.detach())


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_of_one_is_refused(method):
    with pytest.raises(ConfigError, match="at least two cubes"):
        make(method)([torch.rand(1, 16, 32, 32)] * 2)


@pytest.mark.slow
def test_simclr_pulls_views_together():
    """Twenty steps on one batch bring the loss well below that of chance, log(2B - 1)."""
    model = make("simclr")
    optimizer = make_optimizer(model.trainable_parameters(), 3e-3)
    views = [torch.rand(8, 16, 32, 32)] * 2
    for _ in range(20):
        loss, _ = model(views)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss.item() < 0.3 * torch.tensor(15.0).log().item()


@pytest.mark.slow
def test_dino_teacher_follows_without_gradient_and_prototypes_start_frozen():
    model, freeze = make("dino"), DINO_SMALL["freeze_steps"]
    prototypes = model.student["head"].last_layer.weight_v
    start, teacher = prototypes.detach().clone(), [p.clone() for p in model.teacher.parameters()]
    optimizer = make_optimizer(model.trainable_parameters(), weight_decay=0.0)
    train(model, optimizer, range(freeze))
    assert torch.equal(prototypes, start)
    train(model, optimizer, range(freeze, freeze + 1))
    assert not torch.equal(prototypes, start)
    assert all(p.grad is None and not p.requires_grad for p in model.teacher.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(teacher, model.teacher.parameters(), strict=True))
    assert model.criterion.center.abs().sum() > 0 and "criterion.center" in model.state_dict()
    assert model.backbone is model.teacher["backbone"]


def test_dino_momentum_is_that_of_the_formula():
    model = make("dino")
    for p in model.student.parameters():
        p.data += 1.0
    before = [p.clone() for p in model.teacher.parameters()]
    model.after_step(0, 100)
    m = model.config.momentum
    for old, new, student in zip(before, model.teacher.parameters(), model.student.parameters(), strict=True):
        torch.testing.assert_close(new, m * old + (1 - m) * student)
    held = [p.clone() for p in model.teacher.parameters()]
    model.after_step(99, 100)  # the cosine ends at 1
    assert all(torch.equal(a, b) for a, b in zip(held, model.teacher.parameters(), strict=True))


@pytest.mark.parametrize("size", [64, 224, 672])
def test_dino_local_crops_grow_with_the_cubes(size):
    """The paper's 96 beside 224: no crop is shrunk more than 1.7-fold, and patches of 16 pixels divide it."""
    config, augmenter = DINOConfig(), Augmenter(Augmentation(), NM, size)
    crops = DINO(Linear(8), config).crops(augmenter)
    local = config.local_at(size)
    assert [crop.size for crop in crops] == [size] * 2 + [local] * config.local_crops and local % 16 == 0
    views = augmenter.views(torch.rand(1, 16, size, size), 0, 0, torch.arange(1), crops=crops[1:3])
    assert [view.shape[-1] for view in views] == [size, local]
    assert (config.local_scale_max * 4 / 3) ** 0.5 * size / local < 1.75
    assert config.local_at(224) == 96 and config.local_at(64) == 32
    assert DINOConfig(local_size=24).local_at(size) == 24


def test_teacher_temperature_rises_and_stays():
    config = DINOConfig(warmup_steps=4)
    values = [teacher_temperature(s, config) for s in range(8)]
    assert values[0] == config.warmup_teacher_temperature and values[4:] == [config.teacher_temperature] * 4
    assert values == sorted(values)


class Linear(nn.Linear):
    """A backbone without batch norm."""

    def __init__(self, dim: int):
        super().__init__(dim, dim, bias=False)
        self.num_features = dim


def test_a_method_without_an_objective_cannot_be_made():
    class Half(Method):
        def crops(self, augmenter):
            return []

        def embed(self, views):
            return views[0]

    with pytest.raises(TypeError, match="objective"):
        Half()
