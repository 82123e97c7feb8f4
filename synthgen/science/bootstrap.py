"""The bootstrap over patients: whole patients are drawn with replacement, every row of theirs along (Efron 1979; the
cluster bootstrap of Davison & Hinkley 1997, section 3.8).

A draw is given as how often each unit counts, so a statistic of weighted rows is computed for all draws at once.
(`scipy.stats.bootstrap` draws single observations and calls the statistic on copies of them.)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from synthgen.errors import MismatchError

Array = NDArray[np.float64]
Index = NDArray[np.intp]


def owners(patients: ArrayLike | None, count: int) -> Index:
    """[count] the patient of each row as an index from 0; without `patients` each row is its own patient.

    MismatchError when there is not one patient for each row.
    """
    if patients is None:
        return np.arange(count)
    given = np.asarray(patients)
    if given.shape != (count,):
        raise MismatchError("not one patient for each cube", found=list(given.shape), expected=f"[{count}]")
    return np.unique(given, return_inverse=True)[1]


def draw_counts(units: int, rng: np.random.Generator, repeats: int) -> NDArray[np.int64]:
    """How often each of `units` is drawn in `repeats` draws of as many: int64 [repeats, units]."""
    return rng.multinomial(units, np.full(units, 1 / units), size=repeats)


def patient_weights(owner: Index, rng: np.random.Generator, repeats: int) -> Array:
    """[repeats, n] how often each row counts; `owner` [n]: its patient, see `owners`."""
    return draw_counts(int(owner.max()) + 1, rng, repeats)[:, owner].astype(np.float64)


def middle(draws: NDArray[np.floating]) -> tuple[float, float]:
    """The percentile interval: the middle 95 % of the draws of a statistic."""
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)
