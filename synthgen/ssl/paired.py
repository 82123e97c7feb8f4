"""Two ways to pretrain, compared on the same patients and the same seeds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from synthgen.errors import InputError, MismatchError
from synthgen.runs.randomness import numpy_stream
from synthgen.ssl.auroc import auroc, middle, resamples, weighted_auroc
from synthgen.ssl.probe import Comparison, ProbeResult


class SeedComparison(Comparison):
    """Mean difference of AUROC over seeds; patients and seeds are both resampled."""

    first: float = Field(description="mean AUROC of the first over the seeds")
    second: float
    seeds: int


def compare_seeds(first: Sequence[ProbeResult], second: Sequence[ProbeResult], seed: int = 0) -> SeedComparison:
    """Compare probes pairwise: `first[s]` and `second[s]` are of one seed.

    Every draw takes patients and seeds with replacement, the same ones on both sides. With one seed the interval holds
    for that seed alone. MismatchError unless all judged the same patients, InputError without pairs.
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
    picked = numpy_stream("seed bootstrap", seed).integers(0, len(first), (len(first), draws.shape[1]))
    means = [float(np.mean([auroc(np.array(r.scores), labels) for r in side])) for side in (first, second)]
    return SeedComparison(
        difference=means[0] - means[1],
        interval=middle(np.take_along_axis(draws, picked, 0).mean(0)),
        first=means[0],
        second=means[1],
        seeds=len(first),
    )
