"""The verdict on a set of cubes, composed in one place for every command that gives one.

`gate` (each shard and the whole set), `evaluate`, the certificate of `sample` and `pretrain`, and the rolling window
give the same checks in the same order; each brings the evidence that it has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from synthgen.contracts import Check, Status, Verdict
from synthgen.errors import GateError, UndecidedError
from synthgen.quality.checks import worst
from synthgen.quality.gates import Gates
from synthgen.quality.per_cube.acceptance import COPY, AcceptanceCounts
from synthgen.quality.sets.statistics import MS_SSIM
from synthgen.quality.sets.table import Rows
from synthgen.science.intervals import exact_interval

REPEATS = 0.05  # policy: fraction of cubes that may be exact repeats of others; a sound generator has none


@dataclass
class Evidence:
    """What a verdict rests on.

    acceptance: of every cube proposed. rows: of accepted cubes. similarity [k, k]: MS-SSIM of pairs of them, where
    compared. digests: of accepted cubes; None where they are not at hand, and then repeats are not counted. copies:
    admitted by the gates, yet copies of a real cohort other than theirs.
    """

    acceptance: AcceptanceCounts = field(default_factory=AcceptanceCounts)
    rows: Rows = field(default_factory=lambda: Rows.cat([]))
    similarity: np.ndarray | None = None
    digests: list[bytes] | None = None
    copies: int = 0


def compose_verdict(
    gates: Gates,
    evidence: Evidence,
    generator_hash: str | None = None,
    *,
    lost: Mapping[str, int] | None = None,
    unknown: int = 0,
    alpha: float = 0.05,
    images: bool = True,
    more: Sequence[Check] = (),
) -> Verdict:
    """The verdict: the set gates, copies of the real cohort, repeats, and what else was measured.

    Args:
        lost: proposals that were rejected before these cubes were written, by reason. unknown: those lost for a reason
            that nobody wrote down; they count as copies, so that nothing passes because of them.
        alpha: family-wise level; smaller where this is one verdict of many.
        images: whether images are compared as well (MS-SSIM).
        more: further checks, of the generator.
    """
    acceptance = _with_lost(evidence.acceptance, lost or {}, unknown)
    judged = gates.certify(evidence.rows, acceptance, evidence.similarity, generator_hash, alpha=alpha)
    first, *others = (c for c in judged.checks if images or c.name != gates.check_name(MS_SSIM))
    own, proposed = [], evidence.acceptance.proposed
    if evidence.copies:
        own.append(memorization_check(evidence.copies, proposed, gates.limits.authenticity.alpha))
    if evidence.digests is not None:
        own.append(repeats_check(evidence.digests, proposed))
    checks = (first, *own, *others, *more)
    status = worst(c.status for c in checks)
    return judged.model_copy(update={"checks": checks, "accepted": evidence.acceptance.accepted, "status": status})


def _with_lost(acceptance: AcceptanceCounts, lost: Mapping[str, int], unknown: int) -> AcceptanceCounts:
    """The counts with proposals that were rejected before; of those it knows the reasons, not the strata."""
    full = AcceptanceCounts()
    full.merge(acceptance)
    full.proposed += sum(lost.values()) + unknown
    full.copies += lost.get(COPY, 0) + unknown
    full.reasons += Counter(lost) + Counter({"for a reason not on record": unknown})
    return full


def memorization_check(copies: int, n: int, alpha: float) -> Check:
    """Whether more cubes lie near the training cubes of the real cohort than fresh real ones would."""
    low, high = exact_interval(copies, n)
    fraction, limit = copies / n, 2 * alpha
    status = Status.PASS if fraction <= limit else Status.FAIL if low > limit else Status.UNDECIDED
    reason = (
        f"{copies} of {n} cubes are nearly training cubes of the real cohort; of fresh ones at most {alpha:.0%} are"
    )
    name, ends = "memorization_of_real", (low, high)
    return Check(name=name, status=status, value=fraction, interval=ends, limit=limit, n=n, reason=reason)


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


def enforce(verdict: Verdict, policy: str = "require", path: object = None) -> Status:
    """Under `require` only a pass goes on: GateError (exit 3) for a fail, UndecidedError (exit 4) for undecided.

    path: of the cubes that were judged; None where the verdict is on a generator.
    Returns the stamp for shards, metrics and backbone: 'pass' or 'uncertified'.
    """
    if verdict.status == Status.PASS:
        return Status.PASS
    if policy != "require":
        return Status.UNCERTIFIED
    failed = verdict.status == Status.FAIL
    kind = GateError if failed else UndecidedError
    if path is None:
        what = f"the generator's cubes {'failed' if failed else 'cannot be certified'}"
        remedy = "train the generator longer, or use the cubes uncertified with --gates report"
        raise kind(f"{what}: {verdict.reason}", remedy=remedy)
    if failed:
        what, remedy = "the gates fail these cubes", "train the generator longer, or find the fault on the page"
    else:
        what, remedy = "the gates cannot decide", "judge more cubes, or calibrate the gates on more patients"
    raise kind(f"{what}: {verdict.reason}", path=str(path), remedy=remedy)
