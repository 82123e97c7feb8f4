"""What the training loop asks of a self-supervised method. SimCLR, VICReg, DINO and the statistics of a cube answer it.

A new method is a subclass with `crops`, `embed` and `objective`. Beyond these:
- it is made by `(backbone, config, gather)`, and its frozen config is the field of `Pretraining` that has its name;
- with `gather`, head and loss see the features of all processes (`distributed.gathered`), so that the gradients,
  averaged over the processes, are those of one process with the whole batch;
- all that a resumed run needs is in `state_dict` (see DINO: `get_extra_state`);
- the mean of `per_sample` is the loss, and a batch of one cube is refused.
`tests/ssl/methods/test_methods.py` holds every method of `integration.method.METHODS` to that.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from synthgen.ssl.augment.pipeline import Augmenter, Crop
from synthgen.ssl.methods.distributed import check_batch


class Method(nn.Module, ABC):
    """backbone: [B, C, H, W] -> [B, D], what is exported. per_sample: the loss of each cube [B] of the last batch,
    detached: the way to log the loss of real and of synthetic cubes."""

    backbone: nn.Module

    def __init__(self):
        super().__init__()
        self.per_sample = torch.zeros(0)

    @property
    def learner(self) -> nn.Module:
        """The network that gradients reach; with a teacher it is not the one that is exported."""
        return self.backbone

    @abstractmethod
    def crops(self, augmenter: Augmenter) -> list[Crop]:
        """The views that `forward` takes."""

    def forward(self, views: Sequence[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Standardised views, each [B, C, H, W] -> the loss and scalars to log (`feature_std`), detached."""
        check_batch(len(views[0]))
        return self.objective(self.embed(views), *self.context(views))

    @abstractmethod
    def embed(self, views: Sequence[Tensor]) -> Tensor:
        """Features [V, B, D] of the network that learns, with gradient. Apart from the loss, so that a batch can be
        embedded in parts (`grad_cache`)."""

    def context(self, views: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Whatever else the objective takes of the views, each [V, B, ...], without gradient."""
        return ()

    @abstractmethod
    def objective(self, features: Tensor, *context: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of the features [V, B, D] of the whole batch, and scalars to log; sets `per_sample`."""

    def after_step(self, step: int, total: int) -> None:
        """What moves outside the optimiser, after its step; `step` counts from 0."""

    def trainable_parameters(self) -> Iterator[nn.Parameter]:
        return (p for p in self.parameters() if p.requires_grad)


class TwoViews(Method):
    """A method that compares two whole views."""

    def crops(self, augmenter: Augmenter) -> list[Crop]:
        return [augmenter.whole] * 2

    def embed(self, views: Sequence[Tensor]) -> Tensor:
        """Features [2, B, D]; both views go through the network as one batch, so that batch norm sees them together."""
        return self.backbone(torch.cat(list(views))).unflatten(0, (2, -1))
