"""Random changes of cubes in log-reflectance [n, C, H, W]: mild ones that a network is to overlook, and distortions.

The distortions are families with random parameters, of what a generator may get wrong: sharpness, the order of bands,
the course of the spectrum, the spectra of small structures, texture, and the layout of the eye. They need no wavelength
and no mask.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

SHIFT = 2  # pixels
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
    """Each cube with its own shift, gain and noise: what is no fault."""
    n = len(x)
    down, right = (torch.randint(-SHIFT, SHIFT + 1, (n,), generator=rng) for _ in range(2))
    level = uniform(rng, -gain, gain, n, 1, 1, 1).to(x.device)
    strength = uniform(rng, 0, noise, n, 1, 1, 1).to(x.device)
    return shifted(x, down, right) + level + strength * torch.randn(x.shape, generator=rng).to(x.device)


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
    """A smooth random curve over the bands, [1, C, 1, 1], of about this standard deviation."""
    at = (torch.arange(bands) + 0.5) / bands
    terms = min(bands, 5)
    waves = torch.stack([torch.cos(math.pi * k * at) for k in range(1, terms)] or [torch.ones(bands)])
    return (size * torch.randn(len(waves), generator=rng) @ waves / math.sqrt(len(waves) / 2)).view(1, bands, 1, 1)


def spectral_course(x: Tensor, rng: Generator) -> Tensor:
    """A smooth curve added to the log-spectrum of every pixel."""
    return x + _curve(x.shape[1], rng, float(uniform(rng, 0.04, 0.2))).to(x.device)


def _local(x: Tensor) -> tuple[Tensor, Tensor]:
    base = blurred(x, LOCAL)
    return base, x - base


def local_components(x: Tensor, rng: Generator) -> Tensor:
    """One of the leading principal spectra of small structures turned round or scaled, in every cube alike.

    The first is what darkens in any vessel; the next tell vessels apart.
    """
    _, local = _local(x)
    flat = local.transpose(0, 1).flatten(1)
    vectors = torch.linalg.eigh((flat @ flat.T).double().cpu())[1].flip(1).to(x)
    which = pick(rng, min(3, x.shape[1]))
    direction = vectors[:, which]
    change = -2.0 if which and pick(rng, 2) else float(uniform(rng, 0.4, 0.9)) * (1 - 2 * pick(rng, 2))
    along = torch.einsum("nchw,c->nhw", local, direction)
    return x + change * along[:, None] * direction.view(1, -1, 1, 1)


def local_spectrum(x: Tensor, rng: Generator) -> Tensor:
    """The contrast of small structures changed by a smooth curve over the bands, or another band's put in its place."""
    base, local = _local(x)
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


def layout(x: Tensor, rng: Generator) -> Tensor:
    """Mirrored left-right, top-bottom, or both."""
    return x.flip([[2], [3], [2, 3]][pick(rng, 3)])


Distortion = Callable[[Tensor, Generator], Tensor]
FAULTS: tuple[Distortion, ...] = (
    smoothing,
    sharpening,
    band_order,
    spectral_course,
    local_components,
    local_spectrum,
    texture,
)
