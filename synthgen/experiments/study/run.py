"""`synthgen study`: do synthetic cubes in pretraining help? Deals jobs to processes, then reports the results.

Every job is one plain process on one device. A finished job leaves `<job>.json` in the folder of results and is never
run again; a study that was interrupted goes on with the same command, and loses at most the jobs that were at work.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

from synthgen.errors import InputError, SynthgenError
from synthgen.experiments.jobs import Runner, Slot, slots
from synthgen.experiments.study.findings import Findings, findings_of, write_findings
from synthgen.experiments.study.job import run_job
from synthgen.experiments.study.options import Study
from synthgen.experiments.study.patients import known_patients
from synthgen.experiments.study.plan import (
    Job,
    fingerprint_of,
    finished,
    jobs_of,
    read_outcome,
    results_folder,
    unfinished,
)
from synthgen.integration.artifacts import open_cohort, tell_if_too_few_for_gates
from synthgen.runs.files import write_text
from synthgen.runs.folder import record_command
from synthgen.runs.locks import one_at_a_time
from synthgen.runs.progress import progress

Start = Callable[[Study, Job, Slot], "subprocess.Popen[bytes]"]


class StudyError(SynthgenError):
    """Some jobs of a study failed; the others are finished and kept."""


def run_study(study: Study, start: Start | None = None) -> Findings:
    """Run what is not finished yet and write its `study.json`, `study.md`, `study.png` and `report.html`.

    Raises InputError for data that cannot answer, MismatchError when the folder holds another study's results, Stopped
    after Ctrl-C or SIGTERM, StudyError when jobs failed (after all others are done and the findings written).
    """
    with one_at_a_time(study.out, make=True):
        fingerprint = prepare(study)
        jobs, config = jobs_of(study), Path(study.out) / "study.yaml"
        todo = unfinished(study, jobs, fingerprint)
        runner = Runner[Job](
            "synthgen.experiments.study.job",
            config,
            total=len(jobs),
            done={job.name for job in jobs} - {job.name for job in todo},
            finished=lambda job: finished(study, job, fingerprint),
            start=start and partial(start, study),
        )
        with progress("study", len(jobs), "job", done=len(runner.done)) as bar:
            for job, _ in runner.run(todo, slots(study.workers)):
                bar.advance(job.name in runner.done)
        found = findings_of(study, fingerprint)
        write_findings(study, found)
    if failed := runner.failed:
        name, why = next(iter(failed.items()))
        raise StudyError(
            f"{len(failed)} of {len(jobs)} jobs failed", path=study.out, found=f"{name}: {why}",
            remedy="the same command runs them again",
        )  # fmt: skip
    return found


def run_study_here(study: Study) -> Findings:
    """The same, one job after the other in this process, with their progress bars; for small studies."""
    with one_at_a_time(study.out, make=True):
        fingerprint = prepare(study)
        for job in unfinished(study, jobs_of(study), fingerprint):
            run_job(study, job, fingerprint)
        found = findings_of(study, fingerprint)
        write_findings(study, found)
    return found


def prepare(study: Study) -> str:
    """Check the data, write `study.yaml`, and return the study's fingerprint."""
    open_cohort(study.data)
    split = known_patients(study)[1]
    if study.labelled is not None:
        common = sorted(set(open_cohort(study.labelled).patients) & set(split.known))
        if common:
            raise InputError(
                "the labelled cohort has patients that everything learns from",
                path=study.labelled, found=", ".join(common[:5]), expected="none",
            )  # fmt: skip
    if study.given_gates is None:
        tell_if_too_few_for_gates(study.data)
    fingerprint = fingerprint_of(study)  # labels that cannot be probed are refused here, not after hours of training
    for path in results_folder(study).glob("*.json"):
        read_outcome(path, fingerprint)
    write_text(Path(study.out) / "study.yaml", study.to_yaml())
    record_command(study.out, study)
    return fingerprint
