"""VICReg (Bardes et al., 'VICReg: variance-invariance-covariance regularization', ICLR 2022).

Two views of a cube agree (invariance), each output varies over the batch (variance), no two outputs carry the same
(covariance). It needs neither negatives, nor a teacher, nor a large batch, which suits small cohorts. Loss and head are
lightly's.
"""

from __future__ import annotations

import torch
from lightly.loss import VICRegLoss
from lightly.models.modules.heads import VICRegProjectionHead
from pydantic import Field
from torch import Tensor, nn

from synthgen.config import Config
from synthgen.ssl.backbone import feature_count
from synthgen.ssl.evaluation.monitors import feature_std
from synthgen.ssl.methods.base import TwoViews
from synthgen.ssl.methods.distributed import gathered, own


class VICRegConfig(Config):
    """Settings of VICReg. The head is narrow (the paper has 8192): a covariance of d outputs needs batches near d."""

    invariance: float = Field(default=25.0, gt=0, description="weight of the squared distance of two views (lambda)")
    variance: float = Field(
        default=25.0, ge=0, description="weight of the hinge on each output's standard deviation (mu)"
    )
    covariance: float = Field(default=1.0, ge=0, description="weight of the squared covariances (nu)")
    hidden_dim: int = Field(default=512, ge=1, description="width of the projection head")
    output_dim: int = Field(default=256, ge=2, description="dimension in which views are compared")


class VICReg(TwoViews):
    """Backbone, projection head and loss.

    Args:
        backbone: [B, C, H, W] -> [B, D] with `num_features` = D; it is what is exported.
        gather: take variance and covariance over the views of all processes. The gradients, averaged over the
            processes, are then those of one process with the whole batch.
    """

    def __init__(self, backbone: nn.Module, config: VICRegConfig | None = None, gather: bool = False):
        super().__init__()
        config = config or VICRegConfig()
        self.config, self.backbone, self.gather = config, backbone, gather
        self.head = VICRegProjectionHead(feature_count(backbone), config.hidden_dim, config.output_dim)
        self.criterion = VICRegLoss(config.invariance, config.variance, config.covariance)

    def objective(self, features: Tensor, *context: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of features [2, B, D], and scalars to log.

        `per_sample`: a cube's own distance of views, and what variance and covariance add to all alike.
        """
        with torch.autocast(features.device.type, enabled=False):  # variances and covariances need full precision
            both = gathered(features.float()) if self.gather else features.float()
            z0, z1 = self.head(both.flatten(0, 1)).chunk(2)
            loss = self.criterion(z0, z1)
        distance = self.config.invariance * (z0 - z1).detach().square().mean(1)
        per_sample = distance + (loss.detach() - distance.mean())
        self.per_sample = own(per_sample) if self.gather else per_sample
        return loss, {"feature_std": feature_std(features.detach().flatten(0, 1))}
