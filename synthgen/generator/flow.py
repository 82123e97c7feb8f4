"""Rectified flow (Liu et al. 2022; Lipman et al. 2023) on latent and base spectrum together.

x_t = (1 - t) x_0 + t e with x_0 data and e noise; the network learns the velocity e - x_0; sampling goes from 1 to 0.
A cube's state is one flat vector: first the latent [D, h, w], then the whitened base [C, G, G].

The network is asked only for what a channel's own standard deviation s does not say (Karras et al. 2022,
preconditioning): with r^2 = t^2 + (1 - t)^2 s^2, y = x_t / r keeps unit variance at all times, and the network gives
its motion F along the angle a = atan(t / ((1 - t) s)), dy/da = F. Steps along a are exact where the numbers of a state
are independent and normal, however few the steps.

With a lead L the base spectrum runs ahead (asynchronous noise, Semantic-First Diffusion, arXiv 2512.04926): at the
latent's time t its own is max(0, (t - L) / (1 - L)), so it is settled when the latent comes to L, and the latent's last
stretch sees the spectrum that it has to go with.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from synthgen.generator.config import FlowConfig
from synthgen.generator.networks.unet import UNet

EIGENVALUE_FLOOR = 1e-4  # of the largest: weaker spectral directions are not blown up to unit variance


class LatentStatistics(nn.Module):
    """What centres and scales latents and base spectra: per place and channel, and by spectral PCA. All buffers.

    The mean of a latent is taken at every place (the field of view and the usual places of disc and macula go with it),
    its scale per channel. Wholly whitened, every channel counts alike, also the many that hold little but noise; wholly
    left, the few strong ones alone. In between, strong channels stand out of the noise first, as coarse structure does
    before fine.
    """

    latent_mean: Tensor  # [D, h, w]
    latent_std: Tensor  # [D]
    base_mean: Tensor  # [C]
    base_axes: Tensor  # [C, C], rows are the principal spectra
    base_std: Tensor  # [C]
    latent_spread: Tensor  # [D], standard deviation of the states' channels (stored by this name)
    base_spread: Tensor  # [C], as well

    def __init__(self, latent_channels: int, latent_size: int, bands: int):
        super().__init__()
        self.register_buffer("latent_mean", torch.zeros(latent_channels, latent_size, latent_size))
        self.register_buffer("latent_std", torch.ones(latent_channels))
        self.register_buffer("base_mean", torch.zeros(bands))
        self.register_buffer("base_axes", torch.eye(bands))
        self.register_buffer("base_std", torch.ones(bands))
        self.register_buffer("latent_spread", torch.ones(latent_channels))
        self.register_buffer("base_spread", torch.ones(bands))

    @torch.no_grad()
    def fit(self, latents: Tensor, base: Tensor, whitening: float = 1.0) -> None:
        """latents [N, D, h, w], base [N, C, G, G] of the training set.

        whitening 1: unit variance in every channel; 0: their own proportions. The mean variance is one either way.
        """
        self.latent_mean.copy_(latents.mean(0))
        _factors(whitening, (latents - self.latent_mean).std((0, 2, 3)), self.latent_std, self.latent_spread)
        if base.numel():
            spectra = base.double().permute(0, 2, 3, 1).reshape(-1, base.shape[1])
            self.base_mean.copy_(spectra.mean(0))
            values, axes = torch.linalg.eigh(torch.cov(spectra.T).reshape(base.shape[1], -1))
            values, axes = values.flip(0), axes.flip(1).T
            axes = axes * axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()  # a fixed sign
            self.base_axes.copy_(axes)
            std = values.clamp(min=max(float(values[0]), 1e-12) * EIGENVALUE_FLOOR).sqrt()
            _factors(whitening, std, self.base_std, self.base_spread)

    def whiten(self, latents: Tensor, base: Tensor) -> Tensor:
        """latents [N, D, h, w], base float [N, C, G, G] -> flat states [N, S]."""
        latents = (latents - self.latent_mean) / self.latent_std.view(-1, 1, 1)
        cells = base.float() - self.base_mean.view(-1, 1, 1)
        cells = torch.einsum("pc,ncij->npij", self.base_axes, cells) / self.base_std.view(-1, 1, 1)
        return torch.cat([latents.flatten(1), cells.flatten(1)], 1)

    def colour(self, latents: Tensor, base: Tensor) -> tuple[Tensor, Tensor]:
        """The inverse of `whiten`, from the two parts of the state: latents [N, D, h, w], base [N, C, G, G]."""
        latents = latents * self.latent_std.view(-1, 1, 1) + self.latent_mean
        cells = torch.einsum("pc,npij->ncij", self.base_axes, base * self.base_std.view(-1, 1, 1))
        return latents, cells + self.base_mean.view(-1, 1, 1)


class Flow(nn.Module):
    """The velocity of flat states [N, S] at times t [N], and the statistics that states are made with."""

    def __init__(self, config: FlowConfig):
        super().__init__()
        self.config = config
        self.statistics = LatentStatistics(config.latent_channels, config.latent_size, config.bands)
        base_channels = config.bands * config.base_fold**2 if config.base_grid else 0
        self.unet = UNet(
            config.latent_channels + base_channels,
            config.channels,
            config.multipliers,
            config.blocks,
            config.attention_heads,
            config.dropout,
        )

    def split(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """Flat state [N, S] -> latent part [N, D, h, w], base part [N, C, G, G]."""
        c = self.config
        latent, base = state.split([c.latent_numbers, c.base_numbers], 1)
        n = len(state)
        return (
            latent.reshape(n, c.latent_channels, c.latent_size, c.latent_size),
            base.reshape(n, c.bands, c.base_grid, c.base_grid),
        )

    def sigma_data(self) -> Tensor:
        """The standard deviation of every number of a state: [S]."""
        c, s = self.config, self.statistics
        parts = s.latent_spread.repeat_interleave(c.latent_size**2), s.base_spread.repeat_interleave(c.base_grid**2)
        return torch.cat(parts)

    def weight_at(self, weight: Tensor, own: Tensor) -> Tensor:
        """`weight` [S] for numbers at their own times [N, S]: what is settled has nothing more to learn."""
        return weight * (own > 0) if self.config.base_lead else weight

    def weight(self, base_weight: float) -> Tensor:
        """What the error of every number of a state counts in the loss, [S]: one in the latent, in the base
        base_weight / sigma. Its few hundred numbers are the spectra of the whole eye, the weak ones as well."""
        c = self.config
        base = (base_weight / self.statistics.base_spread).repeat_interleave(c.base_grid**2)
        return torch.cat([base.new_ones(c.latent_numbers), base])

    def times(self, t: Tensor) -> Tensor:
        """The own time of every number at t [N], the latent's: [N, S]."""
        c, lead = self.config, self.config.base_lead
        of_base = ((t - lead) / (1 - lead)).clamp(min=0)
        return torch.cat([t[:, None].expand(-1, c.latent_numbers), of_base[:, None].expand(-1, c.base_numbers)], 1)

    def angle(self, t: float) -> Tensor:
        """The angle of every number at time t, [S]: 0 in data, pi/2 in noise. The clock of `motion`."""
        lead = self.config.base_lead
        own = t, max(0.0, (t - lead) / (1 - lead))
        parts = zip(own, self.sigma_data().split([self.config.latent_numbers, self.config.base_numbers]), strict=True)
        return torch.cat([torch.atan2(torch.full_like(sigma, u), (1 - u) * sigma) for u, sigma in parts])

    def sigma(self, t: Tensor) -> Tensor:
        """The standard deviation of every number of x_t at t [N]: [N, S]."""
        own = self.times(t)
        return torch.sqrt(own.square() + ((1 - own) * self.sigma_data()).square())

    def forward(self, state: Tensor, t: Tensor) -> Tensor:
        """dx/dt of states x [N, S] at t [N], t for each number its own time."""
        sigma, sigma_data, t_ = self.sigma(t), self.sigma_data(), self.times(t)
        y = state / sigma
        return ((t_ - (1 - t_) * sigma_data.square()) * y + sigma_data * self.motion(y, t)) / sigma

    def motion(self, y: Tensor, t: Tensor) -> Tensor:
        """F = dy/da [N, S] of scaled states y [N, S] at t [N] or [1]."""
        latent, base = self.split(y)
        c, side = self.config, self.config.latent_size
        if not c.base_grid:
            return self.unet(latent, t).flatten(1).float()
        # The base's few numbers ride as channels at the latent's size: nearest up, mean down; cells finer than tokens
        # as more channels.
        field = F.interpolate(base, size=(side * c.base_fold,) * 2, mode="nearest")
        field = F.pixel_unshuffle(field, c.base_fold)
        image = torch.cat([latent, field], 1).contiguous(memory_format=torch.channels_last)
        latent, field = self.unet(image, t).float().split([c.latent_channels, field.shape[1]], 1)
        base = F.adaptive_avg_pool2d(F.pixel_shuffle(field, c.base_fold), c.base_grid)
        return torch.cat([latent.flatten(1), base.flatten(1)], 1)


def _factors(whitening: float, std: Tensor, divisor: Tensor, kept: Tensor) -> None:
    """Standard deviations [D] as two factors: the divisor, and what is kept, std^(1 - whitening) of mean square one."""
    std = std.clamp(min=1e-4)
    left = std ** (1 - whitening)
    kept.copy_(left / left.square().mean().sqrt())
    divisor.copy_(std / kept)


def interpolate(data: Tensor, noise: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """x_t [N, S] and its target velocity [N, S] for data, noise [N, S] and times t [N, S] (`Flow.times`) or [N, 1]."""
    return (1 - t) * data + t * noise, noise - data


def logit_normal_times(n: int, shift: float, random: torch.Generator, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """n times in (0, 1): sigmoid of a normal variable (Esser et al. 2024), shifted as the sampler's grid is."""
    t = torch.sigmoid(mean + std * torch.randn(n, generator=random))
    return shift * t / (1 + (shift - 1) * t)


def flow_error(velocity: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean squared error of the velocity for each cube: [N, S], [N, S], weights [S] or [N, S] -> [N]."""
    return ((velocity.float() - target).square() * weight).sum(1) / weight.sum(-1)
