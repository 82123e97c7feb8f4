"""The frozen encoder of the Frechet space: trained by self-supervision on real cubes only, or given from outside.

Its own training set is recorded with it; it is never the VQ-GAN's encoder nor the network of a perceptual loss. The
weights are rounded to half precision once, when the encoder is made, and computed with in float32: what is in memory
is what a gates folder holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from synthgen.contracts import Provenance, content_hash
from synthgen.cubes.reflectance import LOG_FLOOR
from synthgen.errors import InputError, MismatchError
from synthgen.quality.features.contrastive import Shown, train_network
from synthgen.quality.features.handcrafted import averaged_down, field_of_view
from synthgen.science.timm_networks import Frozen, rounded, seeded_network, stored
from synthgen.science.weight_folders import named

ARCHITECTURE = "test_resnet"  # timm's smallest ResNet: 0.7 MB in half precision, 0.7 ms for a cube of 64 x 64
DIMENSION = 64  # more would only be cut off again by the 64 principal components of the Frechet space
STEPS = 600
LARGEST = 112  # pixels per side; larger cubes are averaged down, so that the cost per cube has a bound
_CHUNK = 64


@dataclass(frozen=True)
class Look:
    """What of a cube the network sees.

    largest: pixels per side; larger cubes are averaged down. logs: log-reflectance, else reflectance. filled: pixels
    outside the field of view get their band's mean inside. channels: which bands, all if empty. mean, std: per channel,
    taken off and divided by.
    """

    bands: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    largest: int = LARGEST
    logs: bool = True
    filled: bool = True
    channels: tuple[int, ...] = ()

    def __call__(self, cubes: Tensor) -> Tensor:
        """float32 [N, C, H, W] reflectance -> [N, channels, h, w]."""
        cubes = averaged_down(cubes, self.largest)
        inside = field_of_view(cubes)[:, None] if self.filled else None
        seen = cubes[:, list(self.channels)] if self.channels else cubes
        x = torch.log(seen.clamp_min(0) + LOG_FLOOR) if self.logs else seen
        if inside is not None and not bool(inside.all()):
            level = (x * inside).sum((2, 3), keepdim=True) / inside.sum((2, 3), keepdim=True)
            x = torch.where(inside, x, level)
        mean, std = (torch.tensor(v, dtype=x.dtype, device=x.device).view(-1, 1, 1) for v in (self.mean, self.std))
        return (x - mean) / std


@dataclass(frozen=True)
class Encoder:
    """A frozen network and what it sees of a cube.

    architecture: the timm name. num_classes: of the timm network; 0 gives its pooled features.
    trained_on: None for weights of unknown origin.
    """

    name: str
    architecture: str
    num_classes: int
    look: Look
    network: Frozen
    trained_on: Provenance | None = None

    @staticmethod
    def of(
        name: str,
        architecture: str,
        num_classes: int,
        look: Look,
        network: nn.Module,
        trained_on: Provenance | None = None,
    ) -> Encoder:
        """Freeze a network; its weights are rounded to what is stored."""
        return Encoder(name, architecture, num_classes, look, Frozen(rounded(network)), trained_on)

    @property
    def bands(self) -> int:
        return self.look.bands

    @cached_property
    def dimension(self) -> int:
        side = min(self.look.largest, 64)
        here = next(self.network.parameters()).device
        return self(torch.full((1, self.bands, side, side), 0.1, device=here)).shape[1]

    @torch.no_grad()
    def __call__(self, cubes: Tensor) -> Tensor:
        """float32 [N, C, H, W] reflectance -> float32 [N, D]. MismatchError for cubes of other bands."""
        if cubes.ndim != 4 or cubes.shape[1] != self.bands:
            raise MismatchError(
                f"the encoder '{self.name}' is for cubes of {self.bands} bands",
                found=list(cubes.shape),
                expected=f"[N, {self.bands}, H, W]",
                remedy="resample the cubes, or calibrate with an encoder of these bands",
            )
        if len(cubes) == 0:
            return cubes.new_zeros(0, self.dimension, dtype=torch.float32)
        with torch.autocast(cubes.device.type, enabled=False):  # half precision would shift every distance
            return torch.cat([self._features(block.float()) for block in cubes.split(_CHUNK)])

    def _features(self, cubes: Tensor) -> Tensor:
        return self.network(self.look(cubes))

    def to(self, device: torch.device | str) -> Encoder:
        """The same encoder on another device; this one stays where it is."""
        network = seeded_network(self.architecture, len(self.look.mean), self.num_classes)
        network.load_state_dict(self.network.network.state_dict())
        return Encoder(
            self.name, self.architecture, self.num_classes, self.look, Frozen(network).to(device), self.trained_on
        )

    def about(self) -> dict[str, Any]:
        """Everything but the weights, as plain values."""
        return {
            "name": self.name,
            "architecture": self.architecture,
            "num_classes": self.num_classes,
            "look": {k: list(v) if isinstance(v, tuple) else v for k, v in self.look.__dict__.items()},
            "trained_on": self.trained_on.model_dump(mode="json") if self.trained_on is not None else None,
        }

    def tensors(self) -> dict[str, Tensor]:
        """The state of the network in half precision, on the CPU."""
        return stored(self.network.network)

    @cached_property
    def hash(self) -> str:
        """Over the weights and what the network sees; not over the name."""
        return content_hash(self.architecture, self.num_classes, repr(self.look), *named(self.tensors()))

    @staticmethod
    def restored(about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Encoder:
        """From `about` and `tensors`. KeyError, TypeError or RuntimeError when they do not belong together."""
        seen: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in about["look"].items()}
        look = Look(**seen)
        network = seeded_network(about["architecture"], len(look.mean), about["num_classes"])
        network.load_state_dict(dict(tensors))
        trained_on = Provenance.model_validate(about["trained_on"]) if about["trained_on"] else None
        return Encoder.of(about["name"], about["architecture"], about["num_classes"], look, network, trained_on)


def train_encoder(
    cubes: Tensor,
    *,
    steps: int = STEPS,
    seed: int = 0,
    device: torch.device | str = "cpu",
    provenance: Provenance | None = None,
    architecture: str = ARCHITECTURE,
    on_step: Callable[[float], None] = lambda loss: None,
) -> Encoder:
    """Train the encoder on real cubes float32 [n, C, H, W] by contrast with distorted cubes (`quality.contrast`).

    Neither the global random state nor the cubes are disturbed; the same arguments give the same encoder on one
    device and build.

    Args:
        provenance: of the patients whose cubes these are.
        on_step: called with the loss after each step.

    InputError: fewer than two cubes, a value that is not finite, or a band without variation.
    """
    if len(cubes) < 2:
        raise InputError("too few cubes to train an encoder", found=len(cubes), expected="at least 2")
    bands = cubes.shape[1]
    bare = Look(bands, (0.0,) * bands, (1.0,) * bands)
    logs = torch.cat([bare(block.to(device).float()) for block in cubes.split(_CHUNK)])
    look = Look(bands, *_statistics(logs))
    network = seeded_network(architecture, bands, DIMENSION, seed).to(device)
    train_network(network, Shown(logs, look.mean, look.std), steps=steps, seed=seed, on_step=on_step)
    name = f"{architecture}, self-supervised"
    return Encoder.of(name, architecture, DIMENSION, look, network, provenance).to(device)


def _statistics(logs: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    mean, std = logs.mean((0, 2, 3)), logs.std((0, 2, 3))
    if not bool(torch.isfinite(mean).all()):
        raise InputError("a cube holds NaN or infinite values", remedy="leave broken cubes out")
    if bool((std < 1e-5).any()):
        band = int((std < 1e-5).int().argmax())
        raise InputError(f"band {band} is constant", expected="variation in every band", remedy="remove the band")
    return tuple(round(v, 6) for v in mean.tolist()), tuple(round(v, 6) for v in std.tolist())
