"""The real cubes behind a verdict: training cubes that synthetic ones are held against, unseen ones to compare with."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from synthgen.cubes.cohort.cohort import Cohort
from synthgen.cubes.cohort.splits import Split, load_or_make_split
from synthgen.quality.gates import Gates
from synthgen.quality.per_cube.conformal import lower_limit
from synthgen.quality.per_cube.memorization import ROUNDING, MemorizationDetector, Nearest

_CHUNK = 64


@dataclass(frozen=True)
class Bank:
    """Training cubes to find nearest neighbours in, and where to look at them.

    detector: None where the gates' own bank holds these very cubes. index: their place in the cohort.
    """

    cohort: Cohort
    index: np.ndarray
    detector: MemorizationDetector | None
    unseen: np.ndarray  # cubes of calibration and test patients
    limit: float | None = None  # of the distance in this bank, where it is not the gates'

    @property
    def of_the_gates(self) -> bool:
        """Whether these are the training cubes that the gates were calibrated with."""
        return self.detector is None

    def nearest(self, cubes: Tensor) -> Nearest:
        """The nearest training cube of each of cubes [N, C, H, W]; gaps in a cube are taken as zeros."""
        assert self.detector is not None
        return self.detector.nearest(torch.nan_to_num(cubes.cpu(), nan=0.0, posinf=0.0, neginf=0.0))

    def picture(self, index: int) -> np.ndarray:
        """Training cube [C, H, W] of that index in the bank."""
        return self.cohort.cubes(self.index[[index]])[0]

    def name(self, index: int) -> str:
        place = int(self.index[index])
        eye = "" if self.cohort.eye is None else f" {self.cohort.eye[place]}"
        return f"{self.cohort.patient_id[place]}{eye}"


@torch.no_grad()
def open_bank(gates: Gates, cohort: Cohort) -> Bank:
    """The bank of a cohort. Where it is not the one that the gates were calibrated on, the gates' memorization detector
    takes its training cubes as the bank, and a conformal limit of their own comes from the cohort's unseen patients
    (the gates' limit, where those are too few or as near as copies)."""
    split = load_or_make_split(cohort)
    train = cohort.index_of(split.train)
    unseen = cohort.index_of((*split.calibration, *split.test))
    if len(train) == gates.memorization.count and _is_the_gates(gates, cohort, split):
        return Bank(cohort, train, None, unseen)
    bank = Bank(cohort, train, gates.memorization.with_bank(torch.from_numpy(cohort.cubes(train))), unseen)
    parts = [unseen[i : i + _CHUNK] for i in range(0, len(unseen), _CHUNK)]
    distance = torch.cat([bank.nearest(torch.from_numpy(cohort.cubes(part))).score for part in parts])
    limit = lower_limit(distance.double().numpy(), cohort.patient_id[unseen], gates.limits.authenticity.alpha)
    return replace(bank, limit=limit if limit is not None and limit > ROUNDING else gates.limits.authenticity.limit)


def _is_the_gates(gates: Gates, cohort: Cohort, split: Split) -> bool:
    """Whether gates were calibrated on this split of this cohort: their provenance names its contents and patients."""
    mine = cohort.provenance((*split.train, *split.calibration))
    theirs = gates.provenance
    return (theirs.cohort_hash, theirs.salt, theirs.patients) == (mine.cohort_hash, mine.salt, mine.patients)
