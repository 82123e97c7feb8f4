"""Sets of features as the set metrics take them: float64 [n, d], finite, of equal d; and who owns each row."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from synthgen.errors import InputError, MismatchError

Array = NDArray[np.float64]
Index = NDArray[np.intp]


def feature_sets(*sets: ArrayLike) -> list[Array]:
    """The sets as float64 [n, d]. InputError: not two-dimensional, empty or not finite. MismatchError: unequal d."""
    found = [np.asarray(s, np.float64) for s in sets]
    for s in found:
        if s.ndim != 2 or s.size == 0:
            raise InputError("not a set of features", found=f"shape {list(s.shape)}", expected="[n, d], neither zero")
        if not np.isfinite(s).all():
            row = int((~np.isfinite(s).all(1)).argmax())
            raise InputError(
                "features hold NaN or infinite values", found=f"in row {row}", remedy="leave broken cubes out"
            )
    if len({s.shape[1] for s in found}) > 1:
        raise MismatchError("sets with different numbers of features", found=", ".join(str(s.shape[1]) for s in found))
    return found


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


def patient_weights(owner: Index, rng: np.random.Generator, repeats: int) -> Array:
    """[repeats, n] how often each row counts in bootstrap draws of whole patients, as many as there are."""
    patients = int(owner.max()) + 1
    draws = rng.multinomial(patients, np.full(patients, 1 / patients), size=repeats)
    return draws[:, owner].astype(np.float64)
