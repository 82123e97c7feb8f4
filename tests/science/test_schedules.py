"""Learning-rate schedules: their values at the ends and in the middle, and finite rates however short the run."""

import math

import pytest
import torch

from synthgen.science.schedules import cosine, polynomial, set_learning_rate, warm_cosine, warm_up


def test_warm_up_rises_linearly_and_stays():
    assert [warm_up(s, 4, 2.0) for s in range(6)] == [0.5, 1.0, 1.5, 2.0, 2.0, 2.0]
    assert warm_up(0, 0) == warm_up(0, 0.5) == 1.0  # no warm-up


def test_cosine_is_half_a_period():
    assert [cosine(d) for d in (0.0, 1.0, 2.0)] == pytest.approx([1, 0, 0])
    assert cosine(0.5, 0.2) == pytest.approx(0.6)
    assert cosine(1 / 3) == pytest.approx((1 + math.cos(math.pi / 3)) / 2)


def test_polynomial_of_power_one_is_a_line():
    assert [polynomial(d, 1) for d in (0.0, 0.25, 1.0)] == [1.0, 0.75, 0.0]
    assert polynomial(0.75, 2, 0.5) == pytest.approx(0.5 + 0.5 / 16) and polynomial(1.0, 1.5, 0.01) == 0.01


def test_warm_cosine_joins_at_the_peak_and_ends_at_the_floor():
    rates = [warm_cosine(s, 10, 99, 2.0, 0.01) for s in range(100)]
    assert rates[9] == rates[10] == 2.0 and rates[-1] == pytest.approx(0.02)
    assert rates[10:] == sorted(rates[10:], reverse=True)


@pytest.mark.parametrize(("rising", "last"), [(0, 0), (1, 0), (2, 1), (0, 4)])
def test_short_runs_have_positive_finite_rates(rising, last):
    assert all(0 < warm_cosine(s, rising, last, floor=0.01) <= 1 for s in range(last + 1))


def test_set_learning_rate_heeds_the_rate_of_a_group():
    weights = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = torch.optim.SGD([{"params": weights[:1]}, {"params": weights[1:], "rate": 0.1}], lr=1.0)
    set_learning_rate(optimizer, 0.5)
    assert [g["lr"] for g in optimizer.param_groups] == [0.5, 0.05]
