"""The few layers that encoder, decoder and U-Net are made of. All keep a per-pixel receptive field for norms."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PixelNorm(nn.Module):
    """x / rms over the channels of each pixel, times a learned gain (Karras et al. 2018; Zhang & Sennrich 2019).

    Depends on one pixel only, so a tile is normalised as the whole image is. [N, C, H, W] -> [N, C, H, W].
    """

    def __init__(self, channels: int):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        last = x.permute(0, 2, 3, 1)  # a view where memory is channels-last
        return F.rms_norm(last, (last.shape[-1],), self.gain, eps=1e-6).permute(0, 3, 1, 2)


class ResBlock(nn.Module):
    """x + conv(silu(conv(norm(x)))), one norm per block: at full size it costs as much as a convolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = PixelNorm(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        assert self.conv2.bias is not None
        with torch.no_grad():
            self.conv2.weight *= 0.1  # near the identity at the start
            self.conv2.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.silu(self.conv1(self.norm(x))))


class Down(nn.Module):
    """Space-to-depth by 2, then a 1x1 convolution: loses nothing before the convolution."""

    def __init__(self, channels_in: int, channels_out: int):
        super().__init__()
        self.conv = nn.Conv2d(4 * channels_in, channels_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pixel_unshuffle(x, 2))


class Up(nn.Module):
    """A 1x1 convolution, then depth-to-space by 2 (Shi et al. 2016)."""

    def __init__(self, channels_in: int, channels_out: int):
        super().__init__()
        self.conv = nn.Conv2d(channels_in, 4 * channels_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.conv(x), 2)
