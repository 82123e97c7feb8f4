"""SimCLR (Chen et al., 'A simple framework for contrastive learning of visual representations', ICML 2020).

Two views of a cube attract each other and repel all other views of the batch. Loss and head are lightly's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from lightly.loss import NTXentLoss
from lightly.models.modules import SimCLRProjectionHead
from pydantic import Field
from torch import Tensor, nn

from synthgen.config import Config
from synthgen.errors import ConfigError
from synthgen.ssl.augment import Augmenter, Crop
from synthgen.ssl.monitors import feature_std


class SimCLRConfig(Config):
    """Settings of SimCLR."""

    temperature: float = Field(0.2, gt=0, description="of the softmax over negatives; low for small batches")
    hidden_dim: int = Field(512, ge=1, description="width of the projection head")
    output_dim: int = Field(128, ge=1, description="dimension in which views are compared")


class SimCLR(nn.Module):
    """Backbone, projection head and contrastive loss.

    Args:
        backbone: [B, C, H, W] -> [B, D] with `num_features` = D; it is what is exported.
        gather: take the other processes' views as negatives too. The gradients, averaged over the processes, are then
            those of one process with the whole batch.
    """

    def __init__(self, backbone: nn.Module, config: SimCLRConfig | None = None, gather: bool = False):
        super().__init__()
        config = config or SimCLRConfig()
        self.config, self.backbone = config, backbone
        self.head = SimCLRProjectionHead(backbone.num_features, config.hidden_dim, config.output_dim)
        self.criterion = NTXentLoss(temperature=config.temperature, gather_distributed=gather)
        self.criterion.cross_entropy = nn.CrossEntropyLoss(reduction="none")  # one loss per view, averaged below
        self.per_sample = torch.zeros(0)

    def crops(self, augmenter: Augmenter) -> list[Crop]:
        """The views that `forward` takes: two whole ones."""
        return [augmenter.whole] * 2

    def forward(self, views: Sequence[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Two standardised views, each [B, C, H, W] -> the loss and scalars to log (`feature_std`), detached.

        Both views go through the network as one batch, so that batch norm sees them together. `per_sample` [B] then
        holds the loss of each cube, detached: the way to log the loss of real and of synthetic cubes.
        """
        first, second = views
        if len(first) < 2:
            raise ConfigError("a batch needs at least two cubes", found=len(first), remedy="raise batch_size")
        features = self.backbone(torch.cat([first, second]))
        with torch.autocast(features.device.type, enabled=False):  # similarities / temperature overflow half precision
            z0, z1 = self.head(features.float()).chunk(2)
            per_view = self.criterion(z0, z1)
        self.per_sample = per_view.detach().view(2, -1).mean(0)
        return per_view.mean(), {"feature_std": feature_std(features.detach())}

    def after_step(self, step: int, total: int) -> None:
        """Nothing moves outside the optimiser."""

    def trainable_parameters(self) -> Iterator[nn.Parameter]:
        return (p for p in self.parameters() if p.requires_grad)
