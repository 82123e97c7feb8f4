"""Views of reflectance cubes for self-supervised learning, on the device where the cubes are.

Every random number is keyed by (seed, step, position in the global batch, view), so one process and two make the same
views, and a resumed run makes the views of an uninterrupted one. A view is a function of its own cube and key: how a
batch is split makes no difference, to the bit on the CPU. There is no grayscale, hue, solarize or channel shuffle: they
destroy the identity of the bands.

Order: warp (crop, flip, rotation; one bilinear pass shared by all bands) -> lamp colour and filter tolerance (one
matrix per cube) -> misregistration -> blur -> lamp power and vignette -> sensor noise -> lost bands.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from synthgen.config import Config
from synthgen.cubes.cohort.cohort import Cohort
from synthgen.errors import ConfigError, MismatchError
from synthgen.ssl.augment.counter_rng import between, normals, uniforms
from synthgen.ssl.augment.noise import BANK, BandNoise, add_noise, measured_noise, noise_bank
from synthgen.ssl.augment.spectral import drop_bands, mix_bands, shift_matrix, smooth_root
from synthgen.ssl.augment.warp import blur, crop_matrix, misregister, vignette, warp

CLEAN: dict[str, float] = {  # what a clean view leaves out
    "aspect": 1.0, "rotation": 0.0, "misregistration": 0.0, "blur": 0.0, "gain_min": 1.0, "gain_max": 1.0,
    "vignette": 0.0, "spectral_jitter": 0.0, "wavelength_shift": 0.0,
}  # fmt: skip
HIGHEST = 1.5  # the brightest white under the strongest lamp; views lie in 0..HIGHEST
NOISE_FROM = 48  # cubes are plenty to measure a camera's noise
CACHE_FLOATS = 2**19  # cubes are worked on in groups of 2 MB on the CPU, which stay in its cache


class Augmentation(Config):
    """Strength of each augmentation; `Augmentation.off()` changes nothing."""

    scale_min: float = Field(default=0.4, gt=0, le=1, description="smallest fraction of the image that a crop takes")
    scale_max: float = Field(default=1.0, gt=0, le=1, description="largest fraction of the image that a crop takes")
    view_size: int | None = Field(
        default=None, ge=16, description="height and width of the views, pixels; without it, those of the cubes"
    )
    aspect: float = Field(
        default=4 / 3, ge=1, le=4, description="largest ratio of a crop's sides, relative to the image"
    )
    flip: float = Field(
        default=0.5, ge=0, le=1, description="probability of a left-right flip (it swaps right and left eyes)"
    )
    rotation: float = Field(default=15.0, ge=0, le=180, description="largest rotation in degrees, either way")
    misregistration: float = Field(
        default=0.5, ge=0, le=1, description="largest shift between two bands, pixels per axis"
    )
    gain_min: float = Field(default=0.7, gt=0, le=1, description="weakest lamp, as a factor on all bands")
    gain_max: float = Field(default=1.4, ge=1, le=4, description="strongest lamp, as a factor on all bands")
    vignette: float = Field(default=0.3, ge=0, lt=1, description="largest loss of light toward the farthest corner")
    spectral_jitter: float = Field(
        default=0.02,
        ge=0,
        le=0.3,
        description="standard deviation of a smooth random factor over wavelength (lamp, ocular media)",
    )
    spectral_correlation_nm: float = Field(
        default=240.0,
        gt=0,
        description="correlation length of that factor: half the range, as lamps and media vary slowly",
    )
    wavelength_shift: float = Field(default=0.25, ge=0, le=1, description="largest shift along wavelength, in bands")
    dropout: float = Field(default=0.3, ge=0, le=1, description="probability that some bands are dropped")
    dropout_bands: int = Field(
        default=3, ge=1, description="most bands dropped at once; a dropped band is filled with its mean"
    )
    noise: Literal["model", "measured"] = Field(
        default="model",
        description="model: the two numbers below, for every band; measured: each band's own, from the cohort",
    )
    shot_noise: float = Field(
        default=1e-5,
        ge=0,
        le=1,
        description="variance per unit of reflectance: ten thousand electrons at a reflectance of 0.1",
    )
    read_noise: float = Field(
        default=1e-4, ge=0, le=1, description="standard deviation of the noise in the dark, in reflectance"
    )
    blur: float = Field(default=0.1, ge=0, le=1, description="probability of a slight defocus")
    blur_sigma: float = Field(default=1.0, gt=0, le=1.2, description="largest width of the defocus, in pixels")

    @model_validator(mode="after")
    def _ordered(self) -> Augmentation:
        if self.scale_min > self.scale_max:
            raise ValueError("scale_min is above scale_max")
        return self

    def size_of_views(self, size: int) -> int:
        """Height and width of whole views of cubes of this height and width."""
        return self.view_size or int(size)

    @staticmethod
    def off(**kept: float | str) -> Augmentation:
        """No augmentation but those named."""
        nothing = {"scale_min": 1.0, "flip": 0.0, "dropout": 0.0, "shot_noise": 0.0, "read_noise": 0.0}
        return Augmentation.model_validate({**CLEAN, **nothing, **kept})


class Crop(NamedTuple):
    """What a view shows: the range of the fraction of the image's area, and the view's height and width in pixels.

    clean: cropped and flipped, but with its own proportions, light, noise and bands. It is not turned: interpolation
    would smooth the noise of the camera, which whitened spectra show.
    """

    scale: tuple[float, float]
    size: int
    clean: bool = False


# The table of one view: one column for each scalar, then one block of C columns for each band-wise number.
SCALARS = (
    "area", "aspect", "across", "down", "flip", "angle", "gain", "depth", "centre_x", "centre_y", "wavelength",
    "blurred", "sigma", "noise", "dropped", "drop_count",
)  # fmt: skip
BANDWISE = ("curve_u", "curve_v", "shift_y", "shift_x", "offset", "drop_order")


class Augmenter:
    """Makes views of reflectance cubes.

    Args:
        config: the strengths.
        wavelengths: nm of the C bands.
        size: height and width of the cubes, pixels; of whole views too, unless the configuration has a `view_size`.
        noise: of the camera, for `noise: measured`; `Augmenter.of_cohort` measures it.
    """

    def __init__(self, config: Augmentation, wavelengths: Sequence[float], size: int, noise: BandNoise | None = None):
        self.config, self.wavelengths = config, tuple(float(w) for w in wavelengths)
        self.size = config.size_of_views(size)
        self.bands = len(self.wavelengths)
        if config.dropout > 0 and config.dropout_bands >= self.bands:
            raise ConfigError(
                "'dropout_bands' leaves no band", found=config.dropout_bands, expected=f"fewer than {self.bands}"
            )
        if config.noise == "measured" and noise is None:
            raise ConfigError(
                "'noise: measured' needs cubes to measure", remedy="use Augmenter.of_cohort, or set noise to model"
            )
        configured = BandNoise((config.shot_noise,) * self.bands, (config.read_noise,) * self.bands)
        self.noise = noise if config.noise == "measured" and noise is not None else configured
        self._root = smooth_root(np.array(self.wavelengths), config.spectral_correlation_nm)
        self._banks: dict[tuple[torch.device, int], Tensor] = {}

    @staticmethod
    def of_cohort(config: Augmentation, cohort: Cohort, index: np.ndarray) -> Augmenter:
        """For a cohort's bands and size; the noise, where it is to be measured, is that of the cubes of `index`."""
        noise = None
        if config.noise == "measured":
            few = index[np.linspace(0, len(index) - 1, min(NOISE_FROM, len(index))).astype(np.int64)]
            noise = measured_noise(cohort.cubes(np.unique(few)))
        return Augmenter(config, cohort.wavelengths, cohort.height, noise)

    @property
    def whole(self) -> Crop:
        """The ordinary view: scale and size of the configuration."""
        return Crop((self.config.scale_min, self.config.scale_max), self.size)

    @torch.no_grad()
    def views(
        self,
        cube: Tensor,
        seed: int,
        step: int,
        positions: Tensor | np.ndarray,
        n_views: int = 2,
        crops: Sequence[Crop] | None = None,
        second: Tensor | None = None,
    ) -> list[Tensor]:
        """Views of cubes float32 [B, C, H, H] in reflectance 0..1: a list of float32 [B, C, size, size] in 0..1.5.

        Args:
            seed, step: key of all random numbers of this step.
            positions: int64 [B], place of each cube in the global batch (over all processes).
            n_views: number of whole views, when `crops` is not given.
            crops: scale and size of each view (multi-crop).
            second: what the second view is made of, in place of `cube`; of the same shape.
        """
        if cube.ndim != 4 or cube.shape[1] != self.bands or cube.shape[2] != cube.shape[3]:
            raise MismatchError(
                "cubes do not fit the augmentation",
                found=f"shape {tuple(cube.shape)}",
                expected=f"[B, {self.bands}, H, H]",
            )
        places = positions.cpu().numpy() if isinstance(positions, Tensor) else np.asarray(positions)
        if places.shape != (len(cube),):
            raise ValueError(f"positions has shape {places.shape}, expected ({len(cube)},)")
        plan = crops if crops is not None else [self.whole] * n_views
        sources = [second if second is not None and v == 1 else cube for v in range(len(plan))]
        return [self._view(sources[v], self._draw(seed, step, places, v), crop) for v, crop in enumerate(plan)]

    def _draw(self, seed: int, step: int, places: np.ndarray, view: int) -> dict[str, np.ndarray]:
        table = uniforms(seed, step, places, view, len(SCALARS) + len(BANDWISE) * self.bands)
        blocks = np.split(table[:, len(SCALARS) :], len(BANDWISE), axis=1)
        columns: list[np.ndarray] = [*table.T[: len(SCALARS)], *blocks]
        return dict(zip((*SCALARS, *BANDWISE), columns, strict=True))

    def _view(self, cube: Tensor, u: dict[str, np.ndarray], crop: Crop) -> Tensor:
        c, device = self.config.model_copy(update=CLEAN) if crop.clean else self.config, cube.device
        n = len(cube)

        def send(values: np.ndarray, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(values)).to(dtype).to(device, non_blocking=True)

        geometry = send(
            crop_matrix(
                between(u["area"], *crop.scale),
                np.exp(between(u["aspect"], -1, 1) * np.log(c.aspect)),
                u["across"],
                u["down"],
                u["flip"] < c.flip,
                np.deg2rad(c.rotation) * between(u["angle"], -1, 1),
            )
        )
        still = crop.scale[0] == 1 and c.aspect == 1 and c.flip == 0 and c.rotation == 0 and crop.size == cube.shape[2]
        curve = c.spectral_jitter * np.clip(normals(u["curve_u"], u["curve_v"]) @ self._root.T, -3, 3)
        mixing = send(
            shift_matrix(c.wavelength_shift * between(u["wavelength"], -1, 1), self.bands) * np.exp(curve)[:, None, :]
        )
        shift = send(c.misregistration * np.stack([u["shift_y"], u["shift_x"]], -1))
        gain = np.exp(between(u["gain"], np.log(c.gain_min), np.log(c.gain_max)))
        light = send(np.stack([c.vignette * u["depth"], u["centre_x"] - 0.5, u["centre_y"] - 0.5, gain], 1))
        strength, offset = send(u["noise"]), send((u["offset"] * BANK).astype(np.int64), torch.int64)
        blurred = u["blurred"] < c.blur
        sigma = send(between(u["sigma"], 0.3, c.blur_sigma))
        shot, read = send(np.array(self.noise.shot)), send(np.array(self.noise.read))
        noisy = max(*self.noise.shot, *self.noise.read) > 0 and not crop.clean
        lost = self._lost(u) & (not crop.clean)

        view = torch.empty((n, self.bands, crop.size, crop.size), dtype=torch.float32, device=device)
        floats = self.bands * crop.size**2
        group = n if device.type != "cpu" else max(1, CACHE_FLOATS // floats)
        for first in range(0, n, group):
            part = slice(first, min(first + group, n))
            x = given = cube[part].float()
            margin = int(c.misregistration > 0)
            if not still:
                x = warp(x, geometry[part], crop.size, margin)
            elif margin:
                x = F.pad(x, (0, 1, 0, 1), mode="replicate")
            if c.spectral_jitter > 0 or c.wavelength_shift > 0:
                x = mix_bands(x, mixing[part])
            if margin:
                x = misregister(x, shift[part])
            x = x.clone() if x is given else x  # what follows works in place
            soft = np.flatnonzero(blurred[part])
            if len(soft):
                which = send(soft, torch.int64)
                x[which] = blur(x[which], sigma[part][which])
            if c.vignette > 0 or c.gain_min < 1 or c.gain_max > 1:
                x.mul_(vignette(light[part], crop.size))
            if noisy:
                x = add_noise(x, strength[part], offset[part], shot, read, self._bank(x))
            torch.clamp(x, 0, HIGHEST, out=view[part])
            cubes, bands = np.nonzero(lost[part])
            if len(cubes):
                drop_bands(view[part], (send(cubes, torch.int64), send(bands, torch.int64)))
        return view

    def _lost(self, u: dict[str, np.ndarray]) -> np.ndarray:
        """Which bands are lost, bool [B, C]: 1 .. dropout_bands of them in a share `dropout` of the cubes."""
        count = np.where(u["dropped"] < self.config.dropout, 1 + u["drop_count"] * self.config.dropout_bands, 0)
        rank = u["drop_order"].argsort(1).argsort(1)
        return rank < count.astype(np.int64)[:, None]

    def _bank(self, like: Tensor) -> Tensor:
        key = (like.device, like.shape[-1] ** 2)
        if key not in self._banks:
            self._banks[key] = noise_bank(key[1], like.device)
        return self._banks[key]
