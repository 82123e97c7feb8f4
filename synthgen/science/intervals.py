"""Exact intervals of shares."""

from __future__ import annotations

from scipy.stats import binomtest


def exact_interval(hits: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Interval of a share from `hits` of `n` (Clopper & Pearson 1934); it covers the truth at least `level` often."""
    found = binomtest(hits, n).proportion_ci(level, method="exact")
    return float(found.low), float(found.high)
