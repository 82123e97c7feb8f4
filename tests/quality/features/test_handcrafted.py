"""What the untrained features see, and what they must not see."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from synthgen.quality.features.handcrafted import block_sizes, filled_logs, set_features


@pytest.fixture(scope="module")
def cubes() -> torch.Tensor:
    draw = torch.Generator().manual_seed(0)
    coarse = torch.randn(6, 5, 8, 8, generator=draw)
    return (0.1 * torch.exp(0.3 * torch.nn.functional.interpolate(coarse, size=32, mode="bilinear"))).clamp(0, 1)


def test_size_of_the_features(cubes: torch.Tensor) -> None:
    assert set_features(cubes).shape == (6, sum(block_sizes(5)))


def test_pixels_outside_the_field_of_view_are_neutral(cubes: torch.Tensor) -> None:
    dark = cubes.clone()
    dark[:, :, :, :6] = 0
    filled = filled_logs(dark)
    assert not filled.inside[:, :, :6].any() and filled.inside[:, :, 6:].all()
    assert torch.allclose(filled.mean, filled_logs(cubes[..., 6:]).mean, atol=1e-5)
    assert torch.allclose(filled.filled[..., 0], filled.mean[..., None].expand(-1, -1, 32))
    assert torch.isfinite(set_features(torch.zeros_like(cubes))).all()


def test_gain_moves_levels_only(cubes: torch.Tensor) -> None:
    before, after = set_features(cubes), set_features(cubes * 0.8)
    levels = block_sizes(5)[0]
    assert torch.allclose(after[:, :levels] - before[:, :levels], torch.tensor(np.log(0.8)).float(), atol=0.01)
    assert torch.allclose(after[:, levels:], before[:, levels:], atol=0.02)
