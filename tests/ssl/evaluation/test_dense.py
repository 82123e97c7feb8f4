"""A linear layer on frozen maps: planted structures are found, thresholds and Dice have their reference values."""

import numpy as np
import pytest
import torch

from synthgen.ssl.evaluation.dense import (
    PIXELS,
    apply_linear,
    best_threshold,
    dice_of,
    fit_linear,
    learned_pixels,
)


def test_dice_at_reference_values():
    truth = torch.zeros(1, 3, 2, 4, dtype=torch.bool)
    truth[0, 0, 0], truth[0, 1, 0, 0] = True, True
    predicted = torch.zeros_like(truth)
    predicted[0, 0, 0, :2] = predicted[0, 0, 1, :1] = True
    dice = dice_of(predicted, truth)[0]
    assert dice[0] == pytest.approx(2 * 2 / (3 + 4)) and dice[1] == 0 and np.isnan(dice[2])


def test_the_threshold_is_the_best_of_all():
    rng = np.random.default_rng(0)
    scores, truth = rng.normal(size=200).round(1), (rng.random(200) < 0.2).astype(float)
    scores += truth
    dice, threshold = best_threshold(scores, truth)
    of = lambda at: 2 * (truth * (scores > at)).sum() / ((scores > at).sum() + truth.sum())
    assert dice == pytest.approx(of(threshold)) and dice == pytest.approx(max(map(of, np.arange(-4, 5, 0.01))))
    assert best_threshold(scores, np.zeros(200)) == (0.0, np.inf)


@pytest.mark.parametrize("share", [0.5, 0.05])
def test_a_planted_structure_is_found_and_noise_is_not(share):
    """Also a rare one, whose least-squares scores never reach one half."""
    rng = np.random.default_rng(1)
    x = rng.normal(5, [3, 1, 0.1, 1], (8000, 4))
    x[:, 3] = 1
    planted = (x[:, 2] - 5) / 0.1 + 0.3 * rng.normal(size=8000)
    planted = planted > np.quantile(planted, 1 - share)
    noise = rng.random(8000) < share
    fit = fit_linear(x[:4000], np.stack([planted, noise], 1)[:4000].astype(float), np.arange(4000) // 1000)
    maps = torch.from_numpy(x[4000:].T.reshape(1, 4, 40, 100)).float()
    predicted = apply_linear(maps, [fit, fit])
    truth = torch.from_numpy(np.stack([planted, noise])[:, 4000:].reshape(1, 2, 40, 100))
    dice = dice_of(predicted[0], truth)[0]
    best = 2 * share / (1 + share)  # Dice of calling everything a structure
    assert dice[0] > 0.65 and dice[1] == pytest.approx(best, abs=0.1) and torch.equal(predicted[0], predicted[1])


def test_learned_pixels_lie_in_the_field_and_are_bounded():
    field = np.zeros((80, 80), bool)
    field[10:70] = True
    at = learned_pixels(field, np.random.default_rng(0))
    assert len(set(at)) == PIXELS and field.ravel()[at].all()
    field[:] = False
    field[0, :7] = True
    assert learned_pixels(field, np.random.default_rng(0)).tolist() == list(range(7))
