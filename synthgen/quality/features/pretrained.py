"""Encoders that come from outside: any timm network with weights in a local file, and backbones of synthgen."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import timm
import torch
from timm.models import adapt_input_conv
from torch import Tensor

from synthgen.cubes.wavelengths import same_wavelengths
from synthgen.errors import ConfigError, InputError, MismatchError
from synthgen.quality.features.encoder import Encoder, Look
from synthgen.science.backbone_file import read_backbone
from synthgen.science.timm_networks import seeded_network
from synthgen.science.weight_folders import read_tensors

TIMM_LARGEST = 224  # pixels per side; the usual size of networks trained on photographs


def load_encoder(given: str | os.PathLike, wavelengths: Sequence[float]) -> Encoder:
    """The encoder that a user names: a backbone folder or file of synthgen, or 'NAME=WEIGHTS.safetensors' (timm).

    Args:
        wavelengths: nm, of the cubes that it is to look at; a backbone must have been trained on the same.
    """
    text = os.fspath(given)
    name, found, path = text.partition("=")
    if found and timm.is_model(name):
        return timm_encoder(name, path, bands=len(wavelengths))
    return backbone_encoder(text, wavelengths)


def timm_encoder(name: str, weights: str | os.PathLike, bands: int, channels: Sequence[int] | None = None) -> Encoder:
    """Any timm network by name, its weights from a local safetensors file (timm's own keys; a classifier is left out).

    Weights for photographs have three input channels. With `channels` (three bands, red, green, blue) the network sees
    those alone. Without it the first convolution is adapted to all bands as timm does it for `in_chans`: the three
    kernels are repeated over the bands and scaled by 3/bands. Input: reflectance minus the mean and over the standard
    deviation that the weights expect (timm's `default_cfg`; their average where all bands are seen). Cubes larger than
    224 pixels are averaged down.

    ConfigError: no such network. InputError: the file is missing, damaged or of another network. MismatchError: the
    weights have other input channels than 3 and than the bands.
    """
    if not timm.is_model(name):
        raise ConfigError("no such network", found=repr(name), expected="a name of `timm.list_models()`")
    if channels is not None and not all(0 <= c < bands for c in channels):
        raise ConfigError("no such band", found=list(channels), expected=f"indices below {bands}")
    state, _ = read_tensors(weights)
    seen = len(channels) if channels is not None else bands
    network = seeded_network(name, seen)
    wanted = network.state_dict()
    config = cast(dict[str, Any], network.default_cfg)
    stem = config["first_conv"]
    stem = f"{stem[0] if isinstance(stem, tuple | list) else stem}.weight"
    if stem not in state:
        raise InputError(f"does not hold the weights of '{name}'", path=weights, found=f"no '{stem}'")
    given = state[stem].shape[1]
    if given != seen:
        if given != 3 or channels is not None:
            raise MismatchError(
                f"weights of '{name}' for other channels", path=weights, found=given, expected=f"3 or {seen}"
            )
        state[stem] = adapt_input_conv(seen, state[stem].float())
    _load(network, {key: state[key] for key in wanted if key in state}, name, weights)
    mean, std = (np.asarray(config[key], float) for key in ("mean", "std"))
    if seen != len(mean):
        mean, std = (np.full(seen, v.mean()) for v in (mean, std))
    look = Look(bands, tuple(mean.tolist()), tuple(std.tolist()), TIMM_LARGEST, False, False, tuple(channels or ()))
    return Encoder.of(f"{name}, {Path(weights).name}", name, 0, look, network)


def backbone_encoder(path: str | os.PathLike, wavelengths: Sequence[float]) -> Encoder:
    """A backbone that synthgen trained: its folder or its file. Cubes are seen as in its training, whole.

    InputError: missing, damaged, or not a backbone. MismatchError: trained on other wavelengths.
    """
    card, state = read_backbone(path)
    if not same_wavelengths(card.wavelengths, wavelengths):
        raise MismatchError(
            "a backbone for cubes of other bands",
            path=path,
            found=f"{len(card.wavelengths)} bands at {_span(card.wavelengths)}",
            expected=f"{len(wavelengths)} bands at {_span(wavelengths)}",
            remedy="train one on cubes of these bands, or leave the encoder out and one is trained",
        )
    look = Look(len(card.wavelengths), card.mean, card.std, max(card.size, 64), True, False)
    network = seeded_network(card.name, len(card.wavelengths))
    _load(network, state, card.name, path)
    name = f"{card.name}, {card.extra.get('method', 'self-supervised')}"
    return Encoder.of(name, card.name, 0, look, network, card.provenance)


def _span(wavelengths: Sequence[float]) -> str:
    return f"{min(wavelengths):g}-{max(wavelengths):g} nm" if len(wavelengths) else "none"


def _load(network: torch.nn.Module, state: Mapping[str, Tensor], name: str, path: str | os.PathLike) -> None:
    try:
        network.load_state_dict(dict(state), strict=True)
    except RuntimeError as error:
        raise InputError(f"does not fit the network '{name}'", path=path, found=str(error)[:200]) from None
