"""The state of a pool in a checkpoint, also brought to another number of processes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from synthgen.contracts import Tokens

PARTS = ("indices", "base", "id")


def state_of(tokens: Tokens | None, draw_count: np.ndarray) -> dict[str, Any]:
    """Cubes held as tokens, with how often each was drawn."""
    return {**{name: None if tokens is None else getattr(tokens, name) for name in PARTS}, "uses": draw_count}


def tokens_of(state: dict[str, Any], generator_hash: str) -> Tokens:
    return Tokens(state["indices"], state["base"], state["id"], generator_hash)


def reshard(states: list[dict[str, Any]], rank: int, world: int) -> dict[str, Any]:
    """Pool states of a run with another number of processes, resharded by id: the state of `rank` of `world`.

    The next proposals start beyond every id that was ever proposed, so no id comes twice. Each rank goes on with the
    window of one old rank, and with the number of looks of the one that had most.
    """
    first, window = states[0], states[rank % len(states)]["window"]
    if window is not None:
        looks = max(s["window"]["counts"][0] for s in states)
        window = {**window, "counts": (looks, window["counts"][1])}
    dropped = [s["retired"] for s in states if s["retired"] is not None]
    beyond = max(s["dataset"]["next"] * s["dataset"]["world"] for s in states)
    counts = np.sum([s["counts"] for s in states], axis=0) // world
    return {
        **first,
        **_resharded([s for s in states if s["indices"] is not None], rank, world),
        "counts": tuple(int(c) for c in counts),
        "retired": _resharded(dropped, rank, world) if dropped else None,
        "window": window,
        "dataset": {**first["dataset"], "next": -(-beyond // world), "rank": rank, "world": world},
    }


def _resharded(held: list[dict[str, Any]], rank: int, world: int) -> dict[str, Any]:
    """Those of the tokens held whose id is this rank's."""
    ids = torch.cat([s["id"] for s in held])
    mine = (ids % world) == rank
    admitted_at = {"born": np.concatenate([s["born"] for s in held])[mine.numpy()]} if "born" in held[0] else {}
    return {
        **admitted_at,
        "indices": torch.cat([s["indices"] for s in held])[mine],
        "base": torch.cat([s["base"] for s in held])[mine],
        "id": ids[mine],
        "uses": np.concatenate([s["uses"] for s in held])[mine.numpy()],
    }
