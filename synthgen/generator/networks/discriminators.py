"""Two discriminators of x (normalised log-reflectance): one of patches, one of spectra."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm


class Critique(NamedTuple):
    """logits [N, 1, ., .] (high: looks real) and the feature maps before them."""

    logits: Tensor
    features: list[Tensor]


class SpatialCritic(nn.Module):
    """Patch discriminator (Isola et al. 2017) with spectral norm (Miyato et al. 2018), no batch norm."""

    def __init__(self, bands: int, channels: int = 32):
        super().__init__()
        widths = [bands, channels, 2 * channels, 4 * channels]
        self.layers = nn.ModuleList(
            spectral_norm(nn.Conv2d(a, b, 4, stride=2, padding=1)) for a, b in itertools.pairwise(widths)
        )
        self.out = spectral_norm(nn.Conv2d(widths[-1], 1, 3, padding=1))

    def forward(self, x: Tensor) -> Critique:
        return _run(self.layers, self.out, x)


class SpectralCritic(nn.Module):
    """Judges the spectrum of every other pixel, with the 3x3 means around it as its small context."""

    def __init__(self, bands: int, channels: int = 64):
        super().__init__()
        widths = [2 * bands, channels, channels]
        self.layers = nn.ModuleList(spectral_norm(nn.Conv2d(a, b, 1)) for a, b in itertools.pairwise(widths))
        self.out = spectral_norm(nn.Conv2d(channels, 1, 1))

    def forward(self, x: Tensor) -> Critique:
        context = F.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False)
        return _run(self.layers, self.out, torch.cat([x[..., ::2, ::2], context], 1))


class Critics(nn.Module):
    """Both discriminators side by side: x [N, C, H, W] -> one Critique each."""

    def __init__(self, bands: int):
        super().__init__()
        self.spatial, self.spectral = SpatialCritic(bands), SpectralCritic(bands)

    def forward(self, x: Tensor) -> list[Critique]:
        return [self.spatial(x), self.spectral(x)]


def _run(layers: nn.ModuleList, out: nn.Module, x: Tensor) -> Critique:
    features = []
    for layer in layers:
        x = F.leaky_relu(layer(x), 0.2)
        features.append(x)
    return Critique(out(x), features)
