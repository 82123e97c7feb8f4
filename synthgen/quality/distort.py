"""Random changes of cubes in log-reflectance [n, C, H, W]: mild ones that a network is to overlook, and distortions.

The distortions are families with random parameters, of what a generator may get wrong: sharpness, the order of bands,
the course of the spectrum, the spectra of small structures, texture, and the layout of the eye. They need no wavelength
and no mask.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from sklearn.decomposition import FastICA
from torch import Generator, Tensor

SHIFT = 2  # pixels
SOURCES = 8
PIXELS = 40_000  # from which the sources are found
LOCAL = 2.5  # pixels; what a blur of this width takes away are vessels and texture


def uniform(rng: Generator, low: float, high: float, *shape: int) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=rng)


def pick(rng: Generator, count: int) -> int:
    return int(torch.randint(count, (1,), generator=rng))


def shifted(x: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Each cube moved by its own whole pixels [n], edges repeated; interpolation would blur."""
    n, bands, height, width = x.shape
    rows = (torch.arange(height)[None] - down[:, None]).clamp(0, height - 1).to(x.device)
    columns = (torch.arange(width)[None] - right[:, None]).clamp(0, width - 1).to(x.device)
    x = x.gather(2, rows[:, None, :, None].expand(n, bands, height, width))
    return x.gather(3, columns[:, None, None, :].expand(n, bands, height, width))


def mild(x: Tensor, rng: Generator, gain: float, noise: float) -> Tensor:
    """Each cube with its own shift and gain, every other one with noise: what is no fault."""
    n = len(x)
    down, right = (torch.randint(-SHIFT, SHIFT + 1, (n,), generator=rng) for _ in range(2))
    moved = shifted(x, down, right) + uniform(rng, -gain, gain, n, 1, 1, 1).to(x.device)
    strength = uniform(rng, -noise, noise, n)
    noisy = strength > 0
    drawn = torch.randn((int(noisy.sum()), *x.shape[1:]), generator=rng) * strength[noisy][:, None, None, None]
    moved[noisy.to(x.device)] += drawn.to(x.device)
    return moved


