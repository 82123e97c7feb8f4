"""VICReg (Bardes et al., 'VICReg: variance-invariance-covariance regularization', ICLR 2022).

Two views of a cube agree (invariance), each output varies over the batch (variance), no two outputs carry the same
(covariance). It needs neither negatives, nor a teacher, nor a large batch, which suits small cohorts. Loss and head are
lightly's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from lightly.loss import VICRegLoss
from lightly.models.modules.heads import VICRegProjectionHead
from pydantic import Field
from torch import Tensor, nn

from synthgen.config import Config
from synthgen.ssl.augment.pipeline import Augmenter, Crop
from synthgen.ssl.backbone import feature_count
from synthgen.ssl.evaluation.monitors import feature_std
from synthgen.ssl.methods.distributed import check_batch, gathered, own


class VICRegConfig(Config):
    """Settings of VICReg. The head is narrow (the paper has 8192): a covariance of d outputs needs batches near d."""

    invariance: float = Field(default=25.0, gt=0, description="weight of the squared distance of two views (lambda)")
    variance: float = Field(
        default=25.0, ge=0, description="weight of the hinge on each output's standard deviation (mu)"
    )
    covariance: float = Field(default=1.0, ge=0, description="weight of the squared covariances (nu)")
    hidden_dim: int = Field(default=512, ge=1, description="width of the projection head")
    output_dim: int = Field(default=256, ge=2, description="dimension in which views are compared")


class VICReg(nn.Module):
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
        self.per_sample = torch.zeros(0)

    def crops(self, augmenter: Augmenter) -> list[Crop]:
        """The views that `forward` takes: two whole ones."""
        return [augmenter.whole] * 2

    def forward(self, views: Sequence[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Two standardised views, each [B, C, H, W] -> the loss and scalars to log (`feature_std`), detached.

        `per_sample` [B] then holds the loss of each cube, detached: its own distance of views, and what variance and
        covariance add to all alike.
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
        with torch.autocast(features.device.type, enabled=False):  # variances and covariances need full precision
            both = gathered(features.float()) if self.gather else features.float()
            z0, z1 = self.head(both.flatten(0, 1)).chunk(2)
            loss = self.criterion(z0, z1)
        distance = self.config.invariance * (z0 - z1).detach().square().mean(1)
        per_sample = distance + (loss.detach() - distance.mean())
        self.per_sample = own(per_sample) if self.gather else per_sample
        return loss, {"feature_std": feature_std(features.detach().flatten(0, 1))}

    def after_step(self, step: int, total: int) -> None:
        """Nothing moves outside the optimiser."""

    def trainable_parameters(self) -> Iterator[nn.Parameter]:
        return (p for p in self.parameters() if p.requires_grad)
