"""From a statistic beside its limit to a check in words.

A value within its limit passes; it fails when its whole interval lies beyond the limit, and is undecided between. The
policy limit of the Frechet ratio leaves room above real-against-real, so there the whole interval must lie within it to
pass. Nothing passes for lack of data.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from scipy.stats import betabinom, mannwhitneyu, norm

from synthgen.contracts import Check, Status
from synthgen.quality.per_cube.acceptance import AcceptanceCounts
from synthgen.quality.sets.null import Estimate
from synthgen.quality.sets.statistics import Measure, Statistic
from synthgen.science.intervals import exact_interval

GOOD, USABLE = 1.5, 2.5  # policy: Frechet distance as a multiple of real against real at the same size
LEAST_ACCEPTANCE = 0.5  # policy: below it the gates make the set, not the generator
LEAST_STRATUM = 0.8  # policy: acceptance of a stratum against that of all; filtering removes the rare phenotype first
COPYING_Z = 3.0  # the usual alarm of C_T; its null is the standard normal
SURE = 0.01  # probability at which more near-certain copies than expected are no accident
ALPHA = 0.05  # for which these two hold; a verdict that is one of many is held to a smaller one
_STRATUM = 20  # proposals below which a stratum is no evidence


def worst(states: Iterable[Status]) -> Status:
    """fail before undecided before pass; an absent structure stands in nobody's way."""
    found = set(states)
    return next((s for s in (Status.FAIL, Status.UNDECIDED) if s in found), Status.PASS)


def decide(found: Estimate, limit: float, whole: bool = False) -> Status:
    """pass, fail or undecided; `whole`: the whole interval must lie within the limit to pass, not the value alone."""
    if not np.isfinite(found.value):
        return Status.UNDECIDED
    if (found.high if whole else found.value) <= limit:
        return Status.PASS
    return Status.FAIL if found.low > limit else Status.UNDECIDED


def needed_proposals(alpha: float) -> int:
    """Proposals that an authenticity gate at level `alpha` must have seen: 2,000 at 1 %, 500 at 5 %.

    Then 20 to 25 fresh cubes are rejected by chance, and the rejected fraction is known to about a fifth of itself.
    """
    return int(np.ceil(np.interp(alpha, [0.01, 0.05], [20, 25]) / alpha - 1e-9))


def memorization_check(
    acceptance: AcceptanceCounts,
    alpha: float,
    limit: float | None,
    strict: float | None,
    level: float,
    note: str,
    error: float = ALPHA,
) -> Check:
    """Whether more proposals lie at training cubes than fresh real ones would.

    Two levels: the share rejected at `alpha`, and the number nearer than every calibration patient (distance below
    `strict`): a few copies in many cubes show there first. Of fresh cubes the expected fraction there is
    level = 1 / (patients + 1), but the limit is the least of few distances and itself a draw: the share is
    Beta(1, patients), so that the number is beta-binomial, wider than a binomial at `level`.
    """
    name, n = "memorization", acceptance.proposed
    if limit is None or strict is None:
        return Check(name=name, status=Status.UNDECIDED, n=n, reason=note)
    if n == 0:
        return Check(name=name, status=Status.UNDECIDED, reason="no cube was proposed")
    low, high = exact_interval(acceptance.copies, n)
    share, most, needed = acceptance.copies / n, 2 * alpha, needed_proposals(alpha)
    nearer = int((np.asarray(acceptance.scores) < strict).sum())
    chance = float(betabinom.sf(nearer - 1, n, 1, 1 / level - 1))
    reason = (
        f"{acceptance.copies} of {n} proposals are nearly copies of training cubes; of fresh real ones {alpha:.0%} are"
    )
    sure = chance < SURE * error / ALPHA
    if sure:
        reason += f"; {nearer} lie nearer than any unseen real cube (by chance: {chance:.1g})"
    status = Status.FAIL if low > most or sure else Status.PASS if share <= most else Status.UNDECIDED
    if status != Status.FAIL and n < needed:
        status, reason = Status.UNDECIDED, f"{reason}; {needed} proposals are needed to be sure"
    return Check(name=name, status=status, value=share, interval=(low, high), limit=most, n=n, reason=reason)


def copying_z(scores: np.ndarray, unseen: np.ndarray) -> float:
    """C_T of Meehan, Chaudhuri & Dasgupta 2020 with one cell: Mann-Whitney U of the distances to the nearest training
    cube, of synthetic [n] against unseen real cubes [m], in standard errors; standard normal where nothing is copied.

    Negative where synthetic cubes lie nearer. (The authors' code adds 1/2 to U; the paper does not.)
    """
    n, m = len(scores), len(unseen)
    u = float(mannwhitneyu(scores, unseen, method="asymptotic").statistic)
    return (u - n * m / 2) / float(np.sqrt(n * m * (n + m + 1) / 12))


def copying_check(scores: np.ndarray, unseen: np.ndarray, error: float = ALPHA) -> Check:
    """C_T (Meehan 2020): do proposals lie nearer to the training cubes than unseen real ones? One cube a patient."""
    name, n = "copying_ct", len(scores)
    if min(n, len(unseen)) < _STRATUM:
        return Check(name=name, status=Status.UNDECIDED, n=n, reason="too few cubes to compare distances of")
    z = copying_z(scores, unseen)
    alarm = float(norm.isf(norm.sf(COPYING_Z) * error / ALPHA))
    status = Status.FAIL if -z > alarm else Status.PASS
    word = "nearer to" if z < 0 else "further from"
    reason = f"proposals lie {word} the training cubes than unseen real cubes do (z = {z:.1f}, alarm at -{alarm:.2g})"
    return Check(name=name, status=status, value=-z, interval=(-z - 1.96, -z + 1.96), limit=alarm, n=n, reason=reason)


