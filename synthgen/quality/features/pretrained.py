"""Encoders that come from outside: any timm network with weights in a local file, and backbones of synthgen."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import timm
import torch
from safetensors import SafetensorError, safe_open
from timm.models import adapt_input_conv
from torch import Tensor

from synthgen.contracts import Provenance, content_hash
from synthgen.errors import ConfigError, InputError, MismatchError, must_exist
from synthgen.quality.features.encoder import Encoder, Look
from synthgen.quality.features.frozen import create

BACKBONE = "backbone.safetensors"  # what synthgen's self-supervised training writes; described in its header
TIMM_LARGEST = 224  # pixels per side; the usual size of networks trained on photographs


def timm_encoder(name: str, weights: str | os.PathLike, bands: int, channels: Sequence[int] | None = None) -> Encoder:
    """Any timm network by name, its weights from a local safetensors file (timm's own keys; a classifier is left out).

    Weights for photographs have three input channels. With `channels` (three bands, red, green, blue) the network sees
    those alone. Without it the first convolution is adapted to all bands as timm does it for `in_chans`: the three
    kernels are repeated over the bands and scaled by 3/bands. Input: reflectance minus the mean and over the deviation
    that the weights expect (timm's `default_cfg`; their average where all bands are seen). Cubes larger than 224 pixels
    are averaged down.

    ConfigError: no such network. InputError: the file is missing, damaged or of another network. MismatchError: the
    weights have other input channels than 3 and than the bands.
    """
    if not timm.is_model(name):
        raise ConfigError("no such network", found=repr(name), expected="a name of `timm.list_models()`")
    if channels is not None and not all(0 <= c < bands for c in channels):
        raise ConfigError("no such band", found=list(channels), expected=f"indices below {bands}")
    state, _ = _read(Path(weights))
    seen = len(channels) if channels is not None else bands
    network = create(name, seen, 0)
    wanted = network.state_dict()
    config = network.default_cfg
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
    found = Path(path)
    if found.is_dir():
        found = found / BACKBONE
    state, header = _read(found)
    if "backbone" not in header:
        raise InputError("is not a backbone of synthgen", path=found, expected="a description in its header")
    try:
        card = json.loads(header["backbone"])
        name, trained_at, size = card["name"], tuple(card["wavelengths_nm"]), int(card["size"])
        look = Look(len(trained_at), tuple(card["mean"]), tuple(card["std"]), max(size, 64), True, False)
        provenance = Provenance.model_validate(card["provenance"]) if card["provenance"] else None
    except (KeyError, TypeError, ValueError) as error:
        raise InputError("has a damaged description", path=found, found=str(error)[:200]) from None
    if len(trained_at) != len(wavelengths) or not np.allclose(trained_at, wavelengths, atol=0.5):
        raise MismatchError(
            "a backbone for cubes of other bands",
            path=found,
            found=f"{len(trained_at)} bands at {_span(trained_at)}",
            expected=f"{len(wavelengths)} bands at {_span(wavelengths)}",
            remedy="train one on cubes of these bands, or leave the encoder out and one is trained",
        )
    if content_hash(*(part for key in sorted(state) for part in (key, state[key]))) != card["weights_hash"]:
        raise InputError("has weights that differ from what was written", path=found, remedy="copy the file again")
    network = create(name, len(trained_at), 0)
    _load(network, state, name, found)
    return Encoder.of(f"{name}, {card['extra'].get('method', 'self-supervised')}", name, 0, look, network, provenance)


def _span(wavelengths: Sequence[float]) -> str:
    return f"{min(wavelengths):g}-{max(wavelengths):g} nm" if len(wavelengths) else "none"


def _read(path: Path) -> tuple[dict[str, Tensor], Mapping[str, str]]:
    path = must_exist(path)
    try:
        with safe_open(os.fspath(path), framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError("is damaged or not a safetensors file", path=path, found=str(error)[:200]) from None


def _load(network: torch.nn.Module, state: Mapping[str, Tensor], name: str, path: str | os.PathLike) -> None:
    try:
        network.load_state_dict(dict(state), strict=True)
    except RuntimeError as error:
        raise InputError(f"does not fit the network '{name}'", path=path, found=str(error)[:200]) from None
