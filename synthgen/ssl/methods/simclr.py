"""SimCLR (Chen et al., 'A simple framework for contrastive learning of visual representations', ICML 2020).

Two views of a cube attract each other and repel all other views of the batch. Loss and head are lightly's.
"""

from __future__ import annotations

import torch
from lightly.loss import NTXentLoss
from lightly.models.modules import SimCLRProjectionHead
from pydantic import Field
from torch import Tensor, nn

from synthgen.config import Config
from synthgen.ssl.backbone import feature_count
from synthgen.ssl.evaluation.monitors import feature_std
from synthgen.ssl.methods.base import TwoViews
from synthgen.ssl.methods.distributed import gathered, own


class SimCLRConfig(Config):
    """Settings of SimCLR."""

    temperature: float = Field(default=0.2, gt=0, description="of the softmax over negatives; low for small batches")
    hidden_dim: int = Field(default=512, ge=1, description="width of the projection head")
    output_dim: int = Field(default=128, ge=1, description="dimension in which views are compared")


class SimCLR(TwoViews):
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

    def objective(self, features: Tensor, *context: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of features [2, B, D], and scalars to log."""
        with torch.autocast(features.device.type, enabled=False):  # similarities / temperature overflow half precision
            both = gathered(features.float()) if self.gather else features.float()
            z0, z1 = self.head(both.flatten(0, 1)).chunk(2)
            per_view = self.criterion(z0, z1)
        per_sample = per_view.detach().view(2, -1).mean(0)
        self.per_sample = own(per_sample) if self.gather else per_sample
        return per_view.mean(), {"feature_std": feature_std(features.detach().flatten(0, 1))}
