"""Nested cross-validation by patient: ridge regression whose penalty, and the features it reads, are chosen inside.

The outer folds hold patients out; within the others, every candidate (a stage and a pooling, say) and every penalty is
judged by its leave-one-patient-out error, which ridge regression gives in closed form from one decomposition. What was
chosen is fitted to all of them and predicts the held-out patients, who had no part in the choice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from sklearn.model_selection import KFold, StratifiedKFold

PENALTIES = (*10.0 ** np.arange(-1, 6.6, 0.5), np.inf)  # of standardised features; the last predicts the mean alone
Split = list[tuple[np.ndarray, np.ndarray]]  # of one repeat: the patients that a fit learns from, those it is judged on


class Predicted(NamedTuple):
    """Held-out predictions, one row per repeat; NaN for patients that no fit was judged on.

    values [R, n, K]. reference [R, n, K]: the mean of those that the fit learned from, its prediction for anybody.
    chosen: for each target, how often each candidate was.
    """

    values: np.ndarray
    reference: np.ndarray
    chosen: list[Counter[str]]


class Ridge(NamedTuple):
    """Fits of K targets to one candidate. error [K]: mean squared leave-one-out error at the best penalty.
    predict: features [m, D] -> [m, K]. penalty [K]."""

    error: np.ndarray
    predict: Callable[[np.ndarray], np.ndarray]
    penalty: np.ndarray


def fit_ridge(x: np.ndarray, y: np.ndarray, penalties: Sequence[float] = PENALTIES) -> Ridge:
    """Ridge regression of y [n, K] on x [n, D], standardised; the penalty of each target has the least leave-one-out
    error e_i / (1 - h_i) (Allen 1974, PRESS; Golub, Heath & Wahba 1979, equation 1.2), from one eigendecomposition.

    (scikit-learn's RidgeCV finds the same, and takes seven times as long at 1,600 x 1,200: it decomposes x itself.)
    """
    n, dim = x.shape
    centre, scale = x.mean(0), x.std(0)
    scale = np.where(scale > 1e-12 * (1 + np.abs(centre)), scale, 1)
    a, mean = (x - centre) / scale, y.mean(0)
    if dim <= n:
        power, basis = np.linalg.eigh(a.T @ a)
    else:
        power, left = np.linalg.eigh(a @ a.T)
        kept = power > max(power[-1], 1) * 1e-10
        power, basis = power[kept], a.T @ (left[:, kept] / np.sqrt(power[kept]))
    power = power.clip(0)
    scores = a @ basis  # [n, r], orthogonal columns
    inner, square = scores.T @ (y - mean), scores**2
    error, penalty = np.full(y.shape[1], np.inf), np.zeros(y.shape[1])
    for p in penalties:
        shrunk = 1 / (power + p)
        left_out = (y - mean - scores @ (shrunk[:, None] * inner)) / (1 - 1 / n - square @ shrunk)[:, None].clip(1e-12)
        found = (left_out**2).mean(0)
        penalty[found < error] = p
        error = np.minimum(error, found)
    weights = basis @ (inner / (power[:, None] + penalty)) / scale[:, None]
    return Ridge(error, lambda test: mean + (test - centre) @ weights, penalty)


def cross_validated(
    candidates: Mapping[str, np.ndarray], y: np.ndarray, splits: Sequence[Split], own_mean: bool = False
) -> Predicted:
    """Held-out predictions of y [n, K] from the best of several features [n, D] by name, chosen anew in every fit.

    `own_mean`: the reference is the mean of those that are judged, who are not like those that the fit learned from.
    """
    values = np.full((len(splits), *y.shape), np.nan)
    reference = values.copy()
    chosen: list[Counter[str]] = [Counter() for _ in range(y.shape[1])]
    for repeat, split in enumerate(splits):
        for train, test in split:
            best, names = np.full(y.shape[1], np.inf), np.full(y.shape[1], "", dtype=object)
            for name, x in candidates.items():
                fit = fit_ridge(x[train], y[train])
                better = fit.error < best
                values[repeat, test[:, None], np.flatnonzero(better)] = fit.predict(x[test])[:, better]
                best[better], names[better] = fit.error[better], name
            reference[repeat, test] = y[test if own_mean else train].mean(0)
            for count, name in zip(chosen, names, strict=True):
                count[name] += 1
    return Predicted(values, reference, chosen)


def patient_splits(n: int, folds: int, repeats: int, seed: int = 0, strata: np.ndarray | None = None) -> list[Split]:
    """`repeats` ways to hold out each of n patients once, in `folds` parts; classes `strata` [n] alike in each."""
    return [list(_folds(n, folds, seed + repeat, strata)) for repeat in range(repeats)]


def extrapolating_splits(value: np.ndarray, above: float, folds: int, repeats: int, seed: int = 0) -> list[Split]:
    """Learn from patients whose value [n] is at most `above`, be judged on all others.

    Each repeat learns from another (folds - 1) / folds of them, so that repeats vary as those of `patient_splits` do.
    """
    low, high = np.flatnonzero(value <= above), np.flatnonzero(value > above)
    if min(len(low), len(high)) < folds:
        return []
    return [[(low[next(_folds(len(low), folds, seed + r))[0]], high)] for r in range(repeats)]


def _folds(n: int, folds: int, seed: int, strata: np.ndarray | None = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    folds = min(folds, n if strata is None else np.bincount(strata).min())
    kind = KFold if strata is None else StratifiedKFold
    yield from kind(folds, shuffle=True, random_state=seed).split(np.zeros(n), strata)
