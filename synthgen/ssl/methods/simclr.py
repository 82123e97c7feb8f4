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
from synthgen.ssl.augment.pipeline import Augmenter, Crop
from synthgen.ssl.backbone import feature_count
from synthgen.ssl.evaluation.monitors import feature_std
from synthgen.ssl.methods.distributed import check_batch, gathered, own


class SimCLRConfig(Config):
    """Settings of SimCLR."""

    temperature: float = Field(default=0.2, gt=0, description="of the softmax over negatives; low for small batches")
    hidden_dim: int = Field(default=512, ge=1, description="width of the projection head")
    output_dim: int = Field(default=128, ge=1, description="dimension in which views are compared")


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
        self.config, self.backbone, self.gather = config, backbone, gather
        self.head = SimCLRProjectionHead(feature_count(backbone), config.hidden_dim, config.output_dim)
        self.criterion = NTXentLoss(temperature=config.temperature)
        self.criterion.cross_entropy = nn.CrossEntropyLoss(reduction="none")  # one loss per view, averaged below
        self.per_sample = torch.zeros(0)

    def crops(self, augmenter: Augmenter) -> list[Crop]:
        """The views that `forward` takes: two whole ones."""
        return [augmenter.whole] * 2

    def forward(self, views: Sequence[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Two standardised views, each [B, C, H, W] -> the loss and scalars to log (`feature_std`), detached.

        `per_sample` [B] then holds the loss of each cube, detached: the way to log the loss of real and of synthetic
        cubes.
        """
        check_batch(len(views[0]))
        return self.objective(self.embed(views))

    def context(self, views: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Nothing but the features goes into the objective."""
        return ()

    def embed(self, views: Sequence[Tensor]) -> Tensor:
        """Features [2, B, D]; both views go through the network as one batch, so that batch norm sees them together."""
        return self.backbone(torch.cat(list(views))).unflatten(0, (2, -1))

    def objective(self, features: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of features [2, B, D], and scalars to log."""
        with torch.autocast(features.device.type, enabled=False):  # similarities / temperature overflow half precision
            both = gathered(features.float()) if self.gather else features.float()
            z0, z1 = self.head(both.flatten(0, 1)).chunk(2)
            per_view = self.criterion(z0, z1)
        per_sample = per_view.detach().view(2, -1).mean(0)
        self.per_sample = own(per_sample) if self.gather else per_sample
        return per_view.mean(), {"feature_std": feature_std(features.detach().flatten(0, 1))}

    def after_step(self, step: int, total: int) -> None:
        """Nothing moves outside the optimiser."""

    def trainable_parameters(self) -> Iterator[nn.Parameter]:
        return (p for p in self.parameters() if p.requires_grad)
