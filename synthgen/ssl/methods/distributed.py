"""What the methods share: a batch is large enough, and its features are those of all processes."""

from __future__ import annotations

import torch
from lightly.utils import dist
from torch import Tensor

from synthgen.errors import ConfigError


def check_batch(count: int) -> None:
    """ConfigError for fewer than two cubes, of which nothing can be distinguished."""
    if count < 2:
        raise ConfigError("a batch needs at least two cubes", found=count, remedy="raise batch_size")


def gathered(features: Tensor) -> Tensor:
    """Features [V, b, D] of this process -> those of all W of them [V, W b, D], in order of rank, with gradient.

    Every process then computes the head and the loss of the whole batch (little beside a backbone). The gradients of
    the gathered features are summed over the processes, so what they average is the gradient of one process with the
    whole batch, batch norm of the head included.
    """
    return torch.cat(dist.gather(features.contiguous()), dim=1) if dist.world_size() > 1 else features


def own(values: Tensor) -> Tensor:
    """Of values [W b] of all processes, those of this one [b]."""
    return values.chunk(dist.world_size())[dist.rank()]
