"""How well held-out predictions match a target, with intervals over patients and over splits.

A draw takes patients with replacement (the bootstrap) and the fits of one repeat of the cross-validation at random, of
one seed where a network has several. The patients alone would give too narrow an interval: on cohorts of pure noise
held-out scores scatter with the split, too, since what a fit has learned there is chance. Draws are the same for all
features and all targets, so that differences of them are paired and means over targets have an interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from synthgen.runs.keys import numpy_stream
from synthgen.science.bootstrap import draw_counts, middle
from synthgen.ssl.evaluation.auroc import weighted_auroc
from synthgen.ssl.evaluation.crossval import Predicted
from synthgen.ssl.evaluation.targets import Target

DRAWS = 1000


class Draws(NamedTuple):
    """counts int [B, N]: how often each patient is drawn. split, seed float [B] in 0..1: which repeat, which seed."""

    counts: np.ndarray
    split: np.ndarray
    seed: np.ndarray


class Score(NamedTuple):
    """value: R2 of a number, AUROC of classes, mean over repeats and seeds; draws [B] of the same. rmse, mae: of a
    number, in its unit."""

    value: float
    draws: np.ndarray
    rmse: float | None = None
    mae: float | None = None


def patient_draws(patients: int, seed: int = 0, draws: int = DRAWS) -> Draws:
    """Draws for a cohort of so many patients."""
    rng = numpy_stream("patients and splits", seed)
    return Draws(draw_counts(patients, rng, draws), rng.random(draws), rng.random(draws))


def scored(target: Target, predicted: Sequence[Predicted], draws: Draws) -> Score:
    """The score of what the fits of one or several seeds have predicted of `target`.

    R2 is 1 - sum (y - predicted)^2 / sum (y - mean)^2 with the mean of the patients that the fit learned from, so that
    predicting that mean gives 0 (Campbell & Thompson 2008, equation 1). AUROC is the mean over one class against the
    others; a fit's scores are taken relative to that mean, which differs between folds whoever the patient is.
    """
    repeats = len(predicted[0].values)
    pick = (draws.seed * len(predicted)).astype(int) * repeats + (draws.split * repeats).astype(int)
    values = np.concatenate([t.values for t in predicted])  # [S R, n, K]
    reference = np.concatenate([t.reference for t in predicted])
    judged = ~np.isnan(values[0, :, 0])
    weights, y = draws.counts[:, target.rows[judged]].astype(np.float64), target.y[judged]
    values, reference = values[:, judged], reference[:, judged]
    found = np.full(len(pick), np.nan)
    one = np.ones((1, len(y)))
    of = _auroc if target.classes else _r2
    each = [of(y, v, r, one)[0] for v, r in zip(values, reference, strict=True)]
    for k in np.unique(pick):
        found[pick == k] = of(y, values[k], reference[k], weights[pick == k])
    if target.classes:
        return Score(float(np.mean(each)), found)
    error = target.in_units(values[..., 0]) - target.in_units(y[:, 0])
    return Score(float(np.mean(each)), found, float(np.sqrt((error**2).mean(1)).mean()), float(np.abs(error).mean()))


def r2_scores(
    y: np.ndarray, predicted: np.ndarray, reference: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    """R2 [B] of predicted [n] under each row of weights [B, n], or [1] with all alike; see `scored`."""
    weights = np.ones((1, len(y))) if weights is None else weights
    return 1 - weights @ (y - predicted) ** 2 / (weights @ (y - reference) ** 2)


def _r2(y: np.ndarray, predicted: np.ndarray, reference: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return r2_scores(y[:, 0], predicted[:, 0], reference[:, 0], weights)


def _auroc(y: np.ndarray, predicted: np.ndarray, reference: np.ndarray, weights: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):  # a draw without one of the classes: NaN
        return np.mean([weighted_auroc(s, c, weights) for s, c in zip((predicted - reference).T, y.T, strict=True)], 0)


def interval(draws: np.ndarray) -> tuple[float, float]:
    """The middle 95 % of the draws that are not NaN."""
    return middle(draws[np.isfinite(draws)])
