"""Conformal limits: a fresh real cube falls below with probability at most alpha, whatever the distribution."""

from __future__ import annotations

import math

import numpy as np


def lower_limit(scores: np.ndarray, patients: np.ndarray, alpha: float) -> float | None:
    """The limit t so that a cube of a fresh patient scores below t with probability at most `alpha`.

    With one cube per patient it is the floor(alpha*(n+1))-th smallest of n scores (split conformal). With several, each
    patient weighs the same (hierarchical conformal prediction, Lee, Barber & Willett 2023): the unit is the patient.

    Args:
        scores: [N], of cubes of patients that the score was not fitted on.
        patients: [N] their patients.

    Returns: None when there are fewer than 1/alpha - 1 patients: nothing can be certified at this level.
    """
    distinct, owner, cubes = np.unique(patients, return_inverse=True, return_counts=True)
    if len(distinct) < needed_patients(alpha):
        return None
    order = np.argsort(scores, kind="stable")
    mass = np.cumsum(1 / cubes[owner][order]) / (len(distinct) + 1)
    # the fresh patient itself holds 1/(n+1); a score is safe as a limit while what lies below it is at most alpha
    below = np.concatenate([[0.0], mass[:-1]]) + 1 / (len(distinct) + 1)
    return float(scores[order][np.flatnonzero(below <= alpha + 1e-12)[-1]])


def needed_patients(alpha: float) -> int:
    """Patients without which no limit at level `alpha` exists."""
    return math.ceil(1 / alpha - 1 - 1e-9)


def upper_limit(scores: np.ndarray, patients: np.ndarray, alpha: float) -> float | None:
    """The limit that a cube of a fresh patient scores above with probability at most `alpha`; see `lower_limit`."""
    found = lower_limit(-np.asarray(scores), patients, alpha)
    return None if found is None else -found
