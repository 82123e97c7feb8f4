"""Null distributions of the set statistics: the same statistic between patient-disjoint halves of the real cubes.

No fixed threshold survives small sets, so every limit is taken from real against real at the same size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from synthgen.quality.metrics import bootstrap_pairwise, mean_pairwise
from synthgen.quality.sets import FRECHET, SetFeatures, View, statistic, statistics

Array = NDArray[np.float64]
Index = NDArray[np.int64]

MS_SSIM = "ms_ssim"  # |difference of the mean pairwise similarity|


class Estimate(NamedTuple):
    value: float
    low: float
    high: float


def disjoint_sets(patients: np.ndarray, size: int, rng: np.random.Generator) -> tuple[Index, Index] | None:
    """Two random sets of `size` cubes without a patient in common, or None when there are too few patients."""
    sets: list[list[int]] = [[], []]
    order = rng.permutation(np.unique(patients))
    for patient in order:
        emptier = 0 if len(sets[0]) <= len(sets[1]) else 1
        if len(sets[emptier]) < size:
            sets[emptier].extend(rng.permutation(np.flatnonzero(patients == patient)).tolist())
    if min(len(s) for s in sets) < size:
        return None
    return np.sort(sets[0][:size]), np.sort(sets[1][:size])


def null_distribution(
    real: SetFeatures,
    similarity: Array,
    size: int,
    resamples: int,
    bands: int,
    rng: np.random.Generator,
    on_resample: Callable[[], None] = lambda: None,
) -> dict[str, Array] | None:
    """Every statistic [resamples] between random patient-disjoint real sets of `size` cubes each; None: too few.

    similarity [k, k] is of real cubes of different patients. Its statistic is drawn on disjoint sets of those.
    """
    drawn: list[dict[str, float]] = []
    for _ in range(resamples):
        both = disjoint_sets(real.patients, size, rng)
        if both is None:
            return None
        values = statistics(real.take(both[0]), real.take(both[1]), bands)
        drawn.append({**values, MS_SSIM: _null_similarity(similarity, size, rng)})
        on_resample()
    return {name: np.array([d[name] for d in drawn]) for name in drawn[0]}


def family_limits(null: Mapping[str, Array], level: float = 0.95) -> dict[str, float]:
    """Limits that all hold together with probability `level` (single-step max-T, Westfall & Young 1993).

    Each statistic is measured in units of its own null spread; the limit is the quantile of the largest of them over
    the joint resamples. Like Bonferroni's, the guarantee is family-wise, but correlated statistics are not paid for
    twice. The Frechet distance is not in the family: its limit is a multiple of its null median. A statistic that is
    undefined in a tenth of the resamples (structure mostly absent) has no limit.
    """
    kept = {n: v for n, v in null.items() if n != FRECHET and np.isfinite(v).mean() >= 0.9}
    if not kept:
        return {}
    middle = {n: float(np.nanmedian(v)) for n, v in kept.items()}
    spread = {n: max(float(np.nanquantile(v, level)) - middle[n], 1e-12) for n, v in kept.items()}
    largest = np.nanmax([(v - middle[n]) / spread[n] for n, v in kept.items()], axis=0)
    units = float(np.nanquantile(largest, level))
    return {n: middle[n] + units * spread[n] for n in kept}


def compare(
    reference: SetFeatures,
    query: SetFeatures,
    size: int,
    bands: int,
    rng: np.random.Generator,
    draws: int = 8,
    repeats: int = 200,
) -> dict[str, Estimate]:
    """Every statistic of the query against the reference, at `size` cubes a side, with its 95 % bootstrap interval.

    The value is the mean over `draws` random subsets of both. The bootstrap draws whole patients of the reference and
    cubes of the query, `size` of each; since it biases these statistics upwards, its quantiles are taken about its own
    mean, and since the value rests on all cubes of both sets, its spread is brought from `size` to their numbers.
    """
    values: list[dict[str, float]] = []
    for _ in range(draws):
        mine = np.sort(rng.choice(len(query), size, replace=False))
        real = reference.take(_some_patients(reference.patients, size, rng))
        values.append(statistics(real, query.take(mine), bands))
    chosen = reference.take(_some_patients(reference.patients, size, rng))
    view = View.fit(chosen, bands)
    there = view.query(query)
    groups = np.unique(chosen.patients, return_inverse=True)[1]
    members = [np.flatnonzero(groups == g) for g in range(groups.max() + 1)]
    spread: dict[str, list[float]] = {name: [] for name in view.reference}
    for _ in range(repeats):
        rows = np.concatenate([members[g] for g in rng.integers(len(members), size=len(members))])
        mine = rng.integers(len(query), size=size)
        for name, own in view.reference.items():
            spread[name].append(statistic(name, own[rows], there[name][mine]))
    found = {}
    shrink = np.sqrt(size * (1 / len(query) + 1 / len(reference)) / 2)
    for name, draw in spread.items():
        value = _mean([v[name] for v in values])
        low, high = shrink * (_quantiles(draw) - _mean(draw))
        found[name] = Estimate(value, max(value + low, 0.0), value + high)
    return found


def compare_similarity(real: Array, made: Array, rng: np.random.Generator) -> Estimate:
    """Mean pairwise MS-SSIM of made cubes minus that of real ones (matrices [k, k]), with its bootstrap interval."""
    difference = bootstrap_pairwise(made, rng) - bootstrap_pairwise(real, rng)
    low, high = _quantiles(difference) - _mean(difference)
    value = mean_pairwise(made) - mean_pairwise(real)
    return Estimate(value, value + low, value + high)


def _null_similarity(similarity: Array, size: int, rng: np.random.Generator) -> float:
    """|difference of mean similarity| between two disjoint sets of real images, brought to the numbers in use.

    In use, up to `size` synthetic images stand against all k real ones. Disjoint sets of real images are smaller; the
    error of a mean over pairs falls with the root of the number of images.
    """
    k = len(similarity)
    half = min(k // 2, size)
    if half < 2:
        return float("nan")
    order = rng.permutation(k)
    a, b = (mean_pairwise(similarity[np.ix_(rows, rows)]) for rows in (order[:half], order[half : 2 * half]))
    return abs(a - b) * float(np.sqrt(half * (1 / min(k, size) + 1 / k) / 2))


def _some_patients(patients: np.ndarray, size: int, rng: np.random.Generator) -> Index:
    """`size` cubes of whole patients drawn at random (of the last one, as many as are needed)."""
    order = rng.permutation(np.unique(patients))
    rows = np.concatenate([rng.permutation(np.flatnonzero(patients == p)) for p in order])
    return np.sort(rows[:size])


def _mean(values: list[float] | Array) -> float:
    finite = np.asarray(values)[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else float("nan")


def _quantiles(values: list[float] | Array) -> Array:
    finite = np.asarray(values)[np.isfinite(values)]
    return np.quantile(finite, [0.025, 0.975]) if len(finite) else np.array([np.nan, np.nan])
