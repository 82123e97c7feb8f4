"""Judging cubes wherever they are from: every one through the per-cube gates, then shards and the whole set.

Nothing is passed for lack of data: too few cubes make a verdict undecided, and cubes that repeat each other fail.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from heapq import nsmallest

import numpy as np
import torch
from scipy.stats import binomtest
from torch import Tensor

from synthgen.contracts import Check, Rejection, Status, Verdict
from synthgen.errors import GateError, UndecidedError
from synthgen.integration.bank import Bank
from synthgen.quality.gates import Gates
from synthgen.runs.randomness import numpy_stream

SAMPLE = 2000  # cubes that a set verdict rests on at most: five times the largest calibrated set
SAMPLE_BYTES = 1 << 30  # and no more than this of them in memory
REPEATS = 0.05  # policy: share of cubes that may be exact repeats of others; a sound generator has none
COPY_OF_REAL = "nearly a copy of a training cube of the real cohort"
SHOWN_PAIRS, SHOWN_OF_A_REASON = 8, 6  # pictures kept for the page
_CHUNK = 64


@dataclass(frozen=True)
class Neighbour:
    """A cube [C, H, W] and the training cube that is nearest to it: distance, and index in the bank."""

    id: int
    cube: np.ndarray
    distance: float
    index: int


@dataclass
class Findings:
    """What the per-cube gates found.

    proposed: cubes read, and those that were lost before. copies: those that the gates admit and that are copies of a
    real cohort other than theirs. rejected, shown: which and why, and pictures of some.
    distance: of every cube read to its nearest training cube. nearest: the cubes nearest to one.
    sample: accepted cubes [n, C, H, W] for the set gates. places: where in the stream they stood.
    """

    proposed: int = 0
    accepted: int = 0
    copies: int = 0
    rejected: list[Rejection] = field(default_factory=list)
    shown: list[tuple[Rejection, np.ndarray]] = field(default_factory=list)
    distance: list[float] = field(default_factory=list)
    nearest: list[Neighbour] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    sample: list[Tensor] = field(default_factory=list)
    places: list[int] = field(default_factory=list)

    def take(self, other: Findings) -> None:
        """Add what was found in another part of the set, but for its sample."""
        self.proposed += other.proposed
        self.accepted += other.accepted
        self.copies += other.copies
        self.rejected += other.rejected
        self.distance += other.distance
        self.digests += other.digests
        self.nearest = _worst(self.nearest + other.nearest)
        for rejection, cube in other.shown:
            self.show(rejection, cube)

    def show(self, rejection: Rejection, cube: np.ndarray) -> None:
        """Keep the picture of a rejected cube while there are few of its reason."""
        if sum(r.reason == rejection.reason for r, _ in self.shown) < SHOWN_OF_A_REASON:
            self.shown.append((rejection, np.array(cube)))


def most_cubes(gates: Gates) -> int:
    """How many cubes a set verdict rests on at most."""
    return int(min(SAMPLE, max(1, SAMPLE_BYTES // (4 * len(gates.wavelengths) * gates.size**2))))


def drawn(total: int, most: int, *names: str | int) -> np.ndarray:
    """bool [total]: `most` places drawn at random (all where there are fewer), always the same."""
    chosen = np.zeros(total, bool)
    chosen[numpy_stream(0, "judged", *names).permutation(total)[:most]] = True
    return chosen


@torch.no_grad()
def judge_cubes(
    gates: Gates, blocks: Iterable[tuple[Tensor, Tensor]], wanted: np.ndarray, bank: Bank | None = None
) -> Findings:
    """Put cubes through the per-cube gates.

    Args:
        blocks: cubes float32 [n, C, H, W] and ids int64 [n].
        wanted: bool, by place in the stream: which cubes to keep for the set gates.
        bank: where nearest neighbours are looked up; by default the training cubes of the gates. Of a bank of other
            cubes, copies are rejected as well.
    """
    found, place = Findings(), 0
    for many, many_ids in blocks:
        for cubes, ids in zip(many.split(_CHUNK), many_ids.split(_CHUNK), strict=True):
            admission = gates(cubes)
            distance, index = (x.cpu() for x in _nearest(admission.scores, bank, cubes))
            admitted, held = admission.accept.cpu(), cubes.cpu()
            keep = admitted & ~_copied(bank, distance)
            found.copies += int((admitted & ~keep).sum())
            reasons = iter(admission.reasons)
            for row, sample_id in enumerate(ids.tolist()):
                if keep[row]:
                    found.digests.append(hashlib.blake2b(held[row].numpy().tobytes(), digest_size=16).digest())
                    continue
                found.rejected.append(Rejection(id=sample_id, reason=COPY_OF_REAL if admitted[row] else next(reasons)))
                found.show(found.rejected[-1], held[row].numpy())
            kept = keep & torch.from_numpy(wanted[place : place + len(ids)])
            if kept.any():
                found.sample.append(held[kept])
                found.places += (place + kept.nonzero().squeeze(1)).tolist()
            here = [
                Neighbour(int(ids[row]), held[row].numpy().copy(), float(distance[row]), int(index[row]))
                for row in distance.argsort()[:SHOWN_PAIRS].tolist()
                if torch.isfinite(distance[row])
            ]
            found.nearest = _worst(found.nearest + here)
            found.distance += distance.tolist()
            found.proposed += len(ids)
            found.accepted += int(keep.sum())
            place += len(ids)
    return found


def set_verdict(gates: Gates, found: Findings, cubes: Tensor, generator_hash: str | None = None) -> Verdict:
    """The verdict on a set: the set gates on a sample `cubes` of the accepted ones, and whether cubes repeat."""
    rejected = found.proposed - found.accepted - found.copies
    judged = gates.certify(cubes, proposed=found.proposed, rejected=rejected, generator_hash=generator_hash)
    copies = [copies_check(found.copies, found.proposed, gates.limits.alpha)] if found.copies else []
    checks = (judged.checks[0], *copies, repeats_check(found.digests, found.proposed), *judged.checks[1:])
    return judged.model_copy(
        update={"checks": checks, "accepted": found.accepted, "status": worst(c.status for c in checks)}
    )


def copies_check(copies: int, n: int, alpha: float) -> Check:
    """Whether more cubes lie near the training cubes of the real cohort than fresh real ones would."""
    found = binomtest(copies, n).proportion_ci(0.95)
    low, high, share, limit = float(found.low), float(found.high), copies / n, 2 * alpha
    status = Status.PASS if share <= limit else Status.FAIL if low > limit else Status.UNDECIDED
    reason = (
        f"{copies} of {n} cubes are nearly training cubes of the real cohort; of fresh ones at most {alpha:.0%} are"
    )
    return Check(
        name="copies_of_real", status=status, value=share, interval=(low, high), limit=limit, n=n, reason=reason
    )


def repeats_check(digests: Sequence[bytes], proposed: int) -> Check:
    """Whether accepted cubes are exact repeats of one another."""
    name, n, distinct = "repeats", len(digests), len(set(digests))
    if n == 0:
        status = Status.FAIL if proposed else Status.UNDECIDED
        return Check(name=name, status=status, reason=f"none of {proposed} cubes was admitted")
    if n == 1:
        return Check(name=name, status=Status.UNDECIDED, n=1, reason="a single cube cannot show diversity")
    share = (n - distinct) / n
    status = Status.FAIL if share > REPEATS or distinct == 1 else Status.PASS
    reason = f"all {n} cubes are the same cube" if distinct == 1 else f"{distinct} of {n} cubes are distinct"
    return Check(name=name, status=status, value=share, limit=REPEATS, n=n, reason=reason)


def worst(states: Iterable[Status]) -> Status:
    """fail before undecided before pass; an absent structure stands in nobody's way."""
    found = set(states)
    return next((s for s in (Status.FAIL, Status.UNDECIDED) if s in found), Status.PASS)


