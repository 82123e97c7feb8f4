"""Cross-source views: a generator's variant of a real cube stands in for one of its two views (MixDiff, WACV 2025).

The variant is the cube noised half way and sampled back, so both views show one eye, and whether a view is real says
nothing about which views belong together. Variants are kept as tokens and each serves a few times, as in the pool.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from synthgen.contracts import Gate, Tokens
from synthgen.errors import MismatchError
from synthgen.generator.generator import Generator
from synthgen.quality.per_cube.acceptance import COPY


class Variants:
    """Variants of real cubes, made when they are first needed and again after `reuse` draws.

    The v-th variant of cube i on rank r has the id (v n + i) W + r, so no two ranks make the same one, and what it
    looks like depends on the cube and (generator, seed, id) alone: a resumed run needs the counts of draws, no more.

    Args:
        generator: makes the variants.
        count: n, the number of cubes in the cohort.
        noise: time from which they are sampled back. steps, sampler: of the sampling.
        gates: a variant that they reject, for any other reason than its likeness to a training cube, is not shown; the
            cube itself takes its place, which is counted.
    """

    def __init__(
        self,
        generator: Generator,
        count: int,
        *,
        noise: float = 0.5,
        reuse: int = 8,
        seed: int = 0,
        steps: int = 8,
        sampler: str = "ab2",
        gates: Gate | None = None,
        rank: int = 0,
        world: int = 1,
    ):
        self.generator, self.count, self.noise, self.reuse, self.seed = generator, count, noise, reuse, seed
        self.steps, self.sampler, self.gates, self.rank, self.world = steps, sampler, gates, rank, world
        self.draw_count = np.zeros(count, dtype=np.int64)
        self.made = self.rejected = 0
        self._held: dict[int, Tokens | None] = {}  # by id; None: the gates turned it down

    def draw(self, cubes: Tensor, index: Tensor) -> Tensor:
        """The variants of reflectance cubes [n, C, H, W] with their places in the cohort, int64 [n]."""
        places = index.cpu().numpy()
        version = self.draw_count[places] // self.reuse
        ids = ((version * self.count + places) * self.world + self.rank).tolist()
        missing = [row for row, name in enumerate(ids) if name not in self._held]
        if missing:
            # else it is one that a resume lost, counted before
            fresh = self.draw_count[places[missing]] % self.reuse == 0
            self._make(cubes[missing], [ids[row] for row in missing], fresh)
        np.add.at(self.draw_count, places, 1)
        result = cubes.clone()
        shown = [(row, tokens) for row, name in enumerate(ids) if (tokens := self._held[name]) is not None]
        if shown:
            rows = torch.tensor([row for row, _ in shown], device=result.device)
            result[rows] = self.generator.decode(Tokens.cat([tokens for _, tokens in shown])).to(result.device)
        for row in np.flatnonzero(self.draw_count[places] // self.reuse > version):
            self._held.pop(ids[row], None)
        return result

    def _make(self, cubes: Tensor, ids: list[int], fresh: np.ndarray) -> None:
        tokens = self.generator.vary(cubes, ids, self.seed, self.noise, self.steps, self.sampler)
        good = np.ones(len(ids), dtype=bool)
        if self.gates is not None:
            admission = self.gates(self.generator.decode(tokens))
            reasons = iter(admission.reasons)
            good = np.array([ok or next(reasons) == COPY for ok in admission.accept.tolist()])
        self.made += int(fresh.sum())
        self.rejected += int((fresh & ~good).sum())
        self._held |= {name: tokens[row : row + 1] if good[row] else None for row, name in enumerate(ids)}

    def counters(self) -> dict[str, float]:
        """What the metrics show."""
        return {
            "variants/made": self.made,
            "variants/rejected": self.rejected,
            "variants/draws": int(self.draw_count.sum()),
        }

    def state_dict(self) -> dict[str, Any]:
        return {"generator": self.generator.hash, "uses": self.draw_count, "counts": (self.made, self.rejected)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`; variants half used up are made again, the same ones. MismatchError: of another
        generator, or of another cohort.
        """
        if state["generator"] != self.generator.hash or len(state["uses"]) != self.count:
            raise MismatchError(
                "the checkpoint's variants are of another generator or cohort",
                found=f"{state['generator']}, {len(state['uses'])} cubes",
                expected=f"{self.generator.hash}, {self.count} cubes",
                remedy="resume with what the run began with",
            )
        self.draw_count = np.asarray(state["uses"]).copy()
        self.made, self.rejected = state["counts"]
        self._held = {}
