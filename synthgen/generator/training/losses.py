"""Losses and measures of a reconstruction, all pure functions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from synthgen.science.ms_ssim import ms_ssim, scales_that_fit

COARSE = (2, 4, 8)  # sides of the squares over which errors are averaged, pixels
SUBTLE = 0.02  # of normalised log-reflectance: what a camera's noise leaves of the means of a few pixels
RAREST = 30.0  # times as much as the usual spectrum weighs
DARK = 0.01  # length of a spectrum (reflectance) below which its direction is noise; retina is 0.1 and more
MS_SSIM_SPAN = 8.0  # normalised log-reflectance in [-4, 4] is mapped to [0, 1] before MS-SSIM


def coarse_error(error: Tensor) -> Tensor:
    """Mean L1 of an error [N, C, H, W] averaged over squares of 2, 4 and 8 pixels, summed over the three (those that
    fit). Noise averages out in them; what is left is what a region's mean spectrum is wrong by.
    """
    sides = [side for side in COARSE if side <= min(error.shape[-2:])]
    return torch.stack([error.new_zeros(()), *(F.avg_pool2d(error, side).abs().mean() for side in sides)]).sum()


class Subtle(NamedTuple):
    """mean [C] of the spectra of 4x4 pixels; axes [C, C]: theirs, each over its standard deviation and `SUBTLE`."""

    mean: Tensor
    axes: Tensor


def subtle_axes(blocks: Iterable[Tensor]) -> Subtle:
    """Of the mean spectra of 4x4 pixels of cubes, in blocks [n, C, H, W].

    What sets arteries off from veins lies along axes a hundred times shorter than that of brightness.
    """
    means = torch.cat([F.avg_pool2d(x, 4).permute(0, 2, 3, 1).flatten(0, 2) for x in blocks])
    values, axes = torch.linalg.eigh(torch.cov(means.T))
    return Subtle(means.mean(0), (axes / (values.clamp(min=0) + SUBTLE**2).sqrt()).T.contiguous())


def subtle_error(x: Tensor, remade: Tensor, subtle: Subtle) -> Tensor:
    """Mean square of remade - x [N, C, H, W] along the axes, averaged over squares of 2 and 4 pixels: the sum.

    Squared, because the mean spectrum of a structure is to be right, and L1 draws what is rare towards what is usual.
    A square weighs as much as its spectrum is rare: by its squared distance from the mean along the axes, about 1 on
    average, at most RAREST. Discs and vessels are a few percent of the pixels.
    """
    total = x.new_zeros(())
    for side in (2, 4):
        real, made = (F.conv2d(F.avg_pool2d(v, side), subtle.axes[:, :, None, None]) for v in (x, remade))
        rare = (real - (subtle.axes @ subtle.mean)[:, None, None]).square().mean(1).clamp(max=RAREST)
        total = total + (rare * (made - real).square().mean(1)).mean()
    return total


def detail_weights(x: Tensor, strength: float) -> Tensor:
    """Weights [N, 1, H, W] of mean 1, larger where something thin stands out: 1 + strength times the contrast of the
    mean over bands against its surroundings of 7 pixels, in units of the cube's mean contrast, at most ten of them.

    x [N, C, H, W]: normalised log-reflectance. Vessels are a few percent of the pixels, and count little without this.
    """
    grey = x.mean(1, keepdim=True)
    contrast = (grey - F.avg_pool2d(grey, 7, 1, 3, count_include_pad=False)).abs()
    relative = (contrast / contrast.mean((1, 2, 3), keepdim=True).clamp(min=1e-6)).clamp(max=10)
    weights = 1 + strength * relative
    return weights / weights.mean((1, 2, 3), keepdim=True)


def spectral_chord(a: Tensor, b: Tensor) -> Tensor:
    """Mean distance |a/|a| - b/|b|| = sqrt(2 - 2 cos) of the spectra of a pixel: the spectral angle in radians where it
    is small, with a gradient that does not vanish there. Pixels where `a` is black count as 0.

    a, b [N, C, H, W] >= 0, reflectance.
    """
    difference = F.normalize(a, dim=1, eps=DARK) - F.normalize(b, dim=1, eps=DARK)
    eye = a.norm(dim=1) > DARK
    return ((difference.square().sum(1) + 1e-8).sqrt() * eye).mean()


def spectral_angle(a: Tensor, b: Tensor) -> Tensor:
    """Spectral angle in degrees at each pixel where `a` is not black, [pixels]. a, b [N, C, H, W], reflectance."""
    chord = (F.normalize(a, dim=1, eps=1e-12) - F.normalize(b, dim=1, eps=1e-12)).norm(dim=1)
    return 2 * torch.rad2deg(torch.asin((chord / 2).clamp(max=1)))[a.norm(dim=1) > DARK]


def structure_similarity(a: Tensor, b: Tensor) -> Tensor:
    """Mean MS-SSIM of normalised log-reflectance [N, C, H, W], with as many scales as fit; 1 for equal cubes. 1 as well
    (no information) where not even one scale fits; NaN where a value is not finite.
    """
    if not scales_that_fit(min(a.shape[-2:])):
        return a.new_ones(())
    if not (torch.isfinite(a).all() and torch.isfinite(b).all()):
        return (a.sum() + b.sum()) * float("nan")  # piq refuses such input with an assertion
    x, y = ((v.float() / MS_SSIM_SPAN + 0.5).clamp(0, 1) for v in (a, b))
    return ms_ssim(x, y)


def hinge_critic(real: Tensor, fake: Tensor) -> Tensor:
    """The discriminator's hinge loss (Lim & Ye 2017): mean relu(1 - D(real)) + relu(1 + D(fake)), halved."""
    return (F.relu(1 - real).mean() + F.relu(1 + fake).mean()) / 2


def hinge_generator(fake: Tensor) -> Tensor:
    """The generator's side of the hinge loss: -mean D(fake)."""
    return -fake.mean()


def feature_matching(real: list[Tensor], fake: list[Tensor]) -> Tensor:
    """Mean L1 distance of a discriminator's feature maps (Wang et al. 2018, pix2pixHD)."""
    return torch.stack([F.l1_loss(f, r.detach()) for r, f in zip(real, fake, strict=True)]).mean()


def adaptive_weight(reconstruction: Tensor, adversarial: Tensor, most: float = 1e4) -> Tensor:
    """Ratio of two gradients' norms at the decoder's last layer, clipped (Esser et al. 2021, eq. 7)."""
    return (reconstruction.norm() / (adversarial.norm() + 1e-4)).clamp(0, most).detach()


def psnr(real: Tensor, other: Tensor) -> Tensor:
    """PSNR in dB, every band's error relative to that band's own range over all of `real` [N, C, H, W]."""
    span = real.amax((0, 2, 3)) - real.amin((0, 2, 3))
    error = (real - other).square().mean((0, 2, 3)) / span.clamp(min=1e-6).square()
    return -10 * torch.log10(error.mean().clamp(min=1e-12))
