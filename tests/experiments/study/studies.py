"""What the tests of the study share: tiny settings, and outcomes as jobs would leave them."""

import numpy as np

from synthgen.experiments.study.plan import Outcome, fingerprint_of, outcome_path
from synthgen.runs.files import write_json
from synthgen.ssl.evaluation.probe import ProbeResult

TINY = {
    "backbone": "resnet10t",
    "steps": 2,
    "batch_size": 4,
    "sampler_steps": 1,
    "sampler": "euler",
    "certify_count": 8,
}
LABELS = np.arange(40) % 2


def judged(quality, seed=0):
    """A probe whose scores have `quality` standard deviations between cases and controls."""
    scores = quality * LABELS + np.random.default_rng(seed).normal(size=40)
    names = tuple(f"h{i:02d}" for i in range(40))
    common = {"n_patients": 40, "n_cubes": 40, "folds": 5, "repeats": 1, "knn_auroc": 0.5}
    values = {"patients": names, "labels": tuple(LABELS.tolist()), "scores": tuple(scores.tolist())}
    found = _auroc(scores)
    return ProbeResult(auroc=found, interval=(found - 0.15, min(1, found + 0.15)), **common, **values)


def _auroc(scores):
    return float((scores[LABELS == 1][:, None] > scores[LABELS == 0][None]).mean())


def outcome(study, job, quality=1.0):
    arm = None if job.arm is None else job.arm.name
    probe = None if arm is None else judged(quality, job.seed)
    seconds = {"real": 10.0, "mixed-0.5": 25.0, "generator": 60.0, "gates": 15.0}.get(arm or job.name, 1.0)
    return Outcome(
        job=job.name, study=fingerprint_of(study), seconds=seconds, arm=arm, seed=job.seed, steps=2, probe=probe,
        patients="same",
    )  # fmt: skip


def leave(study, found):
    write_json(outcome_path(study, found.job), found.model_dump(mode="json"))
