"""The rolling window: while training goes on, the set gates judge the newest cubes that the pool has admitted.

Every look is another chance of a false alarm. Look k is therefore taken at the level 0.05 * 6 / (pi^2 k^2), shared out
over the ranks, each of which watches its own cubes: over a whole run, however long, these sum to 0.05.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from synthgen.contracts import Admission, Status, Tokens, Verdict
from synthgen.errors import ConfigError
from synthgen.integration.judging.verdict import Evidence, compose_verdict
from synthgen.quality.gates import Gates
from synthgen.quality.per_cube.acceptance import AcceptanceCounts
from synthgen.quality.sets.table import Rows

SCORES = 4096  # distances to the training cubes kept of the newest proposals: they must not grow with the run
LARGEST = 400  # cubes in the window by default: the set gates gain little beyond their largest calibrated size


class Window:
    """The newest accepted cubes of one rank as rows, a few of them as tokens, and the counts of all proposals.

    Args:
        gates: judge the window.
        decode: tokens -> cubes float32 [n, C, H, W], for the pairs of MS-SSIM.
        size: cubes in the window; by default the largest calibrated set size up to `LARGEST`.
        every: accepted cubes between two looks; by default half a window.
        world: ranks that watch at the same time.
        closes: a fail ends the admission of cubes (`require`); else it is only on record (`report`).
    """

    def __init__(
        self,
        gates: Gates,
        decode: Callable[[Tokens], Tensor],
        *,
        size: int | None = None,
        every: int | None = None,
        world: int = 1,
        closes: bool = True,
    ):
        calibrated = [s.size for s in gates.limits.sets]
        self.least = min(calibrated, default=None)  # fewer cubes than this cannot be judged at all
        if size is not None and self.least is not None and size < self.least:
            raise ConfigError(
                "the window holds too few cubes for the set gates",
                found=f"gate_window {size}",
                expected=f"at least {self.least}, the smallest calibrated size",
            )
        self.size = size or max((s for s in calibrated if s <= LARGEST), default=self.least or LARGEST)
        self.every = every or max(1, self.size // 2)
        self.gates, self.decode, self.world, self.closes = gates, decode, world, closes
        self.rows, self.tokens, self.acceptance = Rows.cat([]), None, AcceptanceCounts()
        self.looks = self.waiting = 0
        self.verdict: Verdict | None = None

    def add(self, admission: Admission, tokens: Tokens) -> None:
        """Take in the verdicts of the gates on some proposals; `tokens` of the accepted ones, in the same order."""
        self.acceptance.add(admission)
        del self.acceptance.scores[:-SCORES]
        if not len(tokens):
            return
        rows = Rows.cat([self.rows, self.gates.rows(admission)])
        self.rows = rows.take(np.arange(len(rows))[-self.size :])
        held = tokens.to("cpu")
        joined = held if self.tokens is None else Tokens.cat([self.tokens, held])
        self.tokens = joined[-self.gates.images :]
        self.waiting += len(tokens)

    @property
    def due(self) -> bool:
        """Whether it is time for another look."""
        return self.least is not None and self.waiting >= self.every and len(self.rows) >= self.least

    def look(self) -> Verdict:
        """Judge the window now."""
        assert self.tokens is not None
        self.looks += 1
        self.waiting = 0
        self.verdict = compose_verdict(
            self.gates,
            Evidence(self.acceptance, self.rows, self.gates.similarity(self.decode(self.tokens))),
            self.tokens.generator_hash,
            alpha=level_of(self.looks, self.world),
        )
        return self.verdict

    @property
    def failed(self) -> bool:
        return self.verdict is not None and self.verdict.status == Status.FAIL

    def counters(self) -> dict[str, float]:
        return {"window/cubes": len(self.rows), "window/looks": self.looks}

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides what is judged next, and when."""
        tokens = self.tokens
        return {
            "columns": dict(self.rows.columns),
            "patients": np.asarray(self.rows.patients),
            "made_by": self.rows.made_by,
            "indices": None if tokens is None else tokens.indices,
            "base": None if tokens is None else tokens.base,
            "id": None if tokens is None else tokens.id,
            "generator": None if tokens is None else tokens.generator_hash,
            "tally": acceptance_state(self.acceptance),
            "counts": (self.looks, self.waiting),
            "verdict": None if self.verdict is None else self.verdict.model_dump_json(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows = Rows(dict(state["columns"]), np.asarray(state["patients"]), state["made_by"])
        self.tokens = None
        if state["indices"] is not None:
            self.tokens = Tokens(state["indices"], state["base"], state["id"], state["generator"])
        self.acceptance = acceptance_of(state["tally"])
        self.looks, self.waiting = state["counts"]
        self.verdict = None if state["verdict"] is None else Verdict.model_validate_json(state["verdict"])


def level_of(look: int, world: int) -> float:
    """The level of the `look`-th look of a run on each of `world` ranks; over all looks they sum to 0.05."""
    return 0.05 * 6 / (math.pi * look) ** 2 / world


def acceptance_state(acceptance: AcceptanceCounts) -> dict[str, Any]:
    """Acceptance counts as what a checkpoint can hold."""
    return {
        "counts": (acceptance.proposed, acceptance.accepted, acceptance.copies),
        "reasons": dict(acceptance.reasons),
        "strata": dict(acceptance.strata),
        "scores": torch.tensor(acceptance.scores, dtype=torch.float64),
    }


def acceptance_of(state: dict[str, Any]) -> AcceptanceCounts:
    """The counts that `acceptance_state` was taken of."""
    proposed, accepted, copies = state["counts"]
    strata, scores = dict(state["strata"]), state["scores"].tolist()
    return AcceptanceCounts(proposed, accepted, copies, Counter(state["reasons"]), strata, scores)
