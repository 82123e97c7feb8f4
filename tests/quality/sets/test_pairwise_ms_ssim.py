"""Pairwise MS-SSIM equals piq's, pair by pair."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from synthgen.quality.sets.metrics import ms_ssim
from synthgen.quality.sets.pairwise_ms_ssim import image_range_of, similarity_matrix, to_images


@pytest.mark.parametrize(("size", "scales"), [(24, 2), (64, 3), (101, 4), (224, 5)])
def test_equal_to_piq(size: int, scales: int) -> None:
    draw = torch.Generator().manual_seed(size)
    smooth = torch.nn.functional.interpolate(torch.rand(4, 3, 9, 9, generator=draw), size=size, mode="bilinear")
    images = (0.8 * smooth + 0.2 * torch.rand(4, 3, size, size, generator=draw)).clamp(0, 1)
    i, j = np.triu_indices(4, 1)
    assert np.allclose(similarity_matrix(images)[i, j], ms_ssim(images[i], images[j], scales).numpy(), atol=1e-4)


def test_of_an_image_with_itself_it_is_one() -> None:
    images = torch.rand(1, 2, 64, 64, generator=torch.Generator().manual_seed(0)).repeat(3, 1, 1, 1)
    assert np.allclose(similarity_matrix(images) + np.eye(3), 1, atol=1e-5)


def test_images_span_zero_to_one_in_every_band() -> None:
    draw = torch.Generator().manual_seed(0)
    cubes = torch.exp(torch.randn(6, 3, 32, 32, generator=draw) - torch.tensor([6.0, 5.0, 4.0])[:, None, None]).clamp(
        0, 1
    )
    images = to_images(cubes, image_range_of(cubes))
    assert images.amin((0, 2, 3)).max() == 0 and images.amax((0, 2, 3)).min() == 1
    assert (images.mean((0, 2, 3)) - 0.5).abs().max() < 0.15


def test_too_small_an_image_is_refused() -> None:
    with pytest.raises(ValueError, match="smaller than the SSIM window"):
        similarity_matrix(torch.rand(2, 1, 8, 8))
