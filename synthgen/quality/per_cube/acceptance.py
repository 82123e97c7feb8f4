"""Acceptance counts: of every proposal, the verdict of the per-cube gates."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from synthgen.contracts import Admission

COPY = "nearly a copy of a training cube"
PIGMENT = ("pigment: light", "pigment: middle", "pigment: dark")
SIDE = {-1: "eye: disc left", 0: "eye: disc not found", 1: "eye: disc right"}


@dataclass
class AcceptanceCounts:
    """proposed: cubes judged. accepted: admitted. copies: rejected as copies. scores: distance of each proposal to the
    training cubes. strata: (proposed, accepted) by stratum; pigment is read from the background, the side of the eye
    from where the disc lies. reasons: how many were rejected for each."""

    proposed: int = 0
    accepted: int = 0
    copies: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    strata: dict[str, tuple[int, int]] = field(default_factory=dict)
    scores: list[float] = field(default_factory=list)

    @staticmethod
    def of(admission: Admission) -> AcceptanceCounts:
        acceptance = AcceptanceCounts()
        acceptance.add(admission)
        return acceptance

    def add(self, admission: Admission) -> None:
        accept = admission.accept.cpu().numpy()
        self.proposed += len(accept)
        self.accepted += int(accept.sum())
        self.reasons.update(admission.reasons)
        scores = {name: admission.scores[name].cpu().numpy() for name in ("copy", "authenticity", "pigment", "side")}
        self.copies += int(scores["copy"].sum())
        self.scores += scores["authenticity"][np.isfinite(scores["authenticity"])].tolist()
        for row, admitted in enumerate(accept):
            for stratum in (PIGMENT[int(scores["pigment"][row])], SIDE[int(scores["side"][row])]):
                proposed, accepted = self.strata.get(stratum, (0, 0))
                self.strata[stratum] = proposed + 1, accepted + int(admitted)

    def merge(self, other: AcceptanceCounts) -> None:
        self.proposed += other.proposed
        self.accepted += other.accepted
        self.copies += other.copies
        self.reasons.update(other.reasons)
        self.scores += other.scores
        for stratum, (proposed, accepted) in other.strata.items():
            before = self.strata.get(stratum, (0, 0))
            self.strata[stratum] = before[0] + proposed, before[1] + accepted
