"""Where the synthetic samples of a batch come from: the pool, or accepted shards read back."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from synthgen.contracts import Provenance, Status
from synthgen.errors import InputError
from synthgen.integration.supply.pool import SyntheticPool
from synthgen.integration.supply.rolling_window import Window
from synthgen.integration.supply.variants import Variants
from synthgen.science.epoch_order import epoch_order


class ShardCubes:
    """Accepted synthetic cubes of a shard folder, drawn in one permutation after another; same face as the pool.

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
        self.proposed = self.accepted = len(ids)

    def first(self, n: int) -> Tensor:
        """Cubes float32 [n, C, H, W] to look at: the first ones; no draw."""
        return self.cubes_at(torch.arange(min(n, len(self.ids))))

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


class Supply:
    """The synthetic half of the batches: a pool or shards, what it was certified as, where it came from; and the
    variants of real cubes, where cross-source views are asked for.
    """

    def __init__(self, source: SyntheticPool | ShardCubes | None, stamp: Status | None, hash: str | None = None):
        self.source, self.certified, self.generator_hash = source, stamp, hash
        self.provenance: tuple[Provenance, ...] = ()
        self.variants: Variants | None = None
        self._told = False

    def counters(self) -> dict[str, float]:
        """What the metrics show."""
        return {k: v for part in (self.source, self.variants) if part is not None for k, v in part.counters().items()}

    @property
    def window(self) -> Window | None:
        """The window that watches the pool, where one does."""
        return self.source.window if isinstance(self.source, SyntheticPool) else None

    @property
    def failed_at(self) -> int | None:
        """The step in which the set gates failed the window on some rank."""
        return None if self.window is None else self.window.failed_at

    @property
    def gates(self) -> str | None:
        """What the metrics say of the gates: pass, uncertified, 'stopped at step 120'; None without synthetic cubes."""
        if self.failed_at is not None and self.window is not None:
            return f"{'stopped' if self.window.closes else 'failed'} at step {self.failed_at}"
        return None if self.certified is None else str(self.certified)

    @property
    def stamp(self) -> str | None:
        """What the backbone is stamped with: pass, uncertified, 'uncertified after step 120'."""
        if self.failed_at is not None:
            return f"uncertified after step {self.failed_at}"
        return None if self.certified is None else str(self.certified)

    def news(self) -> str | None:
        """One line, once, when the window has failed."""
        if self.failed_at is None or self.window is None or self._told:
            return None
        self._told = True
        assert isinstance(self.source, SyntheticPool)
        judged = self.window.verdict
        own = judged is not None and self.window.failed
        reason = judged.reason if own and judged is not None else "on another process"
        said = f"gates: the set gates failed the last {len(self.window.rows)} admitted cubes at step {self.failed_at} "
        said += f"({reason}); "
        if not self.window.closes:
            return f"{said}they are used all the same (--gates report)"
        return (
            f"{said}no more synthetic cubes are admitted. Training goes on from the "
            f"{len(self.source.draw_count)} at hand, each drawn as often as needed; "
            f"the backbone is stamped '{self.stamp}'"
        )
