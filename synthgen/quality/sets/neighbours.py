"""Set statistics made of distances to nearest neighbours: coverage, density, C_T and AuthPct.

Distances are Euclidean, in whatever space the features are given. Cubes of one patient lie closer together than cubes
of different ones; with `patients` given, neighbours of the same patient are passed over.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import cdist
from scipy.stats import mannwhitneyu

from synthgen.errors import InputError
from synthgen.quality.sets.features import Array, Index, feature_sets, owners

NEIGHBOURS = 5  # k of Naeem 2020, section 4: the smallest at which the expected coverage of one law exceeds 0.95
_BLOCK = 2**22  # distances held at once: 32 MB


class Neighbourhood(NamedTuple):
    """density: 1 on average for one law, no upper bound. coverage: `expected_coverage` for one law, at most 1."""

    density: float
    coverage: float


def neighbourhood(
    real: ArrayLike, made: ArrayLike, k: int = NEIGHBOURS, patients: ArrayLike | None = None
) -> Neighbourhood:
    """Density and coverage of made [m, d] about real [n, d] cubes (Naeem 2020, eq. 3 and 4; equal to `prdc`).

    Each real cube has a ball that reaches to its k-th nearest real neighbour. Density: how many balls a made cube lies
    in, over k. Coverage: the share of balls that hold a made cube. Precision and recall are left out: their value for
    one law is only about 0.7 and depends on the law.

    Args:
        patients: [n] of the real cubes.

    Raises InputError when a real cube has fewer than k neighbours.
    """
    real, made = feature_sets(real, made)
    radius = _neighbour_distance(real, k, owners(patients, len(real)))
    inside = 0
    covered = np.zeros(len(real), bool)
    for rows, distance in _blocks(real, made):
        within = distance < radius[rows, None]
        inside += int(within.sum())
        covered[rows] = within.any(1)
    return Neighbourhood(inside / (k * len(made)), float(covered.mean()))


def expected_coverage(real: int, made: int, k: int = NEIGHBOURS) -> float:
    """Mean coverage of `made` cubes of the same law as `real` ones, whatever the law: Naeem 2020, lemma 2.

    1 - prod_{i=1..k} (n-i)/(m+n-i): the k+1 nearest of all others are not all real.
    """
    i = np.arange(1, k + 1)
    return float(1 - np.prod((real - i) / (made + real - i)))


def nearest(query: ArrayLike, reference: ArrayLike) -> tuple[Array, Index]:
    """Distance [m] to, and index [m] of, the nearest of reference [n, d] for each of query [m, d]."""
    query, reference = feature_sets(query, reference)
    distance, index = np.empty(len(query)), np.empty(len(query), np.intp)
    for rows, block in _blocks(query, reference):
        index[rows] = block.argmin(1)
        distance[rows] = block.min(1)
    return distance, index


def copying_z(train: ArrayLike, test: ArrayLike, made: ArrayLike) -> float:
    """C_T of Meehan, Chaudhuri & Dasgupta 2020 with one cell: do made cubes lie nearer to training than test cubes do?

    The Mann-Whitney U of the distances to the nearest of train [l, d], of made [m, d] against test [n, d], in standard
    errors. Negative: copying (-3 is the usual alarm); positive: made cubes lie further off than real ones. Only with
    one cell is each cell sure to hold test and training cubes. The authors' code adds 1/2 to U; the paper does not.

    Null value: 0, with standard deviation 1 when the cubes of test are independent: give one cube per patient.
    A share s of exact copies moves it by about -s sqrt(3 n / 2) at n = m: at 150 cubes a fifth must be copied before it
    reaches -3. A smaller share needs the gate on single cubes.
    """
    far, _ = nearest(test, train)
    near, _ = nearest(made, train)
    n, m = len(far), len(near)
    u = float(mannwhitneyu(near, far, method="asymptotic").statistic)
    return (u - n * m / 2) / float(np.sqrt(n * m * (n + m + 1) / 12))


def authentic(train: ArrayLike, made: ArrayLike, patients: ArrayLike | None = None) -> NDArray[np.bool_]:
    """bool [m]: a made cube lies further from its nearest training cube than that one from its own nearest.

    Alaa 2022, section 3.3. patients: [l] of the training cubes train [l, d].
    """
    train, made = feature_sets(train, made)
    own = _neighbour_distance(train, 1, owners(patients, len(train)))
    distance, index = nearest(made, train)
    return distance > own[index]


def auth_pct(train: ArrayLike, made: ArrayLike, patients: ArrayLike | None = None) -> float:
    """AuthPct: per cent of made cubes that are `authentic`; dgm-eval's, where fld's subtracts 50.

    Null value of fresh cubes of the same law: not 50 but 58 % at d=8, 67-69 % at 32, 66-72 % at 64, 68-73 % at 256;
    standard deviation 6 points at 100 cubes, 2.3 at 500 (measured, Gaussian sets with a 1/k spectrum). So compare with
    the AuthPct of held-out real cubes. Copies score 0, cubes far from every real one 100: high is not good.
    """
    return 100 * float(authentic(train, made, patients).mean())


def _neighbour_distance(x: Array, k: int, owner: Index) -> Array:
    """[n] distance of each row to its k-th nearest row of another patient."""
    others = len(x) - int(np.bincount(owner).max())
    if not 1 <= k <= others:
        raise InputError(
            f"no {k} neighbours of other patients", found=f"{others} for some cube", remedy="more cubes or a smaller k"
        )
    found = np.empty(len(x))
    for rows, distance in _blocks(x, x):
        distance[owner[rows, None] == owner] = np.inf
        found[rows] = np.partition(distance, k - 1, axis=1)[:, k - 1]
    return found


def _blocks(x: Array, y: Array) -> Iterator[tuple[slice, Array]]:
    """Distances of a few rows of x to every row of y at a time, exact for copies (no expanded square)."""
    step = max(1, _BLOCK // len(y))
    for start in range(0, len(x), step):
        rows = slice(start, min(start + step, len(x)))
        yield rows, np.asarray(cdist(x[rows], y), np.float64)
