"""The learning-rate schedule is a pure function; vectors and token tables are spared from weight decay."""

import pytest

from synthgen.science.schedules import set_learning_rate
from synthgen.ssl.backbone import make_backbone
from synthgen.ssl.methods.optim import learning_rate, make_optimizer


def test_warm_up_then_cosine():
    rates = [learning_rate(s, 100, 2.0, warmup=0.1, final=0.01) for s in range(100)]
    assert rates[0] == pytest.approx(0.2) and rates[9] == rates[10] == pytest.approx(2.0)
    assert rates[10:] == sorted(rates[10:], reverse=True) and len(set(rates[10:])) == 90
    assert rates[-1] == pytest.approx(0.02)
    assert rates[55] == pytest.approx((2.0 + 0.02) / 2, rel=0.02)


@pytest.mark.parametrize(("total", "warmup"), [(1, 0.0), (1, 0.9), (2, 1.0), (5, 0.0)])
def test_short_runs_have_positive_finite_rates(total, warmup):
    assert all(0 < learning_rate(s, total, 1.0, warmup) <= 1 for s in range(total))


def test_weight_decay_spares_vectors_and_token_tables():
    model = make_backbone("vit_tiny_patch16_224", 4, 32)
    decayed, spared = make_optimizer(model.parameters(), 1e-3, 0.1).param_groups
    names = {id(p): n for n, p in model.named_parameters()}
    spared_names = {names[id(p)] for p in spared["params"]}
    assert decayed["weight_decay"] == 0.1 and spared["weight_decay"] == 0
    assert {"pos_embed", "cls_token", "norm.weight", "blocks.0.attn.qkv.bias"} <= spared_names
    assert all(names[id(p)].endswith("weight") for p in decayed["params"])
    assert len(decayed["params"]) + len(spared["params"]) == len(list(model.parameters()))


def test_the_learning_rate_reaches_every_group():
    optimizer = make_optimizer(make_backbone("resnet10t", 4, 32).parameters())
    set_learning_rate(optimizer, 0.5)
    assert {g["lr"] for g in optimizer.param_groups} == {0.5}
