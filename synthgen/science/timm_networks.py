"""timm networks: made without touching the global random state, frozen, and stored in half precision."""

from __future__ import annotations

import timm
import torch
from torch import Tensor, nn


class Frozen(nn.Module):
    """A network in evaluation mode for ever: `train()` has no effect, no weight asks for a gradient."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.requires_grad_(False)
        super().train(False)

    def train(self, mode: bool = True) -> Frozen:
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x.contiguous(memory_format=torch.channels_last))


def timm_network(name: str, channels: int, num_classes: int = 0) -> nn.Module:
    """A timm network with fresh weights: [B, channels, H, W] -> [B, num_classes], or pooled features for 0.

    Transformers keep the position table of their default size and interpolate it to what comes in.
    """
    try:
        return timm.create_model(
            name, pretrained=False, in_chans=channels, num_classes=num_classes, dynamic_img_size=True
        )
    except TypeError:  # convolutional networks take any size and do not know the option
        return timm.create_model(name, pretrained=False, in_chans=channels, num_classes=num_classes)


def seeded_network(name: str, channels: int, num_classes: int = 0, seed: int = 0) -> nn.Module:
    """`timm_network` with weights drawn from `seed`; the global random state stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return timm_network(name, channels, num_classes)


def stored(network: nn.Module) -> dict[str, Tensor]:
    """The state as it is kept: on the CPU, in half precision but for what half precision cannot hold."""
    state = {key: t.detach().cpu().contiguous() for key, t in network.state_dict().items()}
    return {key: _half(t) if t.is_floating_point() else t for key, t in state.items()}


def rounded(network: nn.Module) -> nn.Module:
    """The network with its weights rounded to what `stored` keeps, in float32."""
    network.load_state_dict({key: t.float() if t.is_floating_point() else t for key, t in stored(network).items()})
    return network


def _half(x: Tensor) -> Tensor:
    half = x.half()
    lost = ~torch.isfinite(half) | ((half == 0) & (x.abs() > 1e-12))  # tiny variances of BatchNorm, for one
    return x.float() if x.ndim == 1 and bool(lost.any()) else half
