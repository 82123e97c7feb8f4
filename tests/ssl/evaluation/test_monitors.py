"""Collapse monitors reach their reference values and raise the alarm on a planted collapse."""

import numpy as np
import pytest
import torch

from synthgen.ssl.evaluation.monitors import (
    collapse_warning,
    feature_std,
    online_knn,
    rankme,
    rankme_ceiling,
    source_probe,
    targets_r2,
)
from synthgen.ssl.evaluation.targets import Target


def gaussian(n: int, d: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d))


@pytest.mark.parametrize(("n", "expected"), [(64, 62.6), (128, 122), (256, 229), (512, 336)])
def test_rankme_of_isotropic_features(n, expected):
    assert rankme(gaussian(n, 384)) == pytest.approx(expected, rel=0.01)
    assert rankme_ceiling(n, 384) == pytest.approx(expected, rel=0.01)


def test_rankme_counts_dimensions_whatever_the_scale():
    x = gaussian(4000, 5) @ np.eye(5, 64)
    assert rankme(x) == pytest.approx(5, rel=0.02) and rankme(1e-3 * x) == pytest.approx(rankme(x), rel=1e-6)


def test_feature_std_is_one_on_the_sphere_and_zero_at_a_point():
    assert feature_std(torch.from_numpy(gaussian(2000, 128))).item() == pytest.approx(1, abs=0.02)
    assert feature_std(torch.ones(10, 128)).item() == pytest.approx(0, abs=1e-6)


def test_collapse_raises_the_alarm_and_health_does_not():
    x = gaussian(200, 64)
    assert collapse_warning(x) is None and collapse_warning(np.maximum(x, 0)) is None
    assert "to a point" in str(collapse_warning(np.ones((200, 64)) + 1e-4 * x))
    assert "dimensions" in str(collapse_warning(x[:, :1] * gaussian(1, 64) + 1e-6 * x))


def test_source_probe_tells_a_shortcut_from_none():
    x, synthetic = gaussian(120, 16), np.arange(120) % 2
    assert 0.3 < source_probe(x, synthetic) < 0.7
    assert source_probe(x + 3 * synthetic[:, None] * np.eye(1, 16), synthetic) > 0.95


def test_online_knn_finds_a_difference_between_patients():
    who = np.repeat(np.arange(40), 2)
    x = gaussian(80, 8)
    x[:, 0] += 4 * (who % 2)
    assert online_knn(x, who % 2, who) > 0.9
    assert 0.2 < online_knn(gaussian(80, 8, seed=1), who % 2, who) < 0.8


def test_what_is_predicted_of_numbers_is_their_mean_r2_and_noise_counts_nothing():
    """R2 of y from y + e is 1/2, of noise 0: together 1/4, whichever of the two ways of reading holds the number."""
    rng = np.random.default_rng(0)
    y, every = rng.normal(size=(1000, 2)), np.arange(1000)
    targets = [Target("numbers", every, y[:, :1]), Target("noise", every, y[:, 1:])]
    read = {"one": gaussian(1000, 3), "other": y[:, :1] + rng.normal(size=(1000, 1))}
    assert targets_r2(read, targets) == pytest.approx(0.25, abs=0.03)
    assert targets_r2({"one": gaussian(1000, 3)}, targets) < 0.01
