"""The plan of a study: its jobs, what each waits for, where each leaves its outcome. Nothing is run here."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import Field

from synthgen.config import Config, build
from synthgen.contracts import content_hash
from synthgen.errors import MismatchError
from synthgen.experiments.study.options import (
    ARMS,
    MIXED,
    REAL,
    SPECTRA,
    Arm,
    Study,
)
from synthgen.experiments.study.patients import known_patients, labelled_cubes
from synthgen.generator.generator import Generator
from synthgen.quality.gates import load_gates
from synthgen.runs.files import read_json
from synthgen.ssl.evaluation.probe import ProbeResult

GENERATOR, GATES, FIXED, PROCEDURAL = "generator", "gates", "fixed-set", "procedural-set"


class Job(NamedTuple):
    """One process's work. kind: what is made; arm and seed: of a pretraining or a baseline; needs: jobs before it."""

    name: str
    kind: Literal["generator", "gates", "fixed-set", "procedural-set", "arm"]
    arm: Arm | None = None
    seed: int = 0
    needs: tuple[str, ...] = ()


class Outcome(Config):
    """What a job leaves in `results/<job>.json`; small, so that it can be kept under version control."""

    job: str
    study: str = Field(description="hash of everything that arms must share to be compared")
    seconds: float = Field(description="wall-clock of the work itself, of all its sittings")
    arm: str | None = None
    seed: int = 0
    steps: int = Field(0, description="optimiser steps")
    synthetic_seen: int = 0
    gates: str | None = Field(None, description="the stamp: pass, uncertified ...")
    generator: str | None = Field(None, description="hash of what generated its synthetic cubes")
    feature_std: float | None = None
    patients: str | None = Field(None, description="hash over its training patients")
    probe: ProbeResult | None = Field(None, description="with salted hashes in place of the patients' names")
    device: str = "cpu"


def jobs_of(study: Study) -> list[Job]:
    """Every job, so that each comes after those it needs."""
    wanted: dict[tuple[str, int], None] = {}
    for name in study.arms:
        for seed in study.seeds_for(name) if name != SPECTRA else (0,):
            base = [REAL, MIXED] if ARMS[name].lasts else []  # their times say how long it lasts
            wanted.update(dict.fromkeys((part, seed) for part in (*base, name)))
    arms = [(ARMS[name], seed) for name, seed in wanted]
    arms.sort(key=lambda pair: (bool(pair[0].lasts), list(ARMS).index(pair[0].name)))
    return [*_materials(study, [arm for arm, _ in arms]), *(_arm_job(study, arm, seed) for arm, seed in arms)]


def job_name(arm: str, seed: int) -> str:
    return arm if arm == SPECTRA else f"{arm}-seed{seed}"


def _materials(study: Study, arms: list[Arm]) -> list[Job]:
    """Generator, gates, and the sets of cubes that arms read from shards."""
    timed = any(arm.lasts == "mixed and generator" for arm in arms)
    trained = study.given_generator is None
    jobs = []
    if trained and (timed or any(arm.needs_generator for arm in arms)):
        jobs.append(Job(GENERATOR, "generator"))
    if trained and (timed or any(arm.needs_generator and arm.gated for arm in arms)):
        jobs.append(Job(GATES, "gates"))
    made = tuple(job.name for job in jobs)
    if any(arm.source == "fixed" for arm in arms):
        jobs.append(Job(FIXED, "fixed-set", needs=made))
    if any(arm.source == "procedural" for arm in arms):
        jobs.append(Job(PROCEDURAL, "procedural-set"))
    return jobs


def _arm_job(study: Study, arm: Arm, seed: int) -> Job:
    needs: list[str] = []
    if study.given_generator is None and (arm.needs_generator or arm.lasts == "mixed and generator"):
        needs += [GENERATOR, *([GATES] if arm.gated else [])]
    if arm.source == "fixed":
        needs.append(FIXED)
    if arm.source == "procedural":
        needs.append(PROCEDURAL)
    if arm.lasts:
        needs += [job_name(REAL, seed), job_name(MIXED, seed)]
    return Job(job_name(arm.name, seed), "arm", arm, seed, tuple(needs))


def results_folder(study: Study) -> Path:
    return Path(study.results or Path(study.out) / "results")


def outcome_path(study: Study, job: str) -> Path:
    return results_folder(study) / f"{job}.json"


def made_by(study: Study, name: str) -> Path:
    """Where generator, gates or a set of cubes lies once its job is done."""
    places = {GENERATOR: study.generator_folder, GATES: study.gates_folder}
    return Path(places.get(name, Path(study.out) / name))


def finished(study: Study, job: Job, fingerprint: str) -> bool:
    """True where the job has left an outcome; MismatchError for one of another study."""
    path = outcome_path(study, job.name)
    return path.exists() and read_outcome(path, fingerprint) is not None


def unfinished(study: Study, jobs: Sequence[Job], fingerprint: str) -> list[Job]:
    """The jobs to run, in their order: those without an outcome, and what these need where it is no longer there.

    (Outcomes are kept under version control, generators are not.) What was made with something that is made anew is
    made anew as well: the tokens of a fixed set are those of its generator. MismatchError for an outcome of another
    study.
    """
    again: set[str] = set()
    needed = lambda name: any(name in job.needs for job in jobs if job.name in again)
    for job in reversed(jobs):
        missing = job.arm is None and not made_by(study, job.name).exists()
        if not finished(study, job, fingerprint) or (missing and needed(job.name)):
            again.add(job.name)
    for job in jobs:
        if job.arm is None and again & set(job.needs) and needed(job.name):
            again.add(job.name)
    return [job for job in jobs if job.name in again]


def read_outcome(path: str | os.PathLike, fingerprint: str | None = None) -> Outcome:
    """One outcome; MismatchError when it is of another study, InputError when it is damaged."""
    values: Any = read_json(path)
    found = build(Outcome, values if isinstance(values, dict) else {"job": values}, path)
    if fingerprint is not None and found.study != fingerprint:
        raise MismatchError(
            "was made by a study with other data, labels, split or settings",
            path=path,
            found=found.study,
            expected=fingerprint,
            remedy="choose another --out or --results, or remove the old results",
        )
    return found


def fingerprint_of(study: Study) -> str:
    """Hash of what all arms share: cubes, who learns and who is probed for which label, settings, recipes, a given
    generator and given gates by their contents; not of paths, arms, seeds and workers."""
    apart: Any = {
        "data": True, "labelled": True, "table": True, "out": True, "results": True, "arms": True, "seeds": True,
        "seeds_of": True, "workers": True,
        "pretrain": {"data", "out", "checkpoint_every", "log_every"},
        "generator": {"data": True, "out": True, "cpu": True, "resume": True,
                      "autoencoder": {"data", "out", "cpu", "resume"},
                      "diffusion": {"data", "out", "autoencoder", "cpu", "resume"}},
        "gates": {"data", "out", "device"},
    }  # fmt: skip
    settings = study.model_dump(mode="json", exclude=apart, by_alias=True)  # as in studies begun before
    if study.given_generator is not None:
        settings["given_generator"] = Generator.load(study.given_generator, "cpu").hash
    if study.given_gates is not None:
        settings["given_gates"] = load_gates(study.given_gates).hash
    cohort, split, _ = known_patients(study)
    asked = labelled_cubes(study)
    learned = (cohort.content_hash, np.array(split.known))
    probed = (asked.cohort.content_hash, asked.index, asked.patients, asked.labels.astype(np.float64))
    return content_hash(json.dumps(settings, sort_keys=True), *learned, *probed)[:16]
