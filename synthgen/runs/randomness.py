"""Private random streams, keyed by what they are for, so that no stream disturbs another; global states to resume."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from synthgen.runs.keys import key, numpy_stream

__all__ = ["capture", "key", "numpy_stream", "restore", "sample_noise", "stream"]


def stream(*parts: int | str, device: str | torch.device = "cpu") -> torch.Generator:
    """A torch generator of its own, keyed by `parts`."""
    return torch.Generator(device=device).manual_seed(key(*parts))


def sample_noise(seed: int, ids: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Standard normal noise [len(ids), *shape], float32 on the CPU; row k depends on (seed, ids[k]) alone."""
    rows = [torch.randn(tuple(shape), generator=stream("sample", int(seed), int(i))) for i in ids]
    return torch.stack(rows) if rows else torch.empty((0, *shape))


def capture() -> dict[str, Any]:
    """The global random states of python, numpy and torch (with every CUDA device), as plain data and tensors."""
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(legacy=False),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore(states: dict[str, Any]) -> None:
    """Put back what `capture` took."""
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    torch.set_rng_state(states["torch"])
    if states["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["cuda"])
