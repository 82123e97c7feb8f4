"""The optimiser steps of every training: a loss or a gradient that is not finite never reaches the weights."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from synthgen.errors import NonFiniteError
from synthgen.runs.checkpoint import Checkpoints
from synthgen.runs.finite import in_words, not_finite
from synthgen.runs.processes.ranks import any_rank

PATIENCE = 3  # steps left out running; DINOv3 gives up after 3 as well
OFTEN, OFTEN_FROM = 0.1, 10  # or more than this fraction of all steps, once there are so many
SCALER_PATIENCE = 25  # under fp16 the scaler halves its factor at each: from 65536 down to 0.002, and nothing helps
OTHER_SEED = "try again with another --seed, or with --device cpu"  # of trainings whose rate is fixed
REPORTED = 5  # steps left out are reported one by one, later ones only counted


class Taken(NamedTuple):
    """What came of a step: the loss (mean over processes), the gradient's norm before clipping, whether it was made."""

    loss: float
    norm: float
    made: bool


class StepGuard:
    """Makes the steps of one optimiser: backward pass, clipping, a look at loss and gradient norm, step.

    Where one of the two is not finite the step is left out, so weights and optimiser stay as they were, and a line says
    so. NonFiniteError ends the training when that goes on (`PATIENCE` times running, or one step in ten), and at once
    when the forward pass has left such values in the network itself (statistics of batch norms, codes): it could not
    be saved any more. Under fp16 the loss scaler leaves steps out by design, while it looks for its factor; those are
    neither reported nor an error before `SCALER_PATIENCE`.

    The norm is the one that clipping takes anyway, and both numbers are read from the device in one go. Loss and
    gradients are means over the processes, so all of them decide alike.

    Args:
        name: what is trained, as in "the autoencoder".
        networks: whose state must stay finite. parameters: those that are clipped; all of the networks by default.
        clip: largest norm of the gradient; None measures it and leaves it.
        accelerator: of a training that may have several processes or mixed precision.
        checkpoints: those of the run, to say whether there is one to go on from.
        remedy: what the user can do, where it is not a lower learning rate or another precision.
    """

    def __init__(
        self,
        name: str,
        optimizer: torch.optim.Optimizer,
        networks: Sequence[nn.Module],
        *,
        parameters: Iterable[nn.Parameter] | None = None,
        clip: float | None = None,
        accelerator: Accelerator | None = None,
        checkpoints: Checkpoints | None = None,
        remedy: str = "",
    ):
        self.name, self.optimizer, self.networks, self.clip = name, optimizer, tuple(networks), clip
        self.accelerator, self.checkpoints, self.remedy = accelerator, checkpoints, remedy
        own = (p for network in self.networks for p in network.parameters())
        self.parameters = list(own if parameters is None else parameters)
        self.scaled = accelerator is not None and accelerator.scaler is not None
        self.running = self.skipped = self.seen = 0

    def __call__(
        self, step: int, loss: Tensor, *, watched: Tensor | None = None, backward: Callable[[], None] | None = None
    ) -> Taken:
        """Step `step` (counted from 0) down the gradient of `loss`.

        Args:
            watched: the loss to look at and to return, where `loss` is a surrogate with the same gradient.
            backward: the backward pass, where it is more than that of `loss`.
        """
        self.optimizer.zero_grad(set_to_none=True)
        if backward is not None:
            backward()
        elif self.accelerator is not None:
            self.accelerator.backward(loss)
        else:
            loss.backward()
        norm = self._norm()
        shown = (loss if watched is None else watched).detach().float()
        if self.accelerator is not None:
            shown = self.accelerator.reduce(shown, "mean")
        value, size = torch.stack([shown.reshape(()), norm.to(shown.device).float().reshape(())]).tolist()
        self.seen += 1
        if math.isfinite(value) and math.isfinite(size):
            self.optimizer.step()
            self.running = 0
        else:
            if self.scaled:
                self.optimizer.step()  # left out by the scaler, which takes a smaller factor for the next
            self._left_out(step, value, size)
        self.optimizer.zero_grad(set_to_none=True)
        return Taken(value, size, self.running == 0)

    def _norm(self) -> Tensor:
        if self.accelerator is not None:  # it takes the scaler's factor off as well
            norm = self.accelerator.clip_grad_norm_(self.parameters, math.inf if self.clip is None else self.clip)
        elif self.clip is not None:
            norm = nn.utils.clip_grad_norm_(self.parameters, self.clip)
        else:
            norm = nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        return torch.as_tensor(norm)

    def _left_out(self, step: int, loss: float, norm: float) -> None:
        self.running += 1
        self.skipped += 1
        bad = not_finite([network.state_dict() for network in self.networks])
        if bool(bad) if self.accelerator is None else any_rank(bool(bad)):
            where = in_words(bad).partition(" in ")[2] if bad else "the network of another process"
            raise self._error(
                f"the forward pass of step {step + 1} left values that are not finite in {where}", loss, norm
            )
        often = self.skipped >= OFTEN_FROM and self.skipped > OFTEN * self.seen
        if self.running >= (SCALER_PATIENCE if self.scaled else PATIENCE) or (often and not self.scaled):
            count = f"{self.running} steps running" if not often else f"{self.skipped} of {self.seen} steps"
            raise self._error(f"loss or gradients were not finite in {count}, the last one step {step + 1}", loss, norm)
        main = self.accelerator is None or self.accelerator.is_main_process
        if main and not self.scaled and self.skipped <= REPORTED:
            more = "; further ones are only counted" if self.skipped == REPORTED else ""
            print(
                f"warning: {self.name}: step {step + 1} is left out, its loss or gradients are not finite "
                f"(loss {loss:.4g}, gradient norm {norm:.4g}, {self.precision}){more}",
                file=sys.stderr,
                flush=True,
            )

    @property
    def precision(self) -> str:
        """In which precision the training computes."""
        mixed = "no" if self.accelerator is None else str(self.accelerator.mixed_precision)
        return "fp32" if mixed == "no" else mixed

    def _error(self, what: str, loss: float, norm: float) -> NonFiniteError:
        steps = self.checkpoints.steps() if self.checkpoints is not None else []
        kept = f"; the checkpoint of step {steps[-1]} is kept" if steps else ""
        if self.precision != "fp32":
            remedy = ("go on with --resume" if steps else "begin again with") + " --precision fp32"
        else:
            remedy = self.remedy or "begin another run with a lower --learning-rate"
        measured = f"loss {loss:.4g}, gradient norm {norm:.4g}, computed in {self.precision}{kept}"
        return NonFiniteError(f"{self.name}: {what}", found=measured, remedy=remedy)
