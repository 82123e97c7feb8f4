"""Where the samples of a batch come from: real cubes, the pool, and accepted shards read back."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Literal

import numpy as np
import psutil
import torch
from torch import Tensor

from synthgen.contracts import Provenance, Status
from synthgen.cubes.cohort import Cohort
from synthgen.errors import InputError
from synthgen.integration.pool import SyntheticPool
from synthgen.integration.variants import Variants
from synthgen.integration.window import Window
from synthgen.runs.randomness import numpy_stream

HELD_SHARE = 0.5  # of the free memory of a machine (shared by its processes) that real cubes may take
DEVICE_SHARE = 0.25  # of the free memory of a GPU


class RealCubes:
    """The real cubes of some patients of a cohort: held where they fit, else streamed from the file.

    `kept` says where: "device" (a quarter of a GPU's free memory holds them), "memory" (half of the free memory does),
    or "file": then a thread reads the cubes of the next step, announced by `expect`, while this one computes.

    Args:
        cohort: the cohort.
        patients: whose cubes to use.
        device: where batches are wanted.
        free: bytes of memory that may be used; measured by default.
    """

    def __init__(self, cohort: Cohort, patients: tuple[str, ...], device: torch.device, free: int | None = None):
        self.cohort, self.device = cohort, device
        self.index = cohort.index_of(patients)
        if not len(self.index):
            raise InputError("has no cube of the training patients", path=cohort.path)
        size = 4 * len(self.index) * cohort.bands * cohort.height * cohort.width
        here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        free = int(psutil.virtual_memory().available * HELD_SHARE / here) if free is None else free
        self.kept: Literal["device", "memory", "file"] = "memory" if size <= free else "file"
        self._held: Tensor | None = None
        if self.kept == "memory":
            self._held = torch.from_numpy(cohort.cubes(self.index))
            if device.type == "cuda" and size <= torch.cuda.mem_get_info(device)[0] * DEVICE_SHARE:
                self._held, self.kept = self._held.to(device), "device"
        self._reader = ThreadPoolExecutor(1, "real cubes") if self.kept == "file" else None
        self._coming: tuple[tuple[int, ...], Future[Tensor]] | None = None

    def __len__(self) -> int:
        return len(self.index)

    def draw(self, positions: np.ndarray) -> tuple[Tensor, Tensor]:
        """Cubes float32 [n, C, H, W] and their indices in the cohort int64 [n], on the device."""
        if self._held is not None:
            cubes = self._held[torch.from_numpy(positions).to(self._held.device)]
        else:
            announced, self._coming = self._coming, None
            known = announced is not None and announced[0] == tuple(positions)
            cubes = announced[1].result() if known and announced is not None else self._read(positions)
        places = torch.from_numpy(self.index[positions])
        return self._to_device(cubes), self._to_device(places)

    def expect(self, positions: np.ndarray) -> None:
        """Begin to read the cubes that the next `draw` will want; nothing to do where all are held."""
        if self._reader is not None:
            self._coming = tuple(positions), self._reader.submit(self._read, positions)

    def _read(self, positions: np.ndarray) -> Tensor:
        return torch.from_numpy(self.cohort.cubes(self.index[positions]))

    def _to_device(self, values: Tensor) -> Tensor:
        if self.device.type == "cuda" and values.device.type == "cpu":
            return values.pin_memory().to(self.device, non_blocking=True)
        return values.to(self.device)


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
        epochs, within = np.divmod(places, len(self.ids))
        picked = np.empty(n, dtype=np.int64)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            order = numpy_stream(self.seed, "shards", self.rank, int(epoch)).permutation(len(self.ids))
            picked[here] = order[within[here]]
        self.drawn += n
        which = torch.from_numpy(picked)
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
            f"{said}no more synthetic cubes are admitted. Training goes on from the {len(self.source.uses)} at hand, "
            f"each drawn as often as needed; the backbone is stamped '{self.stamp}'"
        )