def blurred(x: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of `sigma` pixels, edges repeated."""
    radius = max(1, math.ceil(2.5 * sigma))
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, dtype=x.dtype, device=x.device) / sigma) ** 2)
    kernel = (kernel / kernel.sum()).expand(x.shape[1], 1, -1)
    x = F.pad(x, (radius, radius, radius, radius), mode="replicate")
    return F.conv2d(F.conv2d(x, kernel[..., None], groups=x.shape[1]), kernel[:, :, None], groups=x.shape[1])


def smoothing(x: Tensor, rng: Generator) -> Tensor:
    return blurred(x, float(uniform(rng, 0.5, 2.0)))


def sharpening(x: Tensor, rng: Generator) -> Tensor:
    return x + float(uniform(rng, 0.4, 1.5)) * (x - blurred(x, float(uniform(rng, 0.7, 1.5))))


def band_order(x: Tensor, rng: Generator) -> Tensor:
    """The bands of a random stretch of the spectrum in another order."""
    bands = x.shape[1]
    length = 2 + pick(rng, bands - 1) if pick(rng, 2) else min(bands, 2 + pick(rng, 2))
    start = pick(rng, bands - length + 1)
    stretch = torch.randperm(length, generator=rng)
    if bool((stretch == torch.arange(length)).all()):
        stretch = stretch.flip(0)
    order = torch.arange(bands)
    order[start : start + length] = start + stretch
    return x[:, order.to(x.device)]


def _curve(bands: int, rng: Generator, size: float) -> Tensor:
    """A smooth random curve over the bands, [1, C, 1, 1], of about this deviation."""
    at = (torch.arange(bands) + 0.5) / bands
    terms = min(bands, 5)
    waves = torch.stack([torch.cos(math.pi * k * at) for k in range(1, terms)] or [torch.ones(bands)])
    return (size * torch.randn(len(waves), generator=rng) @ waves / math.sqrt(len(waves) / 2)).view(1, bands, 1, 1)


def spectral_course(x: Tensor, rng: Generator) -> Tensor:
    """A smooth curve added to the log-spectrum of every pixel."""
    return x + _curve(x.shape[1], rng, float(uniform(rng, 0.04, 0.2))).to(x.device)


def _local(x: Tensor) -> Tensor:
    return x - blurred(x, LOCAL)


@dataclass(frozen=True)
class Sources:
    """Independent components of the spectra of small structures: blood, pigment, two kinds of vessels, where there are.

    unmix [k, C] takes local log-reflectance to k sources of deviation 1, mix [C, k] back.
    """

    unmix: Tensor
    mix: Tensor

    @staticmethod
    def fit(logs: Tensor, seed: int) -> Sources:
        """FastICA (Hyvarinen & Oja 2000) over the pixels of cubes [n, C, H, W], which it reads in blocks."""
        rng = torch.Generator().manual_seed(seed)
        wanted = max(1, PIXELS // len(logs))
        pixels = []
        for block in logs.split(32):
            flat = _local(block).flatten(2).transpose(1, 2)  # [n, P, C]
            some = torch.randint(flat.shape[1], (wanted,), generator=rng).to(flat.device)
            pixels.append(flat[:, some].flatten(0, 1).cpu())
        found = FastICA(min(SOURCES, logs.shape[1]), whiten="unit-variance", random_state=seed, max_iter=100)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # sources that have not settled serve as well
            found.fit(torch.cat(pixels).double().numpy())
        return Sources(*(torch.from_numpy(m).to(logs) for m in (found.components_, found.mixing_)))

    def __len__(self) -> int:
        return len(self.unmix)

    def of(self, x: Tensor) -> Tensor:
        return torch.einsum("nchw,kc->nkhw", _local(x), self.unmix)

    def add(self, x: Tensor, change: Tensor) -> Tensor:
        """Cubes with `change` [n, k, H, W] added to their sources."""
        return x + torch.einsum("nkhw,ck->nchw", change, self.mix)

    def reversed(self, x: Tensor, which: Tensor) -> Tensor:
        """Each cube with its own source `which` [n] reversed: what it brightens it darkens."""
        change = torch.zeros(len(x), len(self), 1, 1).to(x)
        change[torch.arange(len(x)), which] = -2.0
        return self.add(x, change * self.of(x))

    def scaled(self, x: Tensor, rng: Generator) -> Tensor:
        """One of the sources weakened, reversed or strengthened."""
        which = pick(rng, len(self))
        change = torch.zeros(1, len(self), 1, 1).to(x)
        change[:, which] = float(uniform(rng, 0.4, 1.0)) * (1, -1, -2)[pick(rng, 3)]
        return self.add(x, change * self.of(x))

    def exchanged(self, x: Tensor, rng: Generator) -> Tensor:
        """Two of the sources in each other's place."""
        order = torch.arange(len(self))
        one, two = torch.randperm(len(self), generator=rng)[:2].tolist() if len(self) > 1 else (0, 0)
        order[one], order[two] = two, one
        sources = self.of(x)
        return self.add(x, sources[:, order.to(x.device)] - sources)


def local_spectrum(x: Tensor, rng: Generator) -> Tensor:
    """The contrast of small structures changed by a smooth curve over the bands, or another band's put in its place."""
    local = _local(x)
    base = x - local
    if pick(rng, 2):
        return base + local * torch.exp(_curve(x.shape[1], rng, 0.4)).to(x.device)
    return base + local.roll(int(uniform(rng, 0, 1) < 0.5) * 2 - 1, 1)


def texture(x: Tensor, rng: Generator) -> Tensor:
    """Small structures partly replaced by noise of the same strength in each band."""
    sigma = float(uniform(rng, 0.6, LOCAL))
    base = blurred(x, sigma)
    local = x - base
    noise = torch.randn(len(x), 1, *x.shape[2:], generator=rng).to(x.device)  # alike in all bands, as texture is
    if pick(rng, 2):
        noise = torch.randn(x.shape, generator=rng).to(x.device)
    noise = noise - blurred(noise, sigma)
    noise = noise * local.std((2, 3), keepdim=True) / noise.std((2, 3), keepdim=True).clamp_min(1e-6)
    share = float(uniform(rng, 0.4, 1.0))
    return base + (1 - share) * local + share * noise


Distortion = Callable[[Tensor, Generator], Tensor]


def faults(sources: Sources) -> tuple[Distortion, ...]:
    """The families, each [n, C, H, W] -> the same shape with parameters drawn once."""
    return (
        smoothing,
        sharpening,
        band_order,
        spectral_course,
        local_spectrum,
        texture,
        sources.scaled,
        sources.exchanged,
    )
