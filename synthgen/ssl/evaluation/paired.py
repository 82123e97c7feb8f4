"""Two ways to pretrain, compared on the same patients and the same seeds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field
from scipy.stats import t as student_t

from synthgen.errors import InputError, MismatchError
from synthgen.runs.randomness import numpy_stream
from synthgen.science.bootstrap import middle
from synthgen.ssl.evaluation.auroc import auroc, resamples, weighted_auroc
from synthgen.ssl.evaluation.probe import Comparison, ProbeResult


class SeedComparison(Comparison):
    """Mean difference of AUROC over seeds; the interval is over patients and, with several seeds, over seeds."""

    first: float = Field(description="mean AUROC of the first over the seeds")
    second: float
    seeds: int


def compare_seeds(first: Sequence[ProbeResult], second: Sequence[ProbeResult], seed: int = 0) -> SeedComparison:
    """Compare probes pairwise: `first[s]` and `second[s]` are of one seed.

    Every draw takes patients with replacement, the same ones on both sides and in every seed. To its mean difference
    comes what the choice of k seeds adds: Student's t of k - 1 degrees of freedom times the standard error of the
    differences seen. (Resampling two or three seeds would never leave their range: of arms that differ by the luck of
    their seeds alone, up to a third would be called better or worse.) With one seed the interval holds for that seed
    alone. MismatchError unless all judged the same patients, InputError without pairs.
    """
    if not first or len(first) != len(second):
        raise InputError("comparison of unequal numbers of seeds", found=f"{len(first)} and {len(second)}")
    for result in (*first, *second):
        if result.patients != first[0].patients or result.labels != first[0].labels:
            raise MismatchError(
                "probes of different patients cannot be compared",
                found=f"{first[0].n_patients} and {result.n_patients} patients",
                expected="the same patients and labels",
            )
    labels = np.array(first[0].labels)
    weights = resamples(labels, seed)
    draws = np.stack(
        [
            weighted_auroc(np.array(a.scores), labels, weights) - weighted_auroc(np.array(b.scores), labels, weights)
            for a, b in zip(first, second, strict=True)
        ]
    )
    reached = [[auroc(np.array(result.scores), labels) for result in side] for side in (first, second)]
    seen = np.array(reached[0]) - np.array(reached[1])  # [k]
    means = [float(np.mean(side)) for side in reached]
    draws = draws.mean(0) + luck_of_seeds(seen, draws.shape[1], seed)
    return SeedComparison(
        difference=means[0] - means[1],
        interval=middle(draws.clip(-1, 1)),  # no difference of AUROC is larger
        first=means[0],
        second=means[1],
        seeds=len(first),
    )


def luck_of_seeds(seen: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """How far the mean of `seen` [k] may lie from that of all seeds, `draws` times: t_{k-1} s / sqrt(k); 0 for k = 1.

    The quantiles of t are evenly spaced and dealt out in a random order: tails as heavy as those of two seeds would
    leave too much to chance in a thousand free draws.
    """
    if len(seen) == 1:
        return np.zeros(draws)
    quantiles = (numpy_stream("luck of seeds", seed).permutation(draws) + 0.5) / draws
    return student_t.ppf(quantiles, len(seen) - 1) * seen.std(ddof=1) / np.sqrt(len(seen))
