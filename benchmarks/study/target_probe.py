"""The instrument: do the intervals of `synthgen probe --targets` hold, and what a panel says and costs.

`python -m benchmarks.study.target_probe --intervals`: on cohorts of noise. `--panel NAME=probe.json` keeps the summary
of a panel that `synthgen probe --out` has written. Adds to results/target_probe.json.
"""

from __future__ import annotations

import argparse

import numpy as np

from benchmarks.common import record
from synthgen.experiments.target_probe import TargetProbe
from synthgen.runs.files import read_json
from synthgen.ssl.evaluation.crossval import cross_validated, patient_splits
from synthgen.ssl.evaluation.intervals import interval, patient_draws, scored
from synthgen.ssl.evaluation.panel import mean_name
from synthgen.ssl.evaluation.targets import Target

COHORTS, PATIENTS, DIM, REPEATS = 200, 100, 10, 5


def intervals() -> None:
    """Cohorts of noise: how often 95 % intervals hold "nothing is predicted", ours and those over patients alone."""
    every = np.arange(PATIENTS)
    kinds = {"AUROC": 0.5, "R2": 0.0}
    values, held, usual = ({kind: [] for kind in kinds} for _ in range(3))
    for cohort in range(COHORTS):
        rng = np.random.default_rng((1, cohort))
        x, z = rng.normal(size=(PATIENTS, DIM)), rng.normal(size=(PATIENTS, 1))
        targets = (Target("classes", every, (z > 0).astype(float), classes=("no", "yes")), Target("number", every, z))
        for (kind, nothing), target in zip(kinds.items(), targets, strict=True):
            splits = patient_splits(PATIENTS, 5, REPEATS, cohort, target.strata)
            predicted, draws = cross_validated({"": x}, target.y, splits), patient_draws(PATIENTS, cohort)
            averaged = predicted._replace(
                values=predicted.values.mean(0)[None], reference=predicted.reference.mean(0)[None]
            )
            values[kind].append(scored(target, [predicted], draws).value)
            for holds, fits in ((held, predicted), (usual, averaged)):
                low, high = interval(scored(target, [fits], draws).draws)
                holds[kind].append(low <= nothing <= high)
    record(
        "target_probe",
        {
            "what": "intervals on noise", "cohorts": COHORTS, "patients": PATIENTS, "features": DIM,
            "repeats": REPEATS,
            **{kind: {
                "mean": round(float(np.mean(values[kind])), 3), "scatter": round(float(np.std(values[kind])), 3),
                "held": float(np.mean(held[kind])), "held over patients alone": float(np.mean(usual[kind])),
            } for kind in kinds},
        },
    )  # fmt: skip


def panel(name: str, path: str) -> None:
    """The summary of the panel that the file `path` holds."""
    found = TargetProbe.model_validate(read_json(path))
    record("target_probe", {"what": name, **_summary(found)})


def _summary(found: TargetProbe) -> dict:
    panel = found.panel
    backbone, exported, *others = panel.features
    plain = {backbone: "pretrained", exported: "pretrained, exported", **{name: name for name in others}}
    short = lambda score, span: [round(v, 3) for v in (score, *span)]
    against = {
        plain[d.against]: short(d.difference, d.interval)
        for d in panel.differences
        if d.target == mean_name(panel.mean_of)
    }
    dense = found.dense
    return {
        "patients": found.n_patients,
        "seconds": round(sum(found.seconds.values())),
        "mean": {plain[r.features]: short(r.score, r.interval) for r in panel.means},
        "targets": {
            t.name: {plain[f]: short((r := panel.reading(f, t.name)).score, r.interval) for f in panel.features}
            for t in panel.targets
        },
        "pretrained minus": against,
        "dense": {} if dense is None else {
            f"{r.structure}, {r.labelled} cubes, {plain.get(r.features, r.features)}": short(r.dice, r.interval)
            for r in dense.readings
        },
    }  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--intervals", action="store_true")
    parser.add_argument("--panel", help="name=probe.json")
    arguments = parser.parse_args()
    if arguments.intervals:
        intervals()
    if arguments.panel:
        panel(*arguments.panel.split("=", 1))
