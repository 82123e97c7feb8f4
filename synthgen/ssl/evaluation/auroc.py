"""Area under the ROC curve, and its interval by resampling patients."""

from __future__ import annotations

import numpy as np

from synthgen.runs.randomness import numpy_stream
from synthgen.science.bootstrap import draw_counts

DRAWS = 1000  # bootstrap samples


def auroc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Probability that a case scores above a control, ties counted half (Mann and Whitney)."""
    return float(weighted_auroc(scores, labels, np.ones((1, len(scores))))[0])


def weighted_auroc(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """AUROC under each row of weights [R, N] (bootstrap counts): float64 [R]; each class needs some weight."""
    cases, controls = labels == 1, labels == 0
    above = np.sign(scores[cases, None] - scores[None, controls]) / 2 + 0.5
    a, b = weights[:, cases].astype(float), weights[:, controls].astype(float)
    return ((a @ above) * b).sum(1) / (a.sum(1) * b.sum(1))


def resamples(labels: np.ndarray, seed: int) -> np.ndarray:
    """How often each patient is drawn, int [<= DRAWS, N]; draws without one of the classes are left out."""
    counts = draw_counts(len(labels), numpy_stream("patient bootstrap", seed), DRAWS)
    return counts[(counts[:, labels == 1].sum(1) > 0) & (counts[:, labels == 0].sum(1) > 0)]
