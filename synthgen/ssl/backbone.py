"""Backbones: any timm network over any number of bands, and their file.

A backbone is one safetensors file, `backbone.safetensors`, holding exactly the weights that

    timm.create_model(name, in_chans=bands, num_classes=0).load_state_dict(load_file(path), strict=True)

takes; what belongs to them (wavelengths, size, band statistics, provenance, how they were trained) is in the file's
header, so weights and description are replaced together. `backbone.json` beside it is a copy of the header for reading.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import timm
import torch
from torch import Tensor, nn

from synthgen.contracts import Provenance
from synthgen.cubes.reflectance import BandStatistics, log_reflectance
from synthgen.errors import ConfigError, InputError
from synthgen.science.backbone_file import BackboneCard, read_backbone, write_backbone
from synthgen.science.timm_networks import timm_network
from synthgen.ssl.readout import Reading, ReadOut, network_of

PACKAGED = Path(__file__).parent / "packaged"


def standardise(cube: Tensor, statistics: BandStatistics) -> Tensor:
    """Reflectance [..., C, H, W] to a backbone's input: log-reflectance, zero mean, unit standard deviation per band.

    It comes after the augmentations, which work in reflectance.
    """
    return statistics.normalise(log_reflectance(cube))


def make_backbone(name: str, bands: int, size: int, reading: Reading = "last") -> nn.Module:
    """A timm network without classifier, randomly initialised: [B, bands, size, size] -> features [B, D].

    reading: last, the network's own pooled features; stages, those of all its stages (`ReadOut`).

    Transformers keep the position table of their default size and interpolate it to the size that comes in
    (`dynamic_img_size`). So their weights load into a plain `timm.create_model` whatever size they were trained at, and
    they take the small crops of multi-crop methods.

    ConfigError for a name that timm does not have (the nearest is suggested) and for a size that does not fit.
    """
    if ":" in name or not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=1)
        remedy = f"did you mean '{close[0]}'?" if close else "`timm.list_models()` lists the known ones"
        raise ConfigError("no such backbone", found=repr(name), expected="the name of a timm model", remedy=remedy)
    if bands < 1:
        raise ConfigError("a backbone needs at least one band", found=bands)
    model = _create(name, bands)
    # Some networks count other channels than they give.
    model.num_features = check_size(model, name, bands, size)  # type: ignore[assignment] # torch: a tensor or a module
    return ReadOut(model, bands, size) if reading == "stages" else model


def feature_count(model: nn.Module) -> int:
    """D of the features [B, D] that `model` gives, as `make_backbone` notes it."""
    return cast(int, model.num_features)


def check_size(model: nn.Module, name: str, bands: int, size: int) -> int:
    """How many features the network gives; ConfigError when it cannot take cubes of this height and width."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            like = next(model.parameters())
            given = model(torch.zeros(1, bands, size, size, device=like.device, dtype=like.dtype))
    except Exception as error:  # each architecture refuses in its own way
        raise ConfigError(
            f"the backbone '{name}' does not take cubes of {size} x {size} pixels",
            found=str(error).splitlines()[0] if str(error) else type(error).__name__,
            remedy="choose a size that its patches divide, or a convolutional network such as resnet18",
        ) from None
    finally:
        model.train(training)
    if not isinstance(given, Tensor) or given.ndim != 2:
        raise ConfigError(
            f"the backbone '{name}' does not give one feature vector per cube",
            found=f"shape {tuple(given.shape)}" if isinstance(given, Tensor) else type(given).__name__,
            remedy="choose a classification network such as resnet18",
        )
    return given.shape[1]


def save_backbone(
    model: nn.Module,
    path: str | os.PathLike,
    name: str,
    wavelengths: Sequence[float],
    size: int,
    statistics: BandStatistics,
    provenance: Provenance | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Path:
    """Write `backbone.safetensors` and `backbone.json` into the folder `path`; returns the path of the weights.

    Args:
        model: what `make_backbone(name, ...)` made, trained; read as it is here.
        statistics: those of the cubes it was trained on.
        extra: plain values about the training: method, steps, synthetic_ratio, gates ('uncertified', say),
            generator_hash.
    """
    tensors = {k: v.detach().cpu().contiguous() for k, v in network_of(model).state_dict().items()}
    bands = tuple(float(w) for w in wavelengths)
    reading: Reading = "stages" if isinstance(model, ReadOut) else "last"
    card = BackboneCard(name, bands, int(size), statistics.mean, statistics.std, provenance, dict(extra or {}), reading)
    return write_backbone(path, card, tensors)


@dataclass(frozen=True)
class Backbone:
    """A trained network and what belongs to it; calling it gives the features of reflectance cubes.

    `model` gives the features of standardised cubes as they are read (`reading`); `network` is the timm network in it.
    """

    model: nn.Module
    name: str
    wavelengths: tuple[float, ...]
    size: int
    statistics: BandStatistics
    provenance: Provenance | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def bands(self) -> int:
        return len(self.wavelengths)

    @property
    def network(self) -> nn.Module:
        return network_of(self.model)

    @property
    def reading(self) -> Reading:
        return "stages" if isinstance(self.model, ReadOut) else "last"

    def __call__(self, cube: Tensor) -> Tensor:
        """Reflectance [B, C, H, W] on the model's device -> features [B, D]."""
        return self.model(standardise(cube, self.statistics))


def place_of(path_or_name: str | os.PathLike) -> Path:
    """A backbone's folder or file; a packaged one by its name ("phantom64"), where nothing else has that name."""
    path = Path(path_or_name)
    return PACKAGED / path if not path.exists() and (PACKAGED / path).is_dir() else path


def load_backbone(path: str | os.PathLike, device: str | torch.device = "cpu") -> Backbone:
    """Read what `save_backbone` wrote (the folder or the file), or a packaged backbone by name, in evaluation mode.

    InputError when it is missing, damaged, or a safetensors file of something else.
    """
    path = place_of(path)
    card, tensors = read_backbone(path)
    with torch.random.fork_rng(devices=[]):  # the initial weights are overwritten; no stream is to be disturbed
        model = make_backbone(card.name, len(card.wavelengths), card.size, card.reading)
    try:
        network_of(model).load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        raise InputError(f"does not fit the backbone '{card.name}'", path=path, found=str(error)[:200]) from None
    statistics = BandStatistics(card.mean, card.std)
    return Backbone(
        model.to(device).eval(), card.name, card.wavelengths, card.size, statistics, card.provenance, card.extra
    )


class _Patches(nn.Conv2d):
    """A convolution that cuts a cube into patches, in full precision on a CPU.

    oneDNN's bfloat16 kernel on processors with AMX returns noise for it where 16 bands come in and the stride is 4 or
    more (torch 2.15; https://github.com/pytorch/pytorch/issues/169688 is of the same kernel).
    """

    def forward(self, input: Tensor) -> Tensor:
        if input.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
            return super().forward(input)
        with torch.autocast("cpu", enabled=False):
            return super().forward(input.to(self.weight.dtype))


def _create(name: str, bands: int) -> nn.Module:
    model = timm_network(name, bands)
    for layer in model.modules():
        if type(layer) is nn.Conv2d and layer.in_channels == bands and min(layer.stride) >= 4:
            layer.__class__ = _Patches
    return model
