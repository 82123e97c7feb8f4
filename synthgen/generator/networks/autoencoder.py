"""The autoencoder: coarse base spectrum aside, encoder, vector quantiser, slim decoder.

Works on normalised log-reflectance x [N, C, H, W]. The base spectrum b [N, C, G, G] is the mean of x over the eye's
pixels in each cell, in float16; its bilinear field is taken off before encoding and put back after decoding, so the
slow part of a spectrum never passes through the codes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from synthgen.cubes.reflectance import BandStatistics
from synthgen.generator.config import AutoencoderConfig
from synthgen.generator.networks.layers import Down, PixelNorm, ResBlock, Up
from synthgen.generator.networks.quantizer import Quantised, Quantiser
from synthgen.generator.normalisation import KNEE, denormalised, normalised


class Reconstruction(NamedTuple):
    """x: normalised log-reflectance [N, C, H, W]; quantised: what went between."""

    x: Tensor
    quantised: Quantised


class Encoder(nn.Module):
    """[N, C, H, W] -> [N, D, H/f, W/f]. The first step is a space-to-depth, so nothing runs at full size."""

    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        widths = [min(config.encoder_channels * 2**level, config.max_channels) for level in range(config.halvings)]
        layers: list[nn.Module] = []
        for before, width in zip([config.bands, *widths], widths, strict=False):
            layers += [Down(before, width), *(ResBlock(width) for _ in range(config.encoder_blocks))]
        self.layers = nn.Sequential(*layers, PixelNorm(widths[-1]))
        self.out = nn.Conv2d(widths[-1], config.latent_channels, 1)
        self.patches = _linear(config, encode=True)
        if self.patches is not None:
            _quiet(self.out)

    def forward(self, x: Tensor) -> Tensor:
        latent = self.out(self.layers(x))
        if self.patches is None:
            return latent
        return latent + self.patches(F.pixel_unshuffle(x, x.shape[-1] // latent.shape[-1]))


class Decoder(nn.Module):
    """[N, D, h, w] -> [N, C, h f, w f]. No attention, no norm over pixels: a tile with enough margin decodes alike.

    With a spectral head the network gives amounts of principal spectra (`spectra` [C, C], its columns, each as long as
    pixels deviate along it): an error of the network is then small where real spectra vary little, as along the axes
    that set arteries off from veins, which lie a hundred times closer together than bright and dark pixels.
    """

    spectra: Tensor | None

    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        widths = [
            min(config.decoder_channels * 2**level, config.max_channels) for level in range(config.halvings, -1, -1)
        ]
        layers: list[nn.Module] = [nn.Conv2d(config.latent_channels, widths[0], 3, padding=1)]
        for level, width in enumerate(widths):
            if level:
                layers.append(Up(widths[level - 1], width))
            layers += [ResBlock(width) for _ in range(config.decoder_blocks)]
        self.layers = nn.Sequential(*layers, nn.SiLU())  # no norm here: at full size it costs as much as a convolution
        self.last = nn.Conv2d(widths[-1], config.bands, 3, padding=1)
        self.register_buffer("spectra", torch.eye(config.bands) if config.spectral_head else None)
        _quiet(self.last)  # the first reconstruction is the base spectrum, and what the linear path adds
        self.patches = _linear(config, encode=False)

    def forward(self, latent: Tensor) -> Tensor:
        x = self.last(self.layers(latent))
        if self.spectra is not None:
            x = F.conv2d(x, self.spectra[:, :, None, None])
        if self.patches is None:
            return x
        return x + F.pixel_shuffle(self.patches(latent), x.shape[-1] // latent.shape[-1])


def _linear(config: AutoencoderConfig, encode: bool) -> nn.Conv2d | None:
    """Between the numbers of a patch of f x f pixels and its latent vector; None where the design has no such path."""
    numbers = config.bands * config.compression**2
    ends = (numbers, config.latent_channels) if encode else (config.latent_channels, numbers)
    return nn.Conv2d(*ends, 1) if config.linear_path else None


@torch.no_grad()
def _quiet(layer: nn.Conv2d) -> None:
    layer.weight *= 0.1
    if layer.bias is not None:
        layer.bias.zero_()


class Autoencoder(nn.Module):
    """Cubes to codes and back.

    Args:
        config: the design and the cube's shape.
        statistics: per-band mean and standard deviation of log-reflectance.
    """

    def __init__(self, config: AutoencoderConfig, statistics: BandStatistics):
        super().__init__()
        self.config, self.statistics = config, statistics
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.quantiser = Quantiser(config.codes, config.code_channels, config.levels)
        narrow = config.code_channels < config.latent_channels
        self.to_code = nn.Conv2d(config.latent_channels, config.code_channels, 1) if narrow else nn.Identity()
        self.from_code = nn.Conv2d(config.code_channels, config.latent_channels, 1) if narrow else nn.Identity()

    def normalise(self, cubes: Tensor) -> Tensor:
        """Reflectance [N, C, H, W] in [0, 1] -> normalised log-reflectance."""
        return normalised(cubes, self.statistics)

    def denormalise(self, x: Tensor) -> Tensor:
        """The inverse of `normalise`, clamped to [0, 1]."""
        return denormalised(x, self.statistics)

    def base(self, x: Tensor) -> Tensor:
        """The coarse base spectrum float16 [N, C, G, G] of x."""
        return coarse_base(x, self.config.base_grid)

    def code_vectors(self, residual: Tensor) -> Tensor:
        """What is left after the base [N, C, H, W] -> code vectors before quantisation [N, K, h, w]."""
        return self.to_code(self.encoder(residual))

    def decode_codes(self, values: Tensor, field: Tensor) -> Tensor:
        """Quantised code vectors [N, K, h, w] and the base field [N, C, H, W] -> x."""
        return self.decoder(self.from_code(values)) + field

    @torch.no_grad()
    def start_at_components(self, residuals: Iterable[Tensor]) -> None:
        """Put the linear path on the principal components of the patches of residuals, blocks [n, C, H, W].

        Both maps are orthonormal up to one factor (latents get a mean square of 1): an error of the codes weighs as it
        will in the picture.
        """
        encode, decode = self.encoder.patches, self.decoder.patches
        if encode is None or decode is None:
            return
        total = encode.weight.new_zeros(encode.weight[0].numel(), dtype=torch.float64)
        count, square = 0, torch.outer(total, total)
        for block in residuals:
            patches = F.pixel_unshuffle(block, self.config.compression).permute(0, 2, 3, 1).flatten(0, 2).double()
            count, total, square = count + len(patches), total + patches.sum(0), square + patches.T @ patches
        mean = total / count
        covariance = (square - count * torch.outer(mean, mean)) / max(count - 1, 1)
        values, axes = torch.linalg.eigh((covariance + covariance.T) / 2)
        axes = axes.flip(1).T[: self.config.latent_channels]
        axes = axes * axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()  # a fixed sign
        size = float(values.flip(0)[: len(axes)].clamp(min=0).mean().sqrt().clamp(min=1e-6))
        encode.weight.copy_((axes / size)[:, :, None, None])
        assert encode.bias is not None and decode.bias is not None
        encode.bias.copy_(-(axes @ mean) / size)
        decode.weight.copy_((axes.T * size)[:, :, None, None])
        decode.bias.copy_(mean)
        if self.config.code_channels < self.config.latent_channels:  # the leading components pass the narrow code
            for narrow in (self.to_code, self.from_code):
                assert isinstance(narrow, nn.Conv2d) and narrow.bias is not None
                nn.init.dirac_(narrow.weight)
                nn.init.zeros_(narrow.bias)

    @torch.no_grad()
    def set_spectra(self, residuals: Iterable[Tensor]) -> None:
        """Give the spectral head the principal spectra of the pixels of residuals, blocks [n, C, H, W]; what the
        decoder makes stays as it is."""
        decoder = self.decoder
        if decoder.spectra is None:
            return
        pixels = torch.cat([block.permute(0, 2, 3, 1).flatten(0, 2) for block in residuals]).double()
        values, axes = torch.linalg.eigh(torch.cov(pixels.T).reshape(pixels.shape[1], -1))
        spectra = axes * values.clamp(min=1e-6).sqrt()
        change = torch.linalg.solve(spectra, decoder.spectra.double())  # amounts of the new spectra from the old
        assert decoder.last.bias is not None
        decoder.last.weight.copy_(torch.einsum("pc,cdij->pdij", change, decoder.last.weight.double()))
        decoder.last.bias.copy_(change @ decoder.last.bias.double())
        decoder.spectra.copy_(spectra)

    def forward(self, x: Tensor, field: Tensor) -> Reconstruction:
        """x and its base field, both [N, C, H, W] (crops of both, when training on crops)."""
        quantised = self.quantiser(self.code_vectors(x - field))
        return Reconstruction(self.decode_codes(quantised.values, field), quantised)


def coarse_base(x: Tensor, grid: int) -> Tensor:
    """Mean of x [N, C, H, W] over the pixels of the eye in grid x grid cells, float16 [N, C, grid, grid].

    Pixels that are black in most bands (outside of the field of view) do not count, so the base runs smoothly up to the
    rim; a cell without any other takes the mean of the cube.
    """
    if not grid:
        return x.new_zeros((*x.shape[:2], 0, 0), dtype=torch.float16)
    x = x.float()
    eye = (x.mean(1, keepdim=True) > KNEE).float()
    share, total = F.adaptive_avg_pool2d(eye, grid), F.adaptive_avg_pool2d(x * eye, grid)
    whole = (x * eye).mean((2, 3), keepdim=True) / eye.mean((2, 3), keepdim=True).clamp(min=1e-6)
    return torch.where(share > 0, total / share.clamp(min=1e-6), whole).half()


def base_field(base: Tensor, size: tuple[int, int]) -> Tensor:
    """The base float16 [N, C, G, G] at every pixel of `size`: float32 [N, C, H, W], bilinear, zero where G = 0."""
    if not base.shape[-1]:
        return torch.zeros((*base.shape[:2], *size), device=base.device)
    return F.interpolate(base.float(), size=size, mode="bilinear", align_corners=False)
