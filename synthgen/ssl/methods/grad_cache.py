"""A batch larger than the memory holds, with the contrastive batch kept whole (Gao et al., 'Scaling deep contrastive
learning batch size under memory limited setup', RepL4NLP 2021: GradCache).

Ordinary accumulation would compare a cube only with those of its own part. Here every part is embedded without a graph,
the loss and its gradient by the features are taken over the whole batch, and then each part is embedded again and the
gradient of its features carried back. It costs one more forward pass of the backbone, and memory for one part.

For a backbone without batch norm and dropout the gradients are those of the whole batch. Batch norm sees one part at a
time, so it is a little noisier. Random layers (dropout, stochastic depth) draw the same numbers both times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
import torch.distributed as dist
from torch import Tensor, nn

from synthgen.runs import randomness
from synthgen.ssl.methods.base import Method
from synthgen.ssl.methods.distributed import check_batch


def in_parts(
    method: Method,
    views: Sequence[Tensor],
    parts: int,
    autocast: Callable[[], AbstractContextManager] = nullcontext,
) -> tuple[Tensor, dict[str, Tensor], Callable[[], None]]:
    """The loss of a batch whose backbone runs on `parts` parts of it, one after the other.

    Args:
        method: not wrapped for several processes; `average_gradients` after the way back does what the wrapper would.
        views: as its `forward` takes them.
        autocast: makes the context of mixed precision.

    Returns:
        the loss, the scalars to log, and the way back: call it once, after `loss.backward()`.
    """
    check_batch(len(views[0]))
    pieces = list(zip(*(view.tensor_split(parts) for view in views), strict=True))
    states, kept, context = [], [], []
    for piece in pieces:
        states.append(randomness.capture())
        with torch.no_grad(), autocast():
            kept.append(method.embed(piece).float())
            context.append(method.context(piece))
    leaf = torch.cat(kept, dim=1).requires_grad_()
    with autocast():
        loss, measured = method.objective(leaf, *(torch.cat(same, dim=1) for same in zip(*context, strict=True)))

    def back() -> None:
        assert leaf.grad is not None
        after = randomness.capture()
        gradients = leaf.grad.split([part.shape[1] for part in kept], dim=1)
        with _still_statistics(method):
            for piece, state, gradient in zip(pieces, states, gradients, strict=True):
                randomness.restore(state)
                with autocast():
                    features = method.embed(piece)
                features.backward(gradient.to(features.dtype))
        randomness.restore(after)

    return loss, measured, back


def average_gradients(method: Method) -> None:
    """The gradients of all processes, averaged, in one message; nothing to do in one process."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return
    gradients = [p.grad for p in method.trainable_parameters() if p.grad is not None]
    flat = torch.cat([g.reshape(-1) for g in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


@contextmanager
def _still_statistics(method: nn.Module) -> Iterator[None]:
    """Batch norm's running statistics stay as the first embedding of the parts has left them."""
    norms = [m for m in method.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    kept = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, kept, strict=True):
            norm.momentum = momentum
