"""Accepted shards read back as the source of synthetic samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from synthgen.errors import InputError
from synthgen.integration.supply.source import OPEN
from synthgen.science.epoch_order import epoch_order

PREVIEWED = 32  # cubes decoded at a time


class ShardCubes:
    """Accepted synthetic cubes of a shard folder, drawn in one permutation after another.

    Each rank holds and draws its own share (id modulo the number of ranks), so ids are disjoint across ranks.

    Args:
        ids: int64 [N] of this rank's cubes. cubes_at: rows int64 [n] -> cubes float32 [n, C, H, W].
        device: where batches are wanted.
    """

    def __init__(
        self, ids: Tensor, cubes_at: Callable[[Tensor], Tensor], device: torch.device, seed: int, rank: int = 0
    ):
        self.ids, self.cubes_at, self.device = ids, cubes_at, device
        self.seed, self.rank, self.drawn = seed, rank, 0
        self.proposed = self.accepted = self.held = len(ids)
        self.admission = OPEN

    def preview(self, count: int, seed: int) -> Iterator[Tensor]:
        """The first `count` cubes, in parts."""
        for rows in torch.arange(min(count, self.held)).split(PREVIEWED):
            yield self.cubes_at(rows)

    def draw(self, n: int, step: int) -> tuple[Tensor, Tensor]:
        """Cubes float32 [n, C, H, W] and ids int64 [n]; InputError when a batch needs more cubes than there are."""
        if n > len(self.ids):
            raise InputError(
                "the shards hold too few accepted cubes for a batch",
                found=len(self.ids),
                expected=f"at least {n} on each rank",
                remedy="write more shards, or lower --batch-size or --synthetic-ratio",
            )
        places = self.drawn + np.arange(n)
        which = torch.from_numpy(epoch_order(places, len(self.ids), self.seed, "shards", self.rank))
        self.drawn += n
        return self.cubes_at(which).to(self.device), self.ids[which].to(self.device)

    def counters(self) -> dict[str, float]:
        return {"supply/distinct": len(self.ids), "supply/draws_per_id": self.drawn / max(len(self.ids), 1)}

    def state_dict(self) -> dict:
        return {"drawn": self.drawn}

    def load_state_dict(self, state: dict) -> None:
        self.drawn = state["drawn"]