def sampled(gates: Gates, found: Findings, wanted: np.ndarray) -> Tensor:
    """The sampled cubes float32 [n, C, H, W] whose place is `wanted` (bool, by place in the stream)."""
    empty = torch.zeros(0, len(gates.wavelengths), gates.size, gates.size)
    cubes = torch.cat(found.sample) if found.sample else empty
    rows = wanted[np.array(found.places, int)]
    return cubes if rows.all() else cubes[torch.from_numpy(rows)]


def raise_unless_passed(verdict: Verdict, path: object) -> None:
    """GateError (exit 3) for a fail, UndecidedError (exit 4) for undecided."""
    if verdict.status == Status.FAIL:
        raise GateError(
            f"the gates fail these cubes: {verdict.reason}",
            path=str(path),
            remedy="train the generator longer, or find the fault on the page",
        )
    if verdict.status != Status.PASS:
        raise UndecidedError(
            f"the gates cannot decide: {verdict.reason}",
            path=str(path),
            remedy="judge more cubes, or calibrate the gates on more patients",
        )


def _nearest(scores: dict[str, Tensor], bank: Bank | None, cubes: Tensor) -> tuple[Tensor, Tensor]:
    if bank is None or bank.detector is None:
        return scores["authenticity"], scores["nearest"]
    return bank.nearest(cubes)


def _copied(bank: Bank | None, distance: Tensor) -> Tensor:
    if bank is None or bank.limit is None:
        return torch.zeros(len(distance), dtype=torch.bool)
    return distance < bank.limit


def _worst(found: list[Neighbour]) -> list[Neighbour]:
    return nsmallest(SHOWN_PAIRS, found, key=lambda n: n.distance)