def acceptance_checks(acceptance: AcceptanceCounts) -> list[Check]:
    """Overall acceptance at the per-cube gates, and the stratum that fares worst."""
    n = acceptance.proposed
    if n == 0:
        return [Check(name="acceptance", status=Status.UNDECIDED, reason="no cube was proposed")]
    share = acceptance.accepted / n
    low, high = exact_interval(acceptance.accepted, n)
    status = Status.FAIL if high < LEAST_ACCEPTANCE else Status.PASS if share >= LEAST_ACCEPTANCE else Status.UNDECIDED
    why = ", ".join(f"{count} {reason}" for reason, count in acceptance.reasons.most_common(3))
    reason = f"{acceptance.accepted} of {n} proposals admitted" + (f"; rejected: {why}" if why else "")
    overall = Check(
        name="acceptance",
        status=status,
        value=share,
        interval=(low, high),
        limit=LEAST_ACCEPTANCE,
        n=n,
        reason=reason,
    )
    return [overall, _strata_check(acceptance, share)]


def _strata_check(acceptance: AcceptanceCounts, share: float) -> Check:
    name = "acceptance_per_stratum"
    counted = {s: c for s, c in acceptance.strata.items() if c[0] >= _STRATUM}
    if len(counted) < 2 or share == 0:
        return Check(
            name=name, status=Status.UNDECIDED, n=acceptance.proposed, reason="too few proposals in each stratum"
        )
    ratios = {s: (accepted / proposed / share) for s, (proposed, accepted) in counted.items()}
    least = min(ratios, key=lambda s: ratios[s])
    proposed, accepted = counted[least]
    low, high = (end / share for end in exact_interval(accepted, proposed))
    value = ratios[least]
    status = Status.FAIL if high < LEAST_STRATUM else Status.PASS if value >= LEAST_STRATUM else Status.UNDECIDED
    reason = f"least of '{least}': {accepted} of {proposed} admitted, {value:.2f} times the fraction of all"
    return Check(
        name=name, status=status, value=value, interval=(low, high), limit=LEAST_STRATUM, n=proposed, reason=reason
    )


def frechet_check(name: str, distance: Estimate, median: float, size: int, n: int) -> Check:
    """The Frechet distance as a multiple of real against real."""
    ratio = Estimate(*(v / median for v in distance))
    grade = "good" if ratio.value <= GOOD else "usable" if ratio.value <= USABLE else "not usable"
    return Check(
        name=name,
        status=decide(ratio, USABLE, whole=True),
        value=ratio.value,
        interval=(max(ratio.low, 0.0), ratio.high),
        limit=USABLE,
        n=n,
        reason=f"{ratio.value:.2f} times real against real at {size} cubes: {grade} (good up to {GOOD})",
    )


NO_LIMIT = "these gates have no limit for it: found in too few real cubes, or calibrated before it was judged"


def family_check(name: Statistic, found: Estimate, limit: float | None, size: int, n: int, more: str = "") -> Check:
    """A statistic beside its family-wise limit; absent where the structure is in too few cubes of either side."""
    if limit is None:
        return Check(name=name, status=Status.ABSENT, n=n, reason=NO_LIMIT)
    if not np.isfinite(found.value):
        return Check(
            name=name, status=Status.ABSENT, limit=limit, n=n, reason="found in too few synthetic cubes to compare"
        )
    low = found.low if name.measure in SIGNED else max(found.low, 0.0)
    reason = f"{IN_WORDS[name.measure]} {found.value:.3g}"
    reason += f"; between real sets of {size} cubes at most {limit:.3g}{more}"
    return Check(
        name=name,
        status=decide(found, limit),
        value=found.value,
        interval=(low, found.high) if np.isfinite(found.low) else None,
        limit=limit,
        n=n,
        reason=reason,
    )


SIGNED = (Measure.KID, Measure.VENDI)  # statistics that may be negative
IN_WORDS = {
    Measure.LEVEL: "divergence of the brightness",
    Measure.SHAPE: "divergence of the spectral shape",
    Measure.EXTENT: "divergence of the area",
    Measure.SPECTRUM: "shift of the mean spectrum in whitened units",
    Measure.CONTRAST: "shift of the contrast to the surroundings in whitened units",
    Measure.FRECHET: "Frechet distance",
    Measure.KID: "kernel distance",
    Measure.COVERAGE: "fraction of real cubes with no synthetic one near",
    Measure.VENDI: "diversity lost (1 - ratio of Vendi scores)",
}


def similarity_check(name: str, signed: Estimate, limit: float | None, n: int) -> Check:
    """|difference| of the mean pairwise MS-SSIM from that of real cubes."""
    if limit is None:
        return Check(name=name, status=Status.UNDECIDED, n=n, reason="too few real patients to compare")
    ends = sorted((abs(signed.low), abs(signed.high)))
    low = 0.0 if signed.low <= 0 <= signed.high else ends[0]
    size = Estimate(abs(signed.value), low, ends[1])
    word = "more" if signed.value > 0 else "less"
    reason = f"synthetic cubes resemble each other {word} than real ones do: {signed.value:+.3f}, limit {limit:.3f}"
    return Check(
        name=name,
        status=decide(size, limit),
        value=size.value,
        interval=(low, ends[1]),
        limit=limit,
        n=n,
        reason=reason,
    )
