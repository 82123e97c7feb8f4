"""Geometry: one shared bilinear warp for crop, flip and rotation; per-band sub-pixel shifts; blur.

Every function treats each cube on its own, so a cube's result does not depend on what else is in the batch.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def crop_matrix(
    area: np.ndarray, aspect: np.ndarray, across: np.ndarray, down: np.ndarray, flip: np.ndarray, angle: np.ndarray
) -> np.ndarray:
    """Affine map from output to input coordinates (both -1..1), float64 [B, 2, 3].

    Args, each [B]:
        area: fraction of the image's area, (0, 1]. aspect: width over height of the crop, in units of the image's.
        across, down: where in the room left to it the crop lies, 0..1. flip: bool. angle: radians, about its centre.
    """
    width, height = np.minimum(np.sqrt(area * aspect), 1), np.minimum(np.sqrt(area / aspect), 1)
    x, y = (1 - width) * (2 * across - 1), (1 - height) * (2 * down - 1)
    width = np.where(flip, -width, width)
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([np.stack([width * cos, -height * sin, x], 1), np.stack([width * sin, height * cos, y], 1)], 1)


def warp(cube: Tensor, matrix: Tensor, size: int, margin: int) -> Tensor:
    """Bilinear resampling of [B, C, H, W] to [B, C, size + margin, size + margin], the same for every band.

    The margin continues the output grid to the right and below, for `misregister` to use up. Outside the image the
    mirror image is taken: a black border would tell the network the angle. Squares are assumed (H = W).
    """
    at = (2 * torch.arange(size + margin, device=cube.device, dtype=torch.float32) + 1) / size - 1
    x = matrix[:, :, 0, None, None] * at.view(1, 1, 1, -1)
    y = matrix[:, :, 1, None, None] * at.view(1, 1, -1, 1)
    grid = (x + y + matrix[:, :, 2, None, None]).permute(0, 2, 3, 1)
    return F.grid_sample(cube, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def misregister(cube: Tensor, shift: Tensor) -> Tensor:
    """Shift each band by a fraction of a pixel: two taps per axis; [B, C, H+1, W+1] -> [B, C, H, W].

    shift: [B, C, 2], (down, across) in pixels, 0..1. What matters is the shift between two bands: a common shift is
    only another crop.
    """
    down, across = shift[..., 0, None, None], shift[..., 1, None, None]
    cube = torch.lerp(cube[..., :-1], cube[..., 1:], across)
    return torch.lerp(cube[..., :-1, :], cube[..., 1:, :], down)


def blur(cube: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur of [B, C, H, W] with five taps per axis; sigma [B] in pixels, up to about 1 (the rest is cut)."""
    b, c, h, w = cube.shape
    taps = torch.exp(-0.5 * (torch.arange(-2, 3, device=cube.device) / sigma[:, None]) ** 2)
    kernel = (taps / taps.sum(1, keepdim=True)).repeat_interleave(c, 0)[:, None, None]  # one group for each band
    flat = F.pad(cube.reshape(1, b * c, h, w), (2, 2, 2, 2), mode="replicate")
    flat = F.conv2d(F.conv2d(flat, kernel, groups=b * c), kernel.transpose(2, 3), groups=b * c)
    return flat.view(b, c, h, w)


def vignette(matrix: Tensor, size: int) -> Tensor:
    """Smooth illumination field [B, 1, size, size], at most 1; shared by the bands.

    matrix: [B, 4]: depth (0..1, the loss at the farthest corner that is possible), centre across, centre down
    (-0.5..0.5) and gain (a factor on the whole).
    """
    at = torch.linspace(-1, 1, size, device=matrix.device)
    depth, x, y, gain = matrix[:, :, None].unbind(1)
    farthest = 2 * 1.5**2  # squared distance from a centre at (-0.5, -0.5) to the corner (1, 1)
    across, down = (at - x) ** 2 / farthest, (at - y) ** 2 / farthest
    return (gain[..., None] * (1 - depth[..., None] * (across[:, None, :] + down[:, :, None])))[:, None]
