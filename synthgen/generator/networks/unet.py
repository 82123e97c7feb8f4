"""The velocity network: a U-Net that takes any size (14-7-4 as well as 16-8-4), attention at the lowest level only."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from synthgen.generator.networks.layers import PixelNorm


class TimeEmbedding(nn.Module):
    """Time t [N] in [0, 1] -> [N, channels]: Fourier features, then two linear layers."""

    turns: Tensor

    def __init__(self, channels: int, frequencies: int = 32):
        super().__init__()
        # From a quarter turn to 64 turns over [0, 1]: finer than any step a sampler takes.
        self.register_buffer("turns", torch.logspace(-2, 6, frequencies, base=2.0), persistent=False)
        self.first, self.second = nn.Linear(2 * frequencies, channels), nn.Linear(channels, channels)

    def forward(self, t: Tensor) -> Tensor:
        angle = 2 * math.pi * t[:, None].float() * self.turns
        return F.silu(self.second(F.silu(self.first(torch.cat([angle.cos(), angle.sin()], 1)))))


class TimedBlock(nn.Module):
    """Residual block whose norm is scaled and shifted by the time (Perez et al. 2018; Peebles & Xie 2023)."""

    def __init__(self, channels_in: int, channels_out: int, time_channels: int, dropout: float):
        super().__init__()
        self.norm = PixelNorm(channels_in)
        self.film = nn.Linear(time_channels, 2 * channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        self.skip = nn.Conv2d(channels_in, channels_out, 1) if channels_in != channels_out else nn.Identity()
        self.dropout = nn.Dropout2d(dropout)
        _zero(self.film, self.conv2)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        scale, shift = self.film(time)[:, :, None, None].chunk(2, 1)
        y = F.silu(self.conv1(F.silu(self.norm(x) * (1 + scale) + shift)))
        return self.skip(x) + self.conv2(self.dropout(y))


class Attention(nn.Module):
    """Self-attention over all positions, added to its input."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm = PixelNorm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)
        _zero(self.out)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        qkv = self.qkv(self.norm(x)).reshape(n, 3, self.heads, c // self.heads, h * w).transpose(3, 4)
        mixed = F.scaled_dot_product_attention(*qkv.unbind(1))
        return x + self.out(mixed.transpose(2, 3).reshape(n, c, h, w))


class UNet(nn.Module):
    """x [N, channels_in, h, w], t [N] -> [N, channels_in, h, w].

    Two channels of row and column (-1 to 1) join the input: disc and macula have their places.

    Args:
        channels_in: of x. channels: of the first level. multipliers: of each level.
        blocks: residual blocks per level, down and up. heads: of the lowest level's attention; 0: none.
    """

    def __init__(
        self, channels_in: int, channels: int, multipliers: tuple[int, ...], blocks: int, heads: int, dropout: float
    ):
        super().__init__()
        widths, time = [channels * m for m in multipliers], 4 * channels
        self.time = TimeEmbedding(time)
        self.stem = nn.Conv2d(channels_in + 2, channels, 3, padding=1)
        self.down, self.shrink = nn.ModuleList(), nn.ModuleList()
        before, skips = channels, []
        for level, width in enumerate(widths):
            if level:
                self.shrink.append(nn.Conv2d(before, before, 3, stride=2, padding=1))  # an odd side rounds up
            row = nn.ModuleList()
            for _ in range(blocks):
                row.append(TimedBlock(before, width, time, dropout))
                skips.append(width)
                before = width
            self.down.append(row)
        self.attention = Attention(before, heads) if heads else nn.Identity()
        self.middle = TimedBlock(before, before, time, dropout)
        self.up, self.grow = nn.ModuleList(), nn.ModuleList()
        for level, width in reversed(list(enumerate(widths))):
            row = nn.ModuleList()
            for _ in range(blocks):
                row.append(TimedBlock(before + skips.pop(), width, time, dropout))
                before = width
            self.up.append(row)
            if level:
                self.grow.append(nn.Conv2d(before, widths[level - 1], 1))
                before = widths[level - 1]
        self.norm = PixelNorm(before)
        self.out = nn.Conv2d(before, channels_in, 3, padding=1)
        _zero(self.out)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        time = self.time(t)
        x = self.stem(torch.cat([x, _coordinates(x)], 1))
        skips = []
        for level, blocks in enumerate(self.down):
            if level:
                x = self.shrink[level - 1](x)
            for block in blocks:  # type: ignore[attr-defined]
                x = block(x, time)
                skips.append(x)
        x = self.middle(self.attention(x), time)
        for level, blocks in enumerate(self.up):
            if level:  # to the size of the level above, even or odd
                x = F.interpolate(self.grow[level - 1](x), size=skips[-1].shape[-2:], mode="nearest")
            for block in blocks:  # type: ignore[attr-defined]
                x = block(torch.cat([x, skips.pop()], 1), time)
        return self.out(F.silu(self.norm(x)))


def _coordinates(x: Tensor) -> Tensor:
    """Row and column of every pixel in [-1, 1]: [N, 2, h, w]."""
    n, _, h, w = x.shape
    rows = torch.linspace(-1, 1, h, device=x.device, dtype=x.dtype).view(1, 1, h, 1).expand(n, 1, h, w)
    columns = torch.linspace(-1, 1, w, device=x.device, dtype=x.dtype).view(1, 1, 1, w).expand(n, 1, h, w)
    return torch.cat([rows, columns], 1)


def _zero(*layers: nn.Linear | nn.Conv2d) -> None:
    for layer in layers:
        assert layer.bias is not None
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
