"""Reading a network at any depth: features of every stage, pooled in two ways, and maps for dense targets."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from synthgen.ssl.readout import evenly, pooled

ALL = "all stages"
MEAN, MOMENTS = "mean", "mean, std, max"


def stage_maps(model: nn.Module, x: Tensor) -> list[Tensor]:
    """Maps [B, D_s, H_s, W_s] of the stages of a timm network, or of evenly spaced blocks of a transformer.

    Class tokens are left out. Empty for a network that has no stages to give (timm's `forward_intermediates`).
    """
    if not hasattr(model, "forward_intermediates"):
        return []
    return evenly(model.forward_intermediates(x, intermediates_only=True))  # type: ignore[operator]


def read_out(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Features [B, D] of what `model` is fed, by where and how they are read.

    Every stage by its mean, and by mean, standard deviation and maximum over the positions; all stages side by side.
    """
    found: dict[str, Tensor] = {}
    for number, maps in enumerate(stage_maps(model, x), start=1):
        moments = pooled(maps)
        found[f"stage {number}, {MEAN}"] = moments[0]
        found[f"stage {number}, {MOMENTS}"] = torch.cat(moments, 1)
    for how in (MEAN, MOMENTS) if found else ():
        found[f"{ALL}, {how}"] = torch.cat([v for name, v in found.items() if name.endswith(f", {how}")], 1)
    return found


def dense_maps(model: nn.Module, x: Tensor) -> Tensor:
    """All stages of `stage_maps` side by side, each enlarged to the size of `x` (bilinear): [B, D, H, W]."""
    size = x.shape[-2:]
    return torch.cat([F.interpolate(m.float(), size, mode="bilinear") for m in stage_maps(model, x)], 1)


def settled(untrained: nn.Module, batches: Iterable[Tensor]) -> nn.Module:
    """A copy, in evaluation mode, whose batch norms know means and variances of what it is fed; weights stay random.

    A fresh network's batch norms do nothing in evaluation mode, a pretrained one's do: without this, what standardised
    features alone give would be counted as learned.
    """
    network = copy.deepcopy(untrained)
    with torch.random.fork_rng(devices=[]):  # dropout draws
        update_bn(batches, network, device=next(network.parameters()).device)
    return network.eval()
