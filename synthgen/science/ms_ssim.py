"""MS-SSIM (Wang, Simoncelli & Bovik 2003) with as many of its five scales as an image has room for.

Of given pairs by piq, and of every pair of a set, where what belongs to one image is computed once.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # section 3.2, finest scale first
WINDOW, SIGMA = 11, 1.5  # the Gaussian window: side and standard deviation, in pixels
_C1, _C2 = 0.01**2, 0.03**2  # of SSIM, for values in [0, 1]
_FLOATS = 2**20  # of products of pairs held at once: 4 MB, which stay in the processor's cache


def scales_that_fit(side: int) -> int:
    """How many of the five scales fit an image: the last must be as wide as the window (3 at 64, 5 from 161)."""
    return sum(side >= (WINDOW - 1) * 2**scale + 1 for scale in range(len(WEIGHTS)))


def ms_ssim(x: Tensor, y: Tensor) -> Tensor:
    """Mean MS-SSIM of pairs of images [n, C, H, W] in [0, 1], the weights of the scales that fit renormalised: a
    scalar with a gradient, by piq. ValueError where not even one scale fits."""
    from piq import multi_scale_ssim  # half a second

    weights = torch.tensor(WEIGHTS[: _some_scales(x)], device=x.device)
    return multi_scale_ssim(x, y, kernel_size=WINDOW, scale_weights=weights / weights.sum(), data_range=1.0)


@torch.no_grad()
def similarity_matrix(images: Tensor) -> NDArray[np.float64]:
    """MS-SSIM of every pair of images [k, C, H, W] in [0, 1]: symmetric [k, k], zero on the diagonal.

    What belongs to one image (its pyramid, local means and variances) is computed once, not once per pair, and the
    window is applied along rows and then columns; equal to piq's to 1e-5. Five scales have the published weights, which
    sum to 1.0001; fewer are renormalised. ValueError where not even one scale fits.
    """
    k, scales = len(images), _some_scales(images)
    weights = torch.tensor(WEIGHTS[:scales], dtype=images.dtype, device=images.device)
    weights = weights / weights.sum() if scales < len(WEIGHTS) else weights
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


def _some_scales(images: Tensor) -> int:
    scales = scales_that_fit(min(images.shape[-2:]))
    if scales == 0:
        raise ValueError(f"images of {tuple(images.shape[-2:])} pixels are smaller than the SSIM window of {WINDOW}")
    return scales


def _window(x: Tensor) -> Tensor:
    """The Gaussian window over the valid part of images [n, C, H, W], as two products with a banded matrix, which is
    several times faster than a convolution of one channel."""
    down, across = (_banded(side, x) for side in x.shape[-2:])
    return down @ (x @ across.T)


def _banded(side: int, like: Tensor) -> Tensor:
    """[side - 10, side]: the taps of the window at each place where it fits."""
    at = torch.arange(WINDOW, dtype=like.dtype, device=like.device) - (WINDOW - 1) / 2
    taps = torch.exp(-at.square() / (2 * SIGMA**2))
    rows = torch.arange(side - WINDOW + 1, device=like.device)[:, None]
    matrix = like.new_zeros(side - WINDOW + 1, side)
    return matrix.scatter_(
        1, rows + torch.arange(WINDOW, device=like.device), (taps / taps.sum()).expand(len(rows), -1)
    )
