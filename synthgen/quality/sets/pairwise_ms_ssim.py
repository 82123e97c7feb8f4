"""Cubes as images of their log-reflectance, in which MS-SSIM compares them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from synthgen.quality.features.handcrafted import filled_logs

_CHUNK = 256


def to_images(cubes: Tensor, image_range: Tensor) -> Tensor:
    """Log-reflectance scaled per band to [0, 1]: in reflectance the dark blue would count for nothing.

    image_range [2, C]: the log-reflectance that becomes 0 and 1.
    """
    low, high = image_range.to(cubes.device)[:, :, None, None]
    return torch.cat([((filled_logs(c).filled - low) / (high - low)).clamp(0, 1) for c in cubes.split(_CHUNK)])


def image_range_of(cubes: Tensor) -> Tensor:
    """[2, C]: the 0.5 % and 99.5 % quantiles of the log-reflectance of each band, over every 16th pixel."""
    logs = torch.cat([filled_logs(c).filled[:, :, ::4, ::4] for c in cubes.split(_CHUNK)])
    values = logs.transpose(0, 1).flatten(1).cpu().numpy()
    low, high = np.quantile(values, [0.005, 0.995], axis=1)
    return torch.from_numpy(np.stack([low, np.maximum(high, low + 1e-3)])).float().to(cubes.device)
