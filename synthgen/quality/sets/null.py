"""Null distributions: the same statistic between patient-disjoint sets of real cubes, and comparison of a query set.

No fixed threshold survives small sets, so every limit is taken from real against real at the same size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from synthgen.quality.sets.metrics import bootstrap_pairwise, mean_pairwise
from synthgen.quality.sets.statistics import MS_SSIM, Lens, Pair, Statistic, wanted
from synthgen.quality.sets.table import Rows
from synthgen.science.bootstrap import middle, owners, patient_weights

Array = NDArray[np.float64]
Index = NDArray[np.int64]

TAIL = 0.9  # quantile beyond which the tail of the largest excess is taken as exponential
QUANTILES = tuple(np.linspace(0, 1, 21).round(2).tolist())  # kept of every null, for the page
_DRAWS, _REPEATS = 8, 60


class Estimate(NamedTuple):
    value: float
    low: float
    high: float


class Family(NamedTuple):
    """Null of all judged statistics together.

    middle, width: by statistic, its null median and the distance from there to its 95 % quantile. start, excess: the
    largest distance to a median, in widths, is above `start` in a tenth of resamples, by `excess` on average.
    """

    middle: dict[str, float]
    width: dict[str, float]
    start: float
    excess: float

    def limits(self, alpha: float = 0.05) -> dict[str, float]:
        """Limits that all hold together with probability 1 - alpha (single-step max-T, Westfall & Young 1993).

        Like Bonferroni's, the guarantee is family-wise, but correlated statistics are not paid for twice. Beyond the
        nine tenths that the resamples show well, the largest excess is taken to have an exponential tail (peaks over
        threshold), so that a verdict which is one of many can be held to a smaller alpha.
        """
        units = self.start + self.excess * float(np.log((1 - TAIL) / min(alpha, 1 - TAIL)))
        return {name: self.middle[name] + units * self.width[name] for name in self.middle}


def disjoint_sets(patients: np.ndarray, size: int, rng: np.random.Generator) -> tuple[Index, Index] | None:
    """Two random sets of `size` cubes without a patient in common, or None when there are too few patients."""
    _, owner, counts = np.unique(patients, return_inverse=True, return_counts=True)
    place = rng.permutation(len(counts))  # of each patient in a random order
    in_order = np.empty_like(counts)
    in_order[place] = counts
    ends = np.cumsum(in_order)
    if ends[-1] < 2 * size:
        return None
    boundary = int(np.searchsorted(ends, size)) + 1  # patients that it takes to fill the first set
    rank = place[owner]
    order = np.lexsort((rng.random(len(owner)), rank))
    second = order[rank[order] >= boundary]
    if len(second) < size:
        return None
    return np.sort(order[:size]), np.sort(second[:size])


def null_distribution(
    lens: Lens,
    real: Rows,
    similarity: Array,
    size: int,
    resamples: int,
    rng: np.random.Generator,
    on_resample: Callable[[], None] = lambda: None,
) -> dict[Statistic, Array] | None:
    """Every statistic [resamples] between random patient-disjoint real sets of `size` cubes each; None: too few.

    similarity [k, k] is of real cubes of different patients. Its statistic is drawn on disjoint sets of those.
    """
    drawn: list[dict[Statistic, float]] = []
    for _ in range(resamples):
        both = disjoint_sets(real.patients, size, rng)
        if both is None:
            return None
        values = Pair(lens, real.take(both[0]), real.take(both[1]), size)()
        drawn.append({name: float(v[0]) for name, v in values.items()})
        drawn[-1][MS_SSIM] = _null_similarity(similarity, size, rng)
        on_resample()
    return {name: np.array([d[name] for d in drawn]) for name in drawn[0]}


def family_of(null: Mapping[Statistic, Array], level: float = 0.95) -> Family:
    """The judged statistics of a null. One that is undefined in a tenth of the resamples (structure mostly absent) is
    left out: it has no limit."""
    kept = {n: v for n, v in null.items() if wanted(n) and np.isfinite(v).mean() >= 0.9}
    if not kept:
        return Family({}, {}, 0.0, 0.0)
    middle = {str(n): float(np.nanmedian(v)) for n, v in kept.items()}
    width = {str(n): max(float(np.nanquantile(v, level)) - middle[n], 1e-12) for n, v in kept.items()}
    largest = np.nanmax([(v - middle[n]) / width[n] for n, v in kept.items()], axis=0)
    start = float(np.quantile(largest, TAIL))
    return Family(middle, width, start, float((largest[largest > start] - start).mean()))


def quantiles_of(null: Mapping[Statistic, Array]) -> dict[str, tuple[float, ...]]:
    """Of every statistic, its null's QUANTILES; without those that are undefined."""
    return {
        name: tuple(np.quantile(v[np.isfinite(v)], QUANTILES).tolist())
        for name, v in null.items()
        if not name.direction and np.isfinite(v).any()
    }


def compare(lens: Lens, reference: Rows, query: Rows, size: int, rng: np.random.Generator) -> dict[Statistic, Estimate]:
    """Every statistic of the query against the reference, at `size` cubes a side, with its 95 % interval.

    The value is the mean over random subsets of both. The standard deviation is that of bootstrap draws of whole
    patients of both sides; since the value rests on all cubes of both sets, it is brought from `size` to their numbers.
    """
    values: list[dict[Statistic, float]] = []
    std: dict[Statistic, float] = {}
    for draw in range(_DRAWS):
        mine = some_patients(query.patients, size, rng)
        real = some_patients(reference.patients, size, rng)
        pair = Pair(lens, reference.take(real), query.take(mine), size)
        values.append({name: float(v[0]) for name, v in pair().items()})
        if draw == 0:
            w = patient_weights(pair.x_owner, rng, _REPEATS)
            v = patient_weights(pair.y_owner, rng, _REPEATS)
            std = {name: _std(x) for name, x in pair(w, v).items()}
    shrink = float(np.sqrt(size * (1 / len(query) + 1 / len(reference)) / 2))
    found = {}
    for name in values[0]:
        value = _mean([v[name] for v in values])
        half = 1.96 * shrink * std[name]
        found[name] = Estimate(value, value - half, value + half)
    return found


def compare_similarity(real: Array, made: Array, rng: np.random.Generator) -> Estimate:
    """Mean pairwise MS-SSIM of made cubes minus that of real ones (matrices [k, k]), with its bootstrap interval."""
    difference = bootstrap_pairwise(made, rng) - bootstrap_pairwise(real, rng)
    low, high = (end - difference.mean() for end in middle(difference))
    value = mean_pairwise(made) - mean_pairwise(real)
    return Estimate(value, value + low, value + high)


def some_patients(patients: np.ndarray, size: int, rng: np.random.Generator) -> Index:
    """`size` rows of whole patients drawn at random (of the last one, as many as are needed)."""
    owner = owners(patients, len(patients))
    rank = rng.permutation(int(owner.max()) + 1)[owner]
    return np.sort(np.lexsort((rng.random(len(owner)), rank))[:size])


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


def _std(draws: Array) -> float:
    finite = draws[np.isfinite(draws)]
    return float(finite.std(ddof=1)) if len(finite) > 1 else float("nan")


def _mean(values: list[float]) -> float:
    finite = [v for v in values if np.isfinite(v)]
    return float(np.mean(finite)) if finite else float("nan")
