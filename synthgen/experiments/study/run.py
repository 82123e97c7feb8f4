"""`synthgen study`: do synthetic cubes in pretraining help? Deals jobs to processes, then says what came out.

Every job is one plain process on one device. A finished job leaves `<job>.json` in the folder of results and is never
run again; a study that was interrupted goes on with the same command, and loses at most the jobs that were at work.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from synthgen.errors import InputError, Stopped, SynthgenError
from synthgen.experiments.jobs import Slot, deal, last_words, slots, start_module
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
        jobs = jobs_of(study)
        failed = _run(study, jobs, fingerprint, start or start_process)
        found = findings_of(study, fingerprint)
        write_findings(study, found)
    if failed:
        name, why = next(iter(failed.items()))
        raise StudyError(
            f"{len(failed)} of {len(jobs)} jobs failed", path=study.out, found=f"{name}: {why}",
            remedy=f"see {Path(study.out) / 'logs'}; the same command runs them again",
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


def start_process(study: Study, job: Job, slot: Slot) -> subprocess.Popen[bytes]:
    """The job in a process of its own; its words go to `logs/`."""
    arguments = ["--config", str(Path(study.out) / "study.yaml"), "--job", job.name]
    return start_module("synthgen.experiments.study.job", arguments, slot, _log(study, job))


def _run(study: Study, jobs: Sequence[Job], fingerprint: str, start: Start) -> dict[str, str]:
    """Run the jobs that are not finished, each after those it needs; returns why which failed."""
    waiting, failed = unfinished(study, jobs, fingerprint), {}
    done = {job.name for job in jobs} - {job.name for job in waiting}
    stopped = lambda code: Stopped(
        f"{len(done)} of {len(jobs)} jobs are finished, in {study.out}",
        exit_code=code,
        remedy="the same command goes on",
    )
    begin, ready = (lambda job, slot: start(study, job, slot)), (lambda job: set(job.needs) <= done)
    with progress("study", len(jobs), "job", done=len(done)) as bar:
        for job, code, _ in deal(waiting, slots(study.workers), begin, stopped, ready):
            if code == 0 and finished(study, job, fingerprint):
                done.add(job.name)
                bar.advance(1)
                continue
            failed[job.name] = last_words(_log(study, job), code)
            for other in list(waiting):  # in the order of the plan, so what needs those follows
                if lost := sorted(set(other.needs) & failed.keys()):
                    waiting.remove(other)
                    failed[other.name] = f"needs {', '.join(lost)}"
    return failed


def _log(study: Study, job: Job) -> Path:
    return Path(study.out) / "logs" / f"{job.name}.log"
