"""Predicting the statistics of a cube: a method of its own, and a task beside the other methods.

Contrast throws away what does not distinguish two cubes; this keeps what describes them. A linear layer on features
predicts the statistics (`ssl.spectral_statistics`) of the cube that the network sees, so features are to hold them in
a form that a linear probe reads. The view is clean: under changed light, noise and lost bands the weak axes of the
spectra, which carry pigment and vessels, could not be predicted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from synthgen.ssl.augment.pipeline import Augmenter, Crop
from synthgen.ssl.backbone import feature_count
from synthgen.ssl.evaluation.monitors import feature_std
from synthgen.ssl.methods.base import Method
from synthgen.ssl.methods.distributed import gathered, own
from synthgen.ssl.spectral_statistics import SpectralStatistics


def described(augmenter: Augmenter) -> Crop:
    """The view whose statistics are predicted: the whole cube, flipped or not. A crop would hide the size of things."""
    return Crop((1.0, 1.0), augmenter.size, clean=True)


class StatisticsTask(nn.Module):
    """The linear layer and its loss: mean squared error of the K whitened statistics, each by its weight.

    Args:
        features: D. gather: over the cubes of all processes, as in SimCLR.
    """

    def __init__(self, features: int, targets: SpectralStatistics, gather: bool = False):
        super().__init__()
        self.targets, self.gather = targets, gather
        self.norm = nn.BatchNorm1d(features, affine=False)  # stages differ in scale by orders of magnitude
        self.head = nn.Linear(features, targets.count)

    def forward(self, features: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        """The loss over the cubes of all processes, and of each of these B (detached), from features [1, B, D] and
        statistics [1, B, K]."""
        features, wanted = features.float(), wanted.float()
        if self.gather:
            features, wanted = gathered(features), gathered(wanted)
        with torch.autocast(features.device.type, enabled=False):
            error = (self.head(self.norm(features[0])) - wanted[0]).square()
            per_sample = (error * self.targets.weight).mean(1)
        return per_sample.mean(), own(per_sample.detach()) if self.gather else per_sample.detach()


class Statistics(Method):
    """The task alone, on one view: half the cost of a method that compares two.

    Args:
        backbone: [B, C, H, W] -> [B, D] with `num_features` = D; it is what is exported.
        gather: take the loss over all processes; the gradients are then those of one process with the whole batch.
    """

    def __init__(self, backbone: nn.Module, targets: SpectralStatistics, gather: bool = False):
        super().__init__()
        self.backbone, self.task = backbone, StatisticsTask(feature_count(backbone), targets, gather)

    def crops(self, augmenter: Augmenter) -> list[Crop]:
        """The view that `forward` takes."""
        return [described(augmenter)]

    def context(self, views: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The statistics [1, B, K] to be predicted."""
        return (self.task.targets(views[0])[None],)

    def embed(self, views: Sequence[Tensor]) -> Tensor:
        """Features [1, B, D]."""
        return self.backbone(views[0])[None]

    def objective(self, features: Tensor, *context: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of features [1, B, D] and statistics [1, B, K], and scalars to log."""
        (wanted,) = context
        loss, self.per_sample = self.task(features, wanted)
        return loss, {"feature_std": feature_std(features.detach().flatten(0, 1))}


class WithStatistics(Method):
    """A method and, beside it, the task on a clean view: the losses are added, the task's times `weight`."""

    def __init__(self, method: Method, targets: SpectralStatistics, weight: float = 20.0, gather: bool = False):
        super().__init__()
        self.method, self.weight = method, weight
        self.task = StatisticsTask(feature_count(self.learner), targets, gather)

    @property
    def backbone(self) -> nn.Module:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.method.backbone

    @property
    def learner(self) -> nn.Module:
        return self.method.learner

    def crops(self, augmenter: Augmenter) -> list[Crop]:
        """The method's views, then the clean one."""
        return [*self.method.crops(augmenter), described(augmenter)]

    def context(self, views: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """What the method takes, then the statistics [1, B, K] to be predicted."""
        return *self.method.context(views[:-1]), self.task.targets(views[-1])[None]

    def embed(self, views: Sequence[Tensor]) -> Tensor:
        """Features [V + 1, B, D]: the method's, then those of the clean view."""
        return torch.cat([self.method.embed(views[:-1]), self.learner(views[-1])[None]])

    def objective(self, features: Tensor, *context: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of the features [V + 1, B, D], and scalars to log."""
        loss, measured = self.method.objective(features[:-1], *context[:-1])
        statistics_loss, per_sample = self.task(features[-1:], context[-1])
        self.per_sample = self.method.per_sample + self.weight * per_sample
        return loss + self.weight * statistics_loss, {**measured, "statistics_loss": statistics_loss.detach()}

    def after_step(self, step: int, total: int) -> None:
        self.method.after_step(step, total)

    def trainable_parameters(self) -> Iterator[nn.Parameter]:
        yield from self.method.trainable_parameters()
        yield from self.task.parameters()
