"""What is read of a backbone: every stage of it, not its last layer alone.

The last layer of a network trained without labels is the worst place to read (intermediate layers: Skean et al., 'Layer
by layer', ICML 2025), and a mean over the image forgets what is small: of every stage the mean, the standard deviation
and the largest value of each channel are taken, beside the network's own pooled features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from synthgen.errors import ConfigError

Reading = Literal["stages", "last"]
MOST_STAGES = 5  # of a transformer's blocks: as many as a ResNet has, evenly spaced, the last one among them


class ReadOut(nn.Module):
    """A timm network read at every stage: [B, C, H, W] -> [B, D] with `num_features` = D.

    D is three times the channels of all stages (mean, standard deviation, maximum over the positions of each) plus the
    network's own pooled features. The weights are those of `network`, under their own names.
    """

    def __init__(self, network: nn.Module, bands: int, size: int):
        super().__init__()
        self.network = network
        if not hasattr(network, "forward_intermediates"):
            raise ConfigError(
                "the network has no stages to read", found=type(network).__name__, remedy="choose --reading last"
            )
        training = network.training
        network.eval()
        with torch.no_grad():
            like = next(network.parameters())
            self.num_features = self(torch.zeros(1, bands, size, size, device=like.device, dtype=like.dtype)).shape[1]
        network.train(training)

    def forward(self, x: Tensor) -> Tensor:
        last, stages = self.network.forward_intermediates(x)  # type: ignore[operator] # timm's
        read = [part for stage in evenly(stages) for part in pooled(stage)]
        return torch.cat([*read, self.network.forward_head(last).float()], dim=1)  # type: ignore[operator]


def evenly(stages: Sequence[Tensor]) -> list[Tensor]:
    """At most `MOST_STAGES` of the stages, evenly spaced, the last one among them."""
    count = min(MOST_STAGES, len(stages))
    return [stages[round((i + 1) * len(stages) / count) - 1] for i in range(count)]


def pooled(maps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, standard deviation and maximum over the positions of maps [B, C, h, w]; each float32 [B, C]."""
    flat = maps.flatten(2).float()
    return flat.mean(2), (flat.var(2, unbiased=False) + 1e-5).sqrt(), flat.amax(2)  # a root of 0 has no gradient


def network_of(model: nn.Module) -> nn.Module:
    """The timm network inside a backbone, whichever way it is read."""
    return model.network if isinstance(model, ReadOut) else model
