"""The statistics behind a verdict as a page shows them: on their null distributions, per stratum, per band."""

from __future__ import annotations

from typing import Any

import numpy as np

from synthgen.contracts import Verdict
from synthgen.quality.gates import Gates
from synthgen.quality.per_cube.acceptance import AcceptanceCounts
from synthgen.quality.sets.metrics import band_wasserstein
from synthgen.quality.sets.null import disjoint_sets
from synthgen.quality.sets.statistics import RATIO
from synthgen.quality.sets.table import Rows
from synthgen.runs.randomness import numpy_stream
from synthgen.science.intervals import exact_interval

_SPLITS = 10  # of the real cubes in two, for what real cubes differ by among themselves


def bands_of(gates: Gates, verdict: Verdict) -> list[dict[str, Any]]:
    """Every check that has a null distribution: name, status, value, interval, limit, and `null`, its 21 quantiles
    between real sets of the size at which it was compared."""
    fitting = [s for s in gates.limits.sets if s.size <= verdict.accepted]
    if not fitting:
        return []
    at, shown = fitting[-1], []
    statistics = {gates.check_name(name): name for name in at.null}
    for check in verdict.checks:
        name = statistics.get(check.name)
        if check.value is None or check.limit is None or name is None:
            continue
        unit = at.frechet_median if name == RATIO else 1.0
        null = [q / unit for q in at.null[name]]
        about = check.model_dump(mode="json", include={"name", "status", "value", "interval", "limit"})
        shown.append({**about, "null": null})
    return shown


def strata_of(acceptance: AcceptanceCounts) -> list[tuple[str, int, int, tuple[float, float]]]:
    """Stratum, proposed, accepted, exact 95 % interval of the fraction; all cubes first."""
    counts = {"all": (acceptance.proposed, acceptance.accepted), **dict(sorted(acceptance.strata.items()))}
    return [(name, n, hits, exact_interval(hits, n)) for name, (n, hits) in counts.items() if n]


def wasserstein_of(gates: Gates, rows: Rows) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Per structure, per cent of the mean real reflectance [C]: the Wasserstein distance of each band between synthetic
    and real cubes, and that between two halves of the real patients (mean over `_SPLITS` of them)."""
    synthetic, real = gates.wasserstein(rows), gates.spectra(gates.reference)
    rng, size = numpy_stream(0, "halves"), len(gates.reference) // 2 - 1
    halves = [both for _ in range(_SPLITS) if (both := disjoint_sets(gates.reference.patients, size, rng)) is not None]
    result = {}
    for name, distance in synthetic.items():
        if not np.isfinite(distance).all():
            continue
        mean = np.nanmean(real[name], axis=0)
        among = [band_wasserstein(real[name][a], real[name][b]) for a, b in halves]
        result[name] = (
            100 * distance / mean,
            100 * np.mean(among, axis=0) / mean if among else np.full(len(mean), np.nan),
        )
    return result
