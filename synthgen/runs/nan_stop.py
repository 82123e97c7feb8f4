"""Stop after several non-finite losses running, before they reach the weights."""

from __future__ import annotations

import math

from synthgen.errors import NonFiniteError


class NanStop:
    """Call with each loss *before* the optimiser step: True means 'skip this step'.

    Raises NonFiniteError after `patience` non-finite losses in succession (DINOv3 aborts after 3 as well).
    """

    def __init__(self, patience: int = 3):
        self.patience, self.running, self.total = patience, 0, 0

    def __call__(self, loss: float, step: int) -> bool:
        if math.isfinite(loss):
            self.running = 0
            return False
        self.running += 1
        self.total += 1
        if self.running >= self.patience:
            raise NonFiniteError(
                f"the loss was not finite {self.running} times running, at step {step}",
                found=loss,
                remedy="the last good checkpoint is kept; lower the learning rate and resume from it",
            )
        return True
