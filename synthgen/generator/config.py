"""What an autoencoder and a flow are built from."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator, model_validator

from synthgen.config import Config
from synthgen.errors import ConfigError


class AutoencoderDesign(Config):
    """The choices of an autoencoder that do not follow from the data."""

    compression: int = Field(4, description="pixels per token side; a power of two")
    latent_channels: int = Field(8, ge=1, description="channels of the latent")
    code_dim: int = Field(32, ge=1, description="widest code; wider latents are quantised in a projection")
    codes: int = Field(1024, ge=2, le=65536, description="entries of each codebook")
    levels: int = Field(1, ge=1, le=8, description="residual quantiser levels")
    base_grid: int = Field(4, ge=0, le=16, description="cells per side of the coarse base spectrum; 0: none")
    linear_path: bool = Field(
        True, description="a linear map of patches beside both networks, started at their principal components"
    )
    spectral_head: bool = Field(
        False, description="the decoder gives amounts of the principal spectra of pixels, in standard deviations"
    )
    encoder_channels: int = Field(64, ge=4, description="encoder channels at half size, doubled at each level")
    decoder_channels: int = Field(32, ge=4, description="decoder channels at full size, doubled at each level")
    max_channels: int = Field(128, ge=4, description="widest level of encoder and decoder")
    encoder_blocks: int = Field(1, ge=1, le=8, description="residual blocks at each encoder level")
    decoder_blocks: int = Field(1, ge=1, le=8, description="residual blocks at each decoder level")

    @field_validator("compression")
    @classmethod
    def _power_of_two(cls, value: int) -> int:
        if value < 2 or value & (value - 1):
            raise ValueError("must be a power of two, at least 2")
        return value

    @property
    def halvings(self) -> int:
        return self.compression.bit_length() - 1

    @property
    def code_channels(self) -> int:
        """Channels of a code vector: the latent's, or `code_dim` where the latent is wider."""
        return min(self.latent_channels, self.code_dim)


class AutoencoderConfig(AutoencoderDesign):
    """An autoencoder for cubes of `bands` x `size` x `size`."""

    bands: int = Field(ge=1, description="bands of a cube")
    size: int = Field(ge=1, description="side of a cube, pixels")

    @model_validator(mode="after")
    def _fits(self) -> AutoencoderConfig:
        check_fits(self, self.bands, self.size)
        return self

    @property
    def latent_size(self) -> int:
        return self.size // self.compression

    def record(self) -> dict[str, Any]:
        """What is written with the weights. `spectral_head` is left out where it is off: files from before it was a
        choice keep their hashes."""
        return self.model_dump(mode="json", exclude=None if self.spectral_head else {"spectral_head"})


def check_fits(design: AutoencoderDesign, bands: int, size: int) -> None:
    """ConfigError unless cubes of `bands` x `size` x `size` can go through `design`."""
    if size % design.compression:
        raise ConfigError(
            "the compression does not divide the size",
            found=f"compression {design.compression}, size {size}",
            remedy="choose a compression that divides the size, or a crop that it divides",
        )
    tokens = (size // design.compression) ** 2
    if design.latent_channels * tokens > bands * size * size:
        raise ConfigError(
            "the latent is larger than the cube",
            found=f"{design.latent_channels} x {size // design.compression} x {size // design.compression} numbers",
            expected=f"at most {bands} x {size} x {size}",
            remedy="fewer latent channels or a higher compression",
        )
    if design.base_grid > size:
        raise ConfigError(
            "the base grid has more cells than the cube has pixels", found=design.base_grid, expected=f"at most {size}"
        )


class FlowDesign(Config):
    """The choices of a latent flow that do not follow from the autoencoder."""

    channels: int = Field(64, ge=8, description="base channels of the U-Net")
    multipliers: tuple[int, ...] = Field((1, 2, 3), description="channels of each level, in units of `channels`")
    blocks: int = Field(1, ge=1, le=8, description="residual blocks at each level, on the way down and on the way up")
    attention_heads: int = Field(4, ge=0, description="heads of the attention at the lowest level; 0: no attention")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout inside the residual blocks")
    base_lead: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="how far the base spectrum leaves the noise ahead of the latent, a time in [0, 1)",
    )

    @model_validator(mode="after")
    def _heads_divide(self) -> FlowDesign:
        if not self.multipliers or min(self.multipliers) < 1:
            raise ConfigError("the U-Net needs at least one level", found=str(self.multipliers))
        widest = self.channels * self.multipliers[-1]
        if self.attention_heads and widest % self.attention_heads:
            raise ConfigError("attention_heads does not divide the lowest level's channels", found=widest)
        return self


class FlowConfig(FlowDesign):
    """A flow on latents [latent_channels, latent_size, latent_size] and base spectra [bands, base_grid, base_grid]."""

    latent_channels: int = Field(ge=1, description="channels of a code vector")
    latent_size: int = Field(ge=1, description="tokens per side")
    bands: int = Field(ge=1, description="bands of the base spectrum")
    base_grid: int = Field(ge=0, description="cells per side of the base spectrum; 0: none")

    @property
    def latent_numbers(self) -> int:
        return self.latent_channels * self.latent_size**2

    @property
    def base_numbers(self) -> int:
        return self.bands * self.base_grid**2

    @property
    def base_fold(self) -> int:
        """Cells of the base spectrum that share a token, per side; 1 where there are no more cells than tokens."""
        return max(1, -(-self.base_grid // self.latent_size))

    @property
    def state_numbers(self) -> int:
        """Length of the flat state vector of one cube."""
        return self.latent_numbers + self.base_numbers

    def record(self) -> dict[str, Any]:
        """What is written with the weights, `base_lead` only where there is one: as in `AutoencoderConfig.record`."""
        return self.model_dump(mode="json", exclude=None if self.base_lead else {"base_lead"})
