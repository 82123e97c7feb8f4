"""What the set gates know of each cube: a row of numbers, computed once when the per-cube gates judge the cube."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Column = NDArray[np.float32]


@dataclass(frozen=True)
class Rows:
    """columns: by name float32 [N] or [N, d]; NaN where a structure is absent. patients [N]: the unit of resampling.

    Columns: encoder, spectra and structures (coordinates in `sets.SPACES`), for each of `regions.REGIONS` its spectrum
    (log-reflectance [N, C]), <name>_contrast [N, C] and <name>_extent [N], and score [N] (authenticity).
    """

    columns: dict[str, Column]
    patients: np.ndarray
    made_by: str = ""  # hash of the gates that computed them

    @staticmethod
    def of(columns: Mapping[str, ArrayLike], patients: ArrayLike | None = None, made_by: str = "") -> Rows:
        """Without `patients` every row is its own."""
        found = {name: np.asarray(column, np.float32) for name, column in columns.items()}
        n = len(next(iter(found.values()))) if found else 0
        return Rows(found, np.arange(n) if patients is None else np.asarray(patients), made_by)

    def __len__(self) -> int:
        return len(self.patients)

    def __getitem__(self, name: str) -> Column:
        return self.columns[name]

    def take(self, index: ArrayLike) -> Rows:
        index = np.asarray(index)
        return Rows({name: column[index] for name, column in self.columns.items()}, self.patients[index], self.made_by)

    @staticmethod
    def cat(parts: Sequence[Rows]) -> Rows:
        """Join tables of cubes that have nothing to do with one another: patients are distinguished by their part."""
        parts = [p for p in parts if len(p)]
        if not parts:
            return Rows({}, np.zeros(0, int))
        columns = {name: np.concatenate([p.columns[name] for p in parts]) for name in parts[0].columns}
        owners, last = [], 0
        for part in parts:
            owner = np.unique(part.patients, return_inverse=True)[1]
            owners.append(owner + last)
            last += int(owner.max()) + 1
        return Rows(columns, np.concatenate(owners), parts[0].made_by)
