"""The study of docs/study.md on simulated eyes, hours long: `python -m benchmarks.run --only study`."""

from __future__ import annotations

from pathlib import Path

from benchmarks import ROOT
from benchmarks.common import record
from synthgen.config import load
from synthgen.cubes.phantom.cohort import simulate_cohort
from synthgen.experiments.study.options import Study
from synthgen.experiments.study.run import run_study


def measure() -> None:
    """Run what is not finished of `configs/study_small.yaml` and record its findings: a summary, not its jobs."""
    study = load(Study, ROOT / "configs" / "study_small.yaml")
    assert study.labelled is not None
    for path, patients, seed in ((study.data, 128, 30), (study.labelled, 240, 31)):
        if not Path(path).exists():
            simulate_cohort(path, patients, 64, seed=seed, signature=0.15)
    record("study", run_study(study).model_dump(mode="json"))
