"""Some cubes of one or more cohorts, read in blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from synthgen.cubes.cohort.cohort import Cohort

_CHUNK = 64


@dataclass(frozen=True)
class Cubes:
    """indices: which cubes of each cohort. Patients and results are in that order."""

    cohorts: tuple[Cohort, ...]
    indices: tuple[np.ndarray, ...]
    device: torch.device

    def __len__(self) -> int:
        return sum(map(len, self.indices))

    @property
    def patients(self) -> np.ndarray:
        parts = [
            np.char.add(f"{k}/", c.patient_id[i].astype(str))
            for k, (c, i) in enumerate(zip(self.cohorts, self.indices, strict=True))
        ]
        return np.concatenate(parts) if parts else np.zeros(0, str)

    def blocks(self) -> Iterator[Tensor]:
        for cohort, index in zip(self.cohorts, self.indices, strict=True):
            for start in range(0, len(index), _CHUNK):
                yield torch.from_numpy(cohort.cubes(index[start : start + _CHUNK])).to(self.device)

    def all(self) -> Tensor:
        return torch.cat(list(self.blocks()))

    def map(self, what: Callable[[Tensor], Tensor]) -> np.ndarray:
        with torch.no_grad():
            return torch.cat([what(block).cpu() for block in self.blocks()]).double().numpy()

    def take(self, keep: np.ndarray) -> Cubes:
        """The cubes whose place is in `keep` (ascending)."""
        ends = np.cumsum([0, *map(len, self.indices)])
        parts = tuple(
            i[keep[(keep >= a) & (keep < b)] - a] for i, a, b in zip(self.indices, ends[:-1], ends[1:], strict=True)
        )
        return Cubes(self.cohorts, parts, self.device)
