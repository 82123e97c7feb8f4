"""What to ask a backbone for: covariates of the patients, as numbers or as classes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from synthgen.cubes.cohort.covariates import Covariate
from synthgen.cubes.phantom.demographics import LEARNABLE
from synthgen.errors import InputError

LEAST_PATIENTS = 10  # with a known value, below which five folds give no estimate
MOST_VALUES = 5  # of a number: with no more of them it is a class
MOST_CLASSES = 12  # of a text: with more it names the patients rather than a group of them
LEAST_OF_CLASS = 5  # patients of a class: one for each fold


class Target(NamedTuple):
    """rows: the patients with a known value, ascending. y [len(rows), K]: one column with the number (its logarithm for
    `log`), or one indicator per class of `classes`; of two classes only the second."""

    name: str
    rows: np.ndarray
    y: np.ndarray
    unit: str = ""
    log: bool = False
    classes: tuple[str, ...] = ()

    @property
    def strata(self) -> np.ndarray | None:
        """int [len(rows)]: the class of each patient; None for a number."""
        if not self.classes:
            return None
        return self.y[:, 0].astype(int) if len(self.classes) == 2 else self.y.argmax(1)

    def in_units(self, y: np.ndarray) -> np.ndarray:
        """Numbers as they were given."""
        return np.exp(y) if self.log else y


def targets_of(
    found: Mapping[str, Covariate], patient: np.ndarray, wanted: Sequence[str] | None, log: Sequence[str] = ()
) -> tuple[list[Target], dict[str, str]]:
    """The targets, and why the others of `found` are none.

    Args:
        found: covariates with one value per cube [N]; a patient's number is the mean over the cubes that have one.
        patient: int [N], whose cube it is, from 0.
        wanted: names; None for all that can be asked for.
        log: numbers whose logarithm is to be predicted, beside those that state it themselves.

    Raises InputError for a name that is not there, and for a wanted one that cannot be asked for.
    """
    for name in [*(wanted or ()), *log]:
        if name not in found:
            raise InputError(f"has no target '{name}'", expected=f"one of {', '.join(sorted(found)) or 'none'}")
    targets, left_out = [], {}
    for name in wanted if wanted is not None else found:
        covariate = found[name]
        made = _target(name, covariate, patient, covariate.log or name in log)
        if isinstance(made, Target):
            targets.append(made)
        elif wanted is not None:
            raise InputError(f"'{name}' cannot be asked for", found=made)
        else:
            left_out[name] = made
    if not targets:
        raise InputError("has nothing to ask for", found="; ".join(f"{k}: {v}" for k, v in left_out.items()) or None)
    return targets, left_out


def usual_mean(numbers: Sequence[str], known: Collection[str]) -> tuple[str, ...]:
    """Which of the `numbers` asked for a mean is over: where the phantom's LEARNABLE factors are `known`, those; else
    all."""
    return tuple(n for n in LEARNABLE if n in numbers) if set(LEARNABLE) <= set(known) else tuple(numbers)


def _target(name: str, covariate: Covariate, patient: np.ndarray, log: bool) -> Target | str:
    known = covariate.known
    rows = np.unique(patient[known])
    if len(rows) < LEAST_PATIENTS:
        return f"known of {len(rows)} patients, expected {LEAST_PATIENTS}"
    who, values = np.searchsorted(rows, patient[known]), covariate.values[known]
    if covariate.is_number and len(np.unique(values)) > MOST_VALUES:
        number = np.bincount(who, values.astype(np.float64)) / np.bincount(who)
        if not np.isfinite(number).all() or (log and number.min() <= 0):
            return "its logarithm is not finite" if log else "not finite"
        return Target(name, rows, (np.log(number) if log else number)[:, None], covariate.unit, log)
    texts = np.array([f"{v:g}" for v in values]) if covariate.is_number else values.astype(str)
    classes, place = np.unique(texts, return_inverse=True)
    first = np.full(len(rows), -1)
    first[who] = place
    if (first[who] != place).any():
        return "differs between cubes of one patient"
    counts = np.bincount(first, minlength=len(classes))
    if not 2 <= len(classes) <= MOST_CLASSES:
        return "the same for every patient" if len(classes) < 2 else f"{len(classes)} classes"
    if counts.min() < LEAST_OF_CLASS:
        return f"{counts.min()} patients with '{classes[counts.argmin()]}', expected {LEAST_OF_CLASS}"
    indicators = np.eye(len(classes))[first]
    return Target(name, rows, indicators[:, 1:] if len(classes) == 2 else indicators, classes=tuple(classes.tolist()))
