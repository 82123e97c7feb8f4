"""Cubes as images: every band spans zero to one."""

from __future__ import annotations

import torch

from synthgen.quality.sets.pairwise_ms_ssim import image_range_of, to_images


def test_images_span_zero_to_one_in_every_band() -> None:
    draw = torch.Generator().manual_seed(0)
    cubes = torch.exp(torch.randn(6, 3, 32, 32, generator=draw) - torch.tensor([6.0, 5.0, 4.0])[:, None, None]).clamp(
        0, 1
    )
    images = to_images(cubes, image_range_of(cubes))
    assert images.amin((0, 2, 3)).max() == 0 and images.amax((0, 2, 3)).min() == 1
    assert (images.mean((0, 2, 3)) - 0.5).abs().max() < 0.15
