"""Judging cubes wherever they are from: every one through the per-cube gates, then shards and the whole set.

What the set gates need is kept as rows of numbers when a cube is judged; the cubes themselves are let go, but for
the few that are compared as images or shown. Nothing is passed for lack of data: too few cubes make a verdict
undecided, cubes that repeat each other fail, and proposals lost for an unknown reason count as copies.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from heapq import nsmallest

import numpy as np
import torch
from torch import Tensor

from synthgen.contracts import Admission, Check, Rejection, Status, Verdict
from synthgen.errors import GateError, UndecidedError
from synthgen.integration.judging.reference import Bank
from synthgen.quality.checks import worst
from synthgen.quality.gates import Gates
from synthgen.quality.per_cube.acceptance import COPY, Tally
from synthgen.quality.sets.table import Rows
from synthgen.runs.randomness import numpy_stream
from synthgen.science.intervals import exact_interval

SAMPLE = 2000  # cubes that a set verdict rests on at most: five times the largest calibrated set
REPEATS = 0.05  # policy: fraction of cubes that may be exact repeats of others; a sound generator has none
COPY_OF_REAL = "nearly a copy of a training cube of the real cohort"
SHOWN_PAIRS, SHOWN_OF_A_REASON = 8, 6  # pictures kept for the page
SCORES = ("spectra", "physics", "density")  # of the per-cube gates, kept for the page
_CHUNK = 64

Blocks = Iterator[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Neighbour:
    """A cube [C, H, W] and the training cube that is nearest to it: its index in the bank, the distance by which it is
    judged, and those of the two detectors."""

    id: int
    cube: np.ndarray
    index: int
    distance: float
    contrastive: float
    coarse: float


@dataclass
class Findings:
    """What the per-cube gates found.

    tally: of every cube read. copies: admitted by the gates, yet copies of a real cohort other than theirs.
    rejected, shown: which and why, and pictures of some. nearest: the cubes nearest to a training cube.
    distance, scores: of every cube read, to its nearest training cube and by `SCORES`. digests: of accepted cubes.
    rows, rank: of accepted cubes, at most `SAMPLE`, those of the lowest rank. images: (rank, cube) of `wanted` of them;
    similarity [k, k]: MS-SSIM of their pairs, once they have been compared.
    """

    wanted: int
    tally: Tally = field(default_factory=Tally)
    copies: int = 0
    rejected: list[Rejection] = field(default_factory=list)
    shown: list[tuple[Rejection, np.ndarray]] = field(default_factory=list)
    distance: list[float] = field(default_factory=list)
    scores: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in SCORES})
    nearest: list[Neighbour] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    rows: Rows = field(default_factory=lambda: Rows.cat([]))
    rank: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    images: list[tuple[int, Tensor]] = field(default_factory=list)
    similarity: np.ndarray | None = None

    def take(self, other: Findings) -> None:
        """Add what was found in another part of the set."""
        self.tally.merge(other.tally)
        self.copies += other.copies
        self.rejected += other.rejected
        self.distance += other.distance
        for name, values in other.scores.items():
            self.scores[name] += values
        self.digests += other.digests
        self.nearest = _closest(self.nearest + other.nearest)
        self.keep(other.rows, other.rank, other.images)
        for rejection, cube in other.shown:
            self.show(rejection, cube)

    def show(self, rejection: Rejection, cube: np.ndarray) -> None:
        """Keep the picture of a rejected cube while there are few of its reason."""
        if sum(r.reason == rejection.reason for r, _ in self.shown) < SHOWN_OF_A_REASON:
            self.shown.append((rejection, np.array(cube)))

    def keep(self, rows: Rows, rank: np.ndarray, images: Sequence[tuple[int, Tensor]]) -> None:
        """Add rows with their ranks, and images; those of the lowest rank stay."""
        rows, rank = Rows.cat([self.rows, rows]), np.concatenate([self.rank, rank])
        chosen = np.sort(np.argsort(rank, kind="stable")[:SAMPLE])
        self.rows, self.rank = (rows, rank) if len(chosen) == len(rank) else (rows.take(chosen), rank[chosen])
        self.images = nsmallest(self.wanted, [*self.images, *images], key=lambda pair: pair[0])

    def wants(self, rank: int) -> bool:
        """Whether a cube of this rank is among the images."""
        return len(self.images) < self.wanted or rank < self.images[-1][0]


def ranks(total: int, *names: str | int) -> np.ndarray:
    """int64 [total]: the cubes of a set in a random order that is always the same; those of low rank are its sample."""
    return numpy_stream(0, "judged", *names).permutation(total)


@torch.no_grad()
def judge_cubes(gates: Gates, blocks: Blocks, rank: np.ndarray, bank: Bank | None = None) -> Findings:
    """Put cubes through the per-cube gates.

    Args:
        blocks: cubes float32 [n, C, H, W] and ids int64 [n].
        rank: by place in the stream; the set gates see the accepted cubes of lowest rank.
        bank: where nearest neighbours are looked up; by default the training cubes of the gates. Of a bank of other
            cubes, copies are rejected as well.
    """
    findings, place = Findings(gates.images), 0
    for many, many_ids in blocks:
        for cubes, ids in zip(many.split(_CHUNK), many_ids.split(_CHUNK), strict=True):
            _judge_block(gates, findings, cubes, ids, rank[place : place + len(ids)], bank)
            place += len(ids)
    return findings


def _judge_block(
    gates: Gates, findings: Findings, cubes: Tensor, ids: Tensor, rank: np.ndarray, bank: Bank | None
) -> None:
    admission = gates(cubes)
    near = {name: admission.scores[name].cpu() for name in ("authenticity", "contrastive", "coarse", "nearest")}
    if bank is not None and not bank.of_the_gates:
        near, admission, copies = _beside(bank, cubes, admission)
        findings.copies += copies
    findings.tally.add(admission)
    accept, held, reasons = admission.accept.cpu(), cubes.cpu(), iter(admission.reasons)
    for row, sample_id in enumerate(ids.tolist()):
        if accept[row]:
            findings.digests.append(hashlib.blake2b(held[row].numpy().tobytes(), digest_size=16).digest())
        else:
            findings.rejected.append(Rejection(id=sample_id, reason=next(reasons)))
            findings.show(findings.rejected[-1], held[row].numpy())
    mine = rank[accept.numpy()]
    rows = zip(mine.tolist(), accept.nonzero().flatten().tolist(), strict=True)
    findings.keep(gates.rows(admission), mine, [(r, held[row].clone()) for r, row in rows if findings.wants(r)])
    findings.nearest = _closest(
        findings.nearest
        + [
            Neighbour(
                int(ids[row]),
                held[row].numpy().copy(),
                int(near["nearest"][row]),
                *(float(near[name][row]) for name in ("authenticity", "contrastive", "coarse")),
            )
            for row in near["authenticity"].argsort()[:SHOWN_PAIRS].tolist()
            if torch.isfinite(near["authenticity"][row]) and torch.isfinite(held[row]).all()
        ]
    )
    findings.distance += near["authenticity"].tolist()
    for name in SCORES:
        findings.scores[name] += admission.scores[name].tolist()


def _beside(bank: Bank, cubes: Tensor, admission: Admission) -> tuple[dict[str, Tensor], Admission, int]:
    """Distances in a bank of other training cubes, the admission without copies of those, and how many there were."""
    score, contrastive, coarse, index = (x.cpu() for x in bank.nearest(cubes))
    near = {"authenticity": score, "contrastive": contrastive, "coarse": coarse, "nearest": index}
    if bank.limit is None:
        return near, admission, 0
    before = admission.accept.cpu()
    accept = before & ~(score < bank.limit)
    old = iter(admission.reasons)
    reasons = tuple(
        COPY_OF_REAL if was else next(old) for was, now in zip(before.tolist(), accept.tolist(), strict=True) if not now
    )
    return (
        near,
        replace(admission, accept=accept.to(admission.accept.device), reasons=reasons),
        int((before & ~accept).sum()),
    )


def set_verdict(
    gates: Gates,
    findings: Findings,
    generator_hash: str | None = None,
    *,
    lost: Mapping[str, int] | None = None,
    unknown: int = 0,
    alpha: float = 0.05,
    images: bool = True,
) -> Verdict:
    """The verdict on a set: the set gates on the sampled rows, and whether cubes repeat.

    Args:
        lost: proposals that were rejected before these cubes were written, by reason. unknown: those lost for a reason
            that nobody wrote down; they count as copies, so that nothing passes because of them.
        alpha: family-wise level; smaller where this is one verdict of many.
        images: whether to compare images as well (MS-SSIM), which takes longer than everything else.
    """
    pictures = [cube for _, cube in findings.images]
    findings.similarity = gates.similarity(torch.stack(pictures)) if images and len(pictures) > 1 else None
    tally = _with_lost(findings.tally, lost or {}, unknown)
    judged = gates.certify(findings.rows, tally, findings.similarity, generator_hash, alpha=alpha)
    proposed = findings.tally.proposed
    copies = [copies_check(findings.copies, proposed, gates.limits.authenticity.alpha)] if findings.copies else []
    checks = [c for c in judged.checks if images or not c.name.startswith("ms_ssim")]
    checks = (checks[0], *copies, repeats_check(findings.digests, proposed), *checks[1:])
    return judged.model_copy(
        update={"checks": checks, "accepted": findings.tally.accepted, "status": worst(c.status for c in checks)}
    )


def _with_lost(tally: Tally, lost: Mapping[str, int], unknown: int) -> Tally:
    """The tally with proposals that were rejected before; of those it knows the reasons, not the strata."""
    full = Tally()
    full.merge(tally)
    full.proposed += sum(lost.values()) + unknown
    full.copies += lost.get(COPY, 0) + unknown
    full.reasons += Counter(lost) + Counter({"for a reason not on record": unknown})
    return full


def copies_check(copies: int, n: int, alpha: float) -> Check:
    """Whether more cubes lie near the training cubes of the real cohort than fresh real ones would."""
    low, high = exact_interval(copies, n)
    fraction, limit = copies / n, 2 * alpha
    status = Status.PASS if fraction <= limit else Status.FAIL if low > limit else Status.UNDECIDED
    reason = (
        f"{copies} of {n} cubes are nearly training cubes of the real cohort; of fresh ones at most {alpha:.0%} are"
    )
    return Check(
        name="copies_of_real", status=status, value=fraction, interval=(low, high), limit=limit, n=n, reason=reason
    )


def repeats_check(digests: Sequence[bytes], proposed: int) -> Check:
    """Whether accepted cubes are exact repeats of one another."""
    name, n, distinct = "repeats", len(digests), len(set(digests))
    if n == 0:
        status = Status.FAIL if proposed else Status.UNDECIDED
        return Check(name=name, status=status, reason=f"none of {proposed} cubes was admitted")
    if n == 1:
        return Check(name=name, status=Status.UNDECIDED, n=1, reason="a single cube cannot show diversity")
    fraction = (n - distinct) / n
    status = Status.FAIL if fraction > REPEATS or distinct == 1 else Status.PASS
    reason = f"all {n} cubes are the same cube" if distinct == 1 else f"{distinct} of {n} cubes are distinct"
    return Check(name=name, status=status, value=fraction, limit=REPEATS, n=n, reason=reason)


def counted(blocks: Blocks, advance: Callable[[int], None]) -> Blocks:
    """The blocks, each reported to `advance` when it is done."""
    for cubes, ids in blocks:
        yield cubes, ids
        advance(len(ids))


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


def _closest(neighbours: list[Neighbour]) -> list[Neighbour]:
    return nsmallest(SHOWN_PAIRS, neighbours, key=lambda n: n.distance)
