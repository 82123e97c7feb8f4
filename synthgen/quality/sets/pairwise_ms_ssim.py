"""MS-SSIM of every pair of some cubes, as images of their log-reflectance."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from synthgen.quality.features.handcrafted import filled_logs
from synthgen.quality.sets.metrics import MS_SSIM_WEIGHTS, WINDOW, ms_ssim_scales

_C1, _C2 = 0.01**2, 0.03**2  # of SSIM, for values in [0, 1]
_FLOATS = 2**20  # of products of pairs held at once: 4 MB, which stay in the processor's cache
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


@torch.no_grad()
def similarity_matrix(images: Tensor) -> NDArray[np.float64]:
    """MS-SSIM of every pair of images [k, C, H, W] in [0, 1]: symmetric [k, k], zero on the diagonal.

    The metric is `metrics.ms_ssim` (Wang, Simoncelli & Bovik 2003), with the scales that fit. What belongs to one image
    (its pyramid, local means and variances) is computed once, not once per pair, and the window is applied along rows
    and then columns; equal to piq's to 1e-5.
    """
    k, scales = len(images), ms_ssim_scales(min(images.shape[-2:]))
    if scales == 0:
        raise ValueError(f"images of {tuple(images.shape[-2:])} pixels are smaller than the SSIM window")
    weights = torch.tensor(MS_SSIM_WEIGHTS[:scales], dtype=images.dtype, device=images.device)
    weights = weights / weights.sum() if scales < len(MS_SSIM_WEIGHTS) else weights
    pairs = torch.triu_indices(k, k, 1, device=images.device)
    product = images.new_ones(pairs.shape[1], images.shape[1])
    for scale in range(scales):
        if scale:
            odd = max(images.shape[2] % 2, images.shape[3] % 2)
            images = F.avg_pool2d(F.pad(images, (odd, 0, odd, 0), mode="replicate"), 2)
        mean = _window(images)
        variance = _window(images.square()) - mean.square()
        step = max(1, _FLOATS // images[0].numel())
        for start in range(0, pairs.shape[1], step):
            i, j = pairs[:, start : start + step]
            contrast = 2 * (_window(images[i] * images[j]) - mean[i] * mean[j]) + _C2
            contrast /= variance[i] + variance[j] + _C2
            if scale == scales - 1:
                contrast *= (2 * mean[i] * mean[j] + _C1) / (mean[i].square() + mean[j].square() + _C1)
            product[start : start + step] *= contrast.mean((2, 3)).relu() ** weights[scale]
    matrix = np.zeros((k, k))
    matrix[pairs[0].cpu().numpy(), pairs[1].cpu().numpy()] = product.mean(1).double().cpu().numpy()
    return matrix + matrix.T


def _window(x: Tensor) -> Tensor:
    """Gaussian window of 11 pixels and deviation 1.5 over the valid part of images [n, C, H, W].

    As two products with a banded matrix, which is several times faster than a convolution of one channel.
    """
    down, across = (_banded(side, x) for side in x.shape[-2:])
    return down @ (x @ across.T)


def _banded(side: int, like: Tensor) -> Tensor:
    """[side - 10, side]: the taps of the window at each place where it fits."""
    at = torch.arange(WINDOW, dtype=like.dtype, device=like.device) - (WINDOW - 1) / 2
    taps = torch.exp(-at.square() / (2 * 1.5**2))
    rows = torch.arange(side - WINDOW + 1, device=like.device)[:, None]
    matrix = like.new_zeros(side - WINDOW + 1, side)
    return matrix.scatter_(
        1, rows + torch.arange(WINDOW, device=like.device), (taps / taps.sum()).expand(len(rows), -1)
    )
