"""The order in which samples are drawn: one seeded permutation after another, at any place without walking there."""

from __future__ import annotations

import numpy as np

from synthgen.runs.keys import numpy_stream


def epoch_order(places: np.ndarray, count: int, *key: int | str) -> np.ndarray:
    """Positions 0..count-1 at these places of an endless walk: int64, of the shape of `places`.

    Epoch e is the permutation keyed by (*key, e), so every sample comes once an epoch and the place alone is the state.
    """
    epochs, within = np.divmod(places, count)
    found = np.empty(epochs.shape, dtype=np.int64)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        found[here] = numpy_stream(*key, int(epoch)).permutation(count)[within[here]]
    return found


def rank_order(
    count: int, before: int, n: int, *key: int | str, rank: int = 0, world: int = 1, start: int = 0
) -> np.ndarray:
    """The next n positions of a rank, int64 [n], where every rank has drawn `before` since place `start`.

    All ranks together take the next world * n places of `epoch_order`, in the order of the ranks.
    """
    return epoch_order(start + world * before + rank * n + np.arange(n, dtype=np.int64), count, *key)
