"""Statistics of a cube's pixels, as a target that a network can learn without labels.

What distinguishes eyes is how their spectra are distributed and where: the fraction and colour of vessels, a spot of
pigment, the disc. A cube is described by moments of the whitened coordinates of its pixels (mean, standard deviation,
skewness, kurtosis, extremes, correlations) and by their means on a grid; over the cubes of a cohort these numbers are
whitened in turn and their leading components kept. It is prediction of descriptors of the input (as of histograms of
gradients: Wei et al., 'Masked feature prediction', CVPR 2022), with descriptors made for spectra.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from synthgen.config import Config
from synthgen.cubes.reflectance import BandStatistics
from synthgen.errors import InputError
from synthgen.ssl.spectral_whitening import PixelSpectra, lit

AXES = 16  # whitened coordinates of a spectrum at most
AXIS_FLOOR = 1e-6  # of the largest eigenvalue: below this nothing but rounding and the best cameras' noise is left
FAR = 8.0  # standard deviations at which a whitened coordinate is cut: a hot pixel must not set the extremes
OUTLIER = 6.0  # standard deviations at which a target is cut


class StatisticsConfig(Config):
    """Settings of the task 'predict the statistics of the cube'."""

    weight: float = Field(
        default=20.0, ge=0, description="of this task beside the loss of simclr, vicreg or dino; 0: without it"
    )
    components: int = Field(default=128, ge=1, description="numbers to be predicted: components of the statistics")
    power: float = Field(
        default=0.3,
        ge=0,
        le=1,
        description="a component counts by its variance to this power; 0: all alike, 1: as they are",
    )
    grid: int = Field(default=8, ge=1, description="cells per side of the grid of means")
    grid_axes: int = Field(default=8, ge=1, description="axes of the spectra whose means are taken on the grid")


class SpectralStatistics(nn.Module):
    """Standardised cubes -> their statistics, whitened over a cohort: [B, C, H, W] -> [B, K]. No parameters.

    `weight` [K], of mean 1, is what each of the K numbers counts in a loss.
    """

    mean: Tensor
    axes: Tensor
    band_mean: Tensor
    band_std: Tensor
    centre: Tensor
    scale: Tensor
    middle: Tensor
    rotation: Tensor
    weight: Tensor

    def __init__(self, spectra: PixelSpectra, statistics: BandStatistics, config: StatisticsConfig):
        super().__init__()
        self.grid, self.grid_axes = config.grid, config.grid_axes
        axes = spectra.components(AXES, AXIS_FLOOR)
        n, g = len(axes), min(len(axes), config.grid_axes)
        raw = 6 * n + n * (n - 1) // 2 + g * config.grid**2
        count = min(config.components, raw)
        for name, value in {
            "mean": spectra.mean.float()[:, None, None],
            "axes": axes,
            "band_mean": torch.tensor(statistics.mean)[:, None, None],
            "band_std": torch.tensor(statistics.std)[:, None, None],
            "centre": torch.zeros(raw),
            "scale": torch.ones(raw),
            "middle": torch.zeros(raw),
            "rotation": torch.zeros(raw, count),
            "weight": torch.ones(count),
        }.items():
            self.register_buffer(name, value)
        self.power = config.power

    @property
    def count(self) -> int:
        """K."""
        return len(self.weight)

    @torch.no_grad()
    def fit(self, batches: Iterable[Tensor]) -> SpectralStatistics:
        """Whiten the statistics over standardised cubes, in batches [B, C, H, W]. InputError for fewer than two."""
        found = torch.cat([self.raw(batch) for batch in batches]).double()
        if len(found) < 2:
            raise InputError(
                "the statistics of cubes are learned by how cubes differ",
                found=f"{len(found)} cube to learn from",
                expected="at least 2",
                remedy="more cubes, or another --method with --statistics.weight 0",
            )
        centre, scale = found.mean(0), found.std(0) + 1e-6
        near = ((found - centre) / scale).clamp(-OUTLIER, OUTLIER)
        middle = near.mean(0)
        values, axes = torch.linalg.eigh((near - middle).T @ (near - middle) / len(near))
        values, axes = values.flip(0)[: self.count].clamp_min(1e-8), axes.flip(1)[:, : self.count]
        axes = axes * torch.where(axes.sum(0) < 0, -1.0, 1.0)
        weight = values**self.power
        kept = {"centre": centre, "scale": scale, "middle": middle, "rotation": axes / values.sqrt()}
        for name, value in {**kept, "weight": weight / weight.mean()}.items():
            getattr(self, name).copy_(value)
        return self

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            near = ((self.raw(x.float()) - self.centre) / self.scale).clamp(-OUTLIER, OUTLIER)
            return ((near - self.middle) @ self.rotation).clamp(-OUTLIER, OUTLIER)

    def raw(self, x: Tensor) -> Tensor:
        """The statistics [B, T] of standardised cubes [B, C, H, W], before they are whitened."""
        inside = lit(x * self.band_std + self.band_mean)
        inside = (inside | ~inside.flatten(1).any(1)[:, None, None]).to(x.dtype)[:, None]
        z = torch.einsum("ij,bjhw->bihw", self.axes, x - self.mean).clamp(-FAR, FAR)
        pixels = inside.sum((2, 3))
        mean = (z * inside).sum((2, 3)) / pixels
        off = (z - mean[:, :, None, None]) * inside
        std = (off.square().sum((2, 3)) / pixels + 1e-6).sqrt()
        e = (off / std[:, :, None, None]).flatten(2)
        squared, n = e.square(), pixels[:, :, None]
        correlation = e @ e.transpose(1, 2) / n
        rows, columns = torch.triu_indices(len(self.axes), len(self.axes), 1, device=x.device)
        far = (1 - inside) * 2 * FAR  # out of the way of the extremes
        cells = F.adaptive_avg_pool2d(z[:, : self.grid_axes] * inside, self.grid)
        return torch.cat(
            [
                mean,
                std.log(),
                torch.linalg.vecdot(squared, e) / pixels,
                (torch.linalg.vecdot(squared, squared) / pixels).log(),
                (z - far).amax((2, 3)),
                (z + far).amin((2, 3)),
                correlation[:, rows, columns],
                (cells / (F.adaptive_avg_pool2d(inside, self.grid) + 0.05)).flatten(1),
            ],
            dim=1,
        )
