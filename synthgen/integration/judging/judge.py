"""Judging cubes wherever they are from: every one through the per-cube gates, then shards and the whole set.

What the set gates need is kept as rows of numbers when a cube is judged; the cubes themselves are let go, but for
the few that are compared as images or shown. Nothing is passed for lack of data: too few cubes make a verdict
undecided, cubes that repeat each other fail, and proposals lost for an unknown reason count as copies.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from heapq import nsmallest

import numpy as np
import torch
from torch import Tensor

from synthgen.contracts import Admission, Check, Rejection, Verdict
from synthgen.generator.dataset import SyntheticRetinaDataset
from synthgen.generator.generator import Generator
from synthgen.integration.judging.reference import Bank
from synthgen.integration.judging.verdict import Evidence, compose_verdict
from synthgen.quality.gates import Gates
from synthgen.quality.per_cube.plausibility import GATES
from synthgen.quality.sets.table import Rows
from synthgen.runs.progress import progress
from synthgen.runs.randomness import numpy_stream

SAMPLE = 2000  # cubes that a set verdict rests on at most: five times the largest calibrated set
COPY_OF_REAL = "nearly a copy of a training cube of the real cohort"
SHOWN_PAIRS, SHOWN_OF_A_REASON = 8, 6  # pictures kept for the page
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
class Findings(Evidence):
    """What the per-cube gates found.

    rejected, shown: which and why, and pictures of some. nearest: the cubes nearest to a training cube.
    distance, scores: of every cube read, to its nearest training cube and by `GATES`.
    rows, rank: of accepted cubes, at most `most`, those of the lowest rank. images: (rank, cube) of `wanted` of them.
    """

    wanted: int = 0
    most: int = field(default_factory=lambda: SAMPLE)
    digests: list[bytes] = field(default_factory=list)  # of all that were accepted
    rejected: list[Rejection] = field(default_factory=list)
    shown: list[tuple[Rejection, np.ndarray]] = field(default_factory=list)
    distance: list[float] = field(default_factory=list)
    scores: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in GATES})
    nearest: list[Neighbour] = field(default_factory=list)
    rank: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    images: list[tuple[int, Tensor]] = field(default_factory=list)

    def take(self, other: Findings) -> None:
        """Add what was found in another part of the set."""
        self.acceptance.merge(other.acceptance)
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
        chosen = np.sort(np.argsort(rank, kind="stable")[: self.most])
        self.rows, self.rank = (rows, rank) if len(chosen) == len(rank) else (rows.take(chosen), rank[chosen])
        self.images = nsmallest(self.wanted, [*self.images, *images], key=lambda pair: pair[0])

    def compare(self, gates: Gates, device: torch.device | str = "cpu") -> None:
        """Compare the images with one another (MS-SSIM), which takes longer than everything else."""
        pictures = [cube for _, cube in self.images]
        self.similarity = gates.similarity(torch.stack(pictures).to(device)) if len(pictures) > 1 else None

    def wants(self, rank: int) -> bool:
        """Whether a cube of this rank is among the images."""
        return len(self.images) < self.wanted or rank < self.images[-1][0]


def ranks(total: int, *names: str | int) -> np.ndarray:
    """int64 [total]: the cubes of a set in a random order that is always the same; those of low rank are its sample."""
    return numpy_stream(0, "judged", *names).permutation(total)


@torch.no_grad()
def judge_cubes(
    gates: Gates, blocks: Blocks, rank: np.ndarray, bank: Bank | None = None, most: int | None = None
) -> Findings:
    """Put cubes through the per-cube gates.

    Args:
        blocks: cubes float32 [n, C, H, W] and ids int64 [n].
        rank: by place in the stream; the set gates see the accepted cubes of lowest rank.
        bank: where nearest neighbours are looked up; by default the training cubes of the gates. Of a bank of other
            cubes, copies are rejected as well.
        most: cubes that the set gates see; by default `SAMPLE`.
    """
    findings, place = Findings(wanted=gates.images, most=most or SAMPLE), 0
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
    findings.acceptance.add(admission)
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
    for name in GATES:
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


def counted(blocks: Blocks, advance: Callable[[int], None]) -> Blocks:
    """The blocks, each reported to `advance` when it is done."""
    for cubes, ids in blocks:
        yield cubes, ids
        advance(len(ids))


@torch.no_grad()
def certify(
    generator: Generator,
    gates: Gates,
    *,
    count: int,
    seed: int,
    steps: int,
    sampler: str,
    more: Sequence[Check] = (),
) -> Verdict:
    """Propose `count` cubes, put them through the per-cube gates, and let the set gates judge the accepted ones."""
    dataset = SyntheticRetinaDataset(
        generator, seed=seed, steps=steps, sampler=sampler, count=count, output="cubes", rank=0, world=1
    )
    blocks = ((chunk.cubes, chunk.tokens.id) for chunk in dataset.chunks() if chunk.cubes is not None)
    with progress("certificate", count, "cube") as bar:
        findings = judge_cubes(gates, counted(blocks, bar.advance), np.arange(count), most=count)
    findings.compare(gates, generator.device)
    return compose_verdict(gates, findings, generator.hash, more=more)


def _closest(neighbours: list[Neighbour]) -> list[Neighbour]:
    return nsmallest(SHOWN_PAIRS, neighbours, key=lambda n: n.distance)
