"""`synthgen study`: do synthetic cubes in pretraining help? Deals jobs to processes, then says what came out.

Every job is one plain process on one device. A finished job leaves `results/<job>.json` and is never run again; a
study that was interrupted goes on with the same command, and loses at most the jobs that were at work.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from synthgen.config import from_command_line
from synthgen.cubes.splits import load_or_make_split
from synthgen.errors import InputError, Stopped, SynthgenError, one_line_errors
from synthgen.integration.study_job import labelled_cubes, run_job
from synthgen.integration.study_options import Study
from synthgen.integration.study_plan import Job, fingerprint_of, jobs_of, outcome_path, read_outcome, results_folder
from synthgen.integration.study_report import Findings, findings_of, render, write_findings
from synthgen.integration.supply import open_cohort
from synthgen.runs.files import write_text
from synthgen.runs.lock import one_at_a_time
from synthgen.runs.progress import progress
from synthgen.runs.signals import StopRequest

POLL_SECONDS = 0.2
PATIENCE_SECONDS = 120.0  # that a stopped process gets to write its checkpoint


class Slot(NamedTuple):
    """A place for one process: its CUDA device ("" for none) and its CPU threads."""

    device: str
    threads: int


Start = Callable[[Study, Job, Slot], "subprocess.Popen[bytes]"]


class StudyError(SynthgenError):
    """Some jobs of a study failed; the others are finished and kept."""


def run_study(study: Study, start: Start | None = None) -> Findings:
    """Run what is not finished yet and write its `study.json`, `study.md`, `study.png` and `report.html`.

    Raises InputError for data that cannot answer, MismatchError when the folder holds another study's results, Stopped
    after Ctrl-C or SIGTERM, StudyError when jobs failed (after all others are done and the findings written).
    """
    fingerprint = prepare(study)
    jobs = jobs_of(study)
    with one_at_a_time(study.out):
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
    fingerprint = prepare(study)
    for job in jobs_of(study):
        if not finished(study, job, fingerprint):
            run_job(study, job, fingerprint)
    found = findings_of(study, fingerprint)
    write_findings(study, found)
    return found


def prepare(study: Study) -> str:
    """Check the data, write `study.yaml`, and return the study's fingerprint."""
    cohort = open_cohort(study.data)
    split = load_or_make_split(cohort)
    if study.labelled is not None:
        common = sorted(set(open_cohort(study.labelled).patients) & set(split.known))
        if common:
            raise InputError(
                "the labelled cohort has patients that everything learns from",
                path=study.labelled, found=", ".join(common[:5]), expected="none",
            )  # fmt: skip
    labelled_cubes(study)  # refused now rather than after hours of training
    fingerprint = fingerprint_of(study)
    for path in results_folder(study).glob("*.json"):
        read_outcome(path, fingerprint)
    write_text(Path(study.out) / "study.yaml", study.to_yaml())
    return fingerprint


def finished(study: Study, job: Job, fingerprint: str) -> bool:
    path = outcome_path(study, job.name)
    return path.exists() and read_outcome(path, fingerprint) is not None


def slots(workers: int) -> list[Slot]:
    """Where processes may run: `workers` of them (0: one per CUDA device, else one per two cores)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    cards = torch.cuda.device_count()
    told = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = [name.strip() for name in told.split(",") if name.strip()] or [str(i) for i in range(cards)]
    count = workers or (cards if cards else max(1, cores // 2))
    return [Slot(names[i % cards] if cards else "", max(1, cores // count)) for i in range(count)]


def start_process(study: Study, job: Job, slot: Slot) -> subprocess.Popen[bytes]:
    """`python -m synthgen.integration.study_job` with this slot's device and threads; its words go to `logs/`."""
    log = Path(study.out) / "logs" / f"{job.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    environment |= {"CUDA_VISIBLE_DEVICES": slot.device, "SYNTHGEN_QUIET": "1"}
    environment |= {name: str(slot.threads) for name in ("SYNTHGEN_THREADS", "OMP_NUM_THREADS")}
    command = [sys.executable, "-m", "synthgen.integration.study_job"]
    command += ["--config", str(Path(study.out) / "study.yaml"), "--job", job.name]
    with log.open("wb") as words:  # a session of its own: Ctrl-C reaches it through us, once
        return subprocess.Popen(command, env=environment, stdout=words, stderr=words, start_new_session=True)


def _run(study: Study, jobs: Sequence[Job], fingerprint: str, start: Start) -> dict[str, str]:
    """Run the jobs that are not finished, each after those it needs; returns why which failed."""
    done = {job.name for job in jobs if finished(study, job, fingerprint)}
    waiting = [job for job in jobs if job.name not in done]
    free, running, failed = slots(study.workers), {}, {}
    with StopRequest() as stop, progress("study", len(jobs), "job", done=len(done)) as bar:
        try:
            while waiting or running:
                for job in [j for j in waiting if set(j.needs) & failed.keys()]:
                    waiting.remove(job)
                    failed[job.name] = f"needs {', '.join(sorted(set(job.needs) & failed.keys()))}"
                ready = [job for job in waiting if set(job.needs) <= done]
                for job in ready[: len(free)]:
                    slot = free.pop(0)
                    running[job.name] = (job, slot, start(study, job, slot))
                    waiting.remove(job)
                for name, (job, slot, process) in list(running.items()):
                    if process.poll() is None:
                        continue
                    del running[name]
                    free.append(slot)
                    if process.returncode == 0 and finished(study, job, fingerprint):
                        done.add(name)
                        bar.advance(1)
                    else:
                        failed[name] = _last_words(study, name, process.returncode)
                if stop:
                    raise Stopped(
                        f"{len(done)} of {len(jobs)} jobs are finished, in {study.out}",
                        exit_code=stop.exit_code,
                        remedy="the same command goes on",
                    )
                if running:
                    time.sleep(POLL_SECONDS)
        finally:
            _end([process for _, _, process in running.values()])
    return failed


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Ask processes to write their checkpoints and stop; those that do not are ended."""
    for process in processes:
        process.terminate()
    until = time.monotonic() + PATIENCE_SECONDS
    for process in processes:
        try:
            process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()


def _last_words(study: Study, name: str, code: int) -> str:
    log = Path(study.out) / "logs" / f"{name}.log"
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    errors = [line for line in lines if line.startswith("error: ")] or lines
    return errors[-1].removeprefix("error: ")[:300] if errors else f"exit code {code}"


def main(argv: Sequence[str] | None = None) -> None:
    """`synthgen study`: one flag per field; those of the parts have a dot."""
    argv = sys.argv[1:] if argv is None else argv
    with one_line_errors("--debug" in argv):
        words = "Do synthetic cubes in pretraining help? Arms, seeds, paired comparisons, a conclusion."
        study, _ = from_command_line(Study, argv, "synthgen study", words)
        render(run_study(study))


if __name__ == "__main__":
    main()
