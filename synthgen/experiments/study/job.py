"""One job of a study, in a process of its own: `python -m synthgen.experiments.study.job STUDY.yaml NAME`.

A job that was stopped by Ctrl-C or SIGTERM goes on from its checkpoint; one that was killed begins anew, so that its
time is always that of the whole work.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from synthgen.config import build
from synthgen.contracts import Provenance, content_hash, hash_patients
from synthgen.cubes.phantom.procedural import Plain, procedural_cube
from synthgen.cubes.reflectance import band_statistics
from synthgen.errors import ConfigError, LeakError, Stopped
from synthgen.experiments.jobs import run_named
from synthgen.experiments.probe_backbone import check_unseen
from synthgen.experiments.study.options import MIXED, REAL, SPECTRA, Arm, Study
from synthgen.experiments.study.patients import known_patients, labelled_cubes
from synthgen.experiments.study.plan import (
    FIXED,
    GATES,
    GENERATOR,
    PROCEDURAL,
    Job,
    Outcome,
    fingerprint_of,
    job_name,
    jobs_of,
    made_by,
    outcome_path,
    read_outcome,
)
from synthgen.generator.generator import Generator
from synthgen.integration.method import SPECTRA_FROM
from synthgen.integration.monitoring import even_subset
from synthgen.integration.options import Pretraining
from synthgen.integration.pretrain import STATISTICS_FROM, pretrain
from synthgen.integration.recipe import train_generator
from synthgen.integration.sample import sample_shards
from synthgen.quality.calibrate import calibrate
from synthgen.quality.gates import load_gates
from synthgen.runs.checkpoint import Checkpoints
from synthgen.runs.files import read_json, remove, write_json
from synthgen.runs.processes.device import pick_device, set_threads
from synthgen.shards.from_cubes import write_foreign_shards
from synthgen.ssl.backbone import load_backbone, make_backbone
from synthgen.ssl.evaluation.probe import ProbeResult, embed, fit_lda, probe
from synthgen.ssl.evaluation.spectra import mean_spectra
from synthgen.ssl.spectral_whitening import pixel_spectra, whiten_first_layer

PLAIN_FROM = 256  # real cubes give the procedural control its mean spectrum
BLOCK = 64  # cubes in memory at a time


def run_job(study: Study, job: Job, fingerprint: str | None = None) -> Outcome:
    """Do the work of a job and write its outcome."""
    fingerprint = fingerprint or fingerprint_of(study)
    work = {"generator": _generator, "gates": _gates, FIXED: _fixed, PROCEDURAL: _procedural, "arm": _arm}[job.kind]
    found = {"job": job.name, "study": fingerprint, "device": str(pick_device()), **work(study, job)}
    outcome = build(Outcome, found)
    write_json(outcome_path(study, job.name), outcome.model_dump(mode="json"))
    return outcome


def check_same_patients(study: Study, provenance: Provenance | None, what: str) -> str:
    """LeakError unless `what` learned from exactly the patients of the real-only arm; returns the hash over them."""
    wanted = known_patients(study)[2]
    patients = () if provenance is None else provenance.patients
    if provenance is None or (provenance.salt, patients) != (wanted.salt, wanted.patients):
        raise LeakError(
            f"{what} did not learn from the patients of the real-only arm",
            found=f"{len(patients)} patients",
            expected=f"the {len(wanted.patients)} training and calibration patients of {study.data}",
            remedy="let the study train its generator and gates itself",
        )
    return content_hash(*wanted.patients)[:16]


def _generator(study: Study, job: Job) -> dict[str, Any]:
    out = Path(study.generator.out)
    seconds = _timed(out, lambda: train_generator(study.generator.model_copy(update={"resume": True})))
    generator = Generator.load(study.generator_folder)
    return {"seconds": seconds, "patients": check_same_patients(study, generator.provenance, "the generator")}


def _gates(study: Study, job: Job) -> dict[str, Any]:
    out = Path(study.gates.out)
    set_threads()
    seconds = _timed(out, lambda: calibrate(study.gates))
    gates = load_gates(out)
    return {"seconds": seconds, "patients": check_same_patients(study, gates.provenance, "the gates")}


def _fixed(study: Study, job: Job) -> dict[str, Any]:
    """As many proposals as there are real cubes; those that the gates accept are drawn for ever."""
    out, (cohort, split, _) = made_by(study, FIXED), known_patients(study)
    count = max(len(cohort.index_of(split.known)), study.pretrain.batch_size)
    how = {"steps": study.pretrain.sampler_steps, "sampler": study.pretrain.sampler}
    gates = (study.policy, study.gates_folder)
    sample = lambda: sample_shards(out, count, study.generator_folder, "tokens", *gates, cohort=cohort, **how)
    return {"seconds": _timed(out, sample)}


def _procedural(study: Study, job: Job) -> dict[str, Any]:
    """As many cubes as the pool of the mixed arm makes: each is then drawn R times."""
    out, (cohort, split, provenance) = made_by(study, PROCEDURAL), known_patients(study)
    count = math.ceil(study.pretrain.steps * study.pretrain.batch_size / 2 / study.pretrain.reuse)
    count = max(count, study.pretrain.batch_size)

    def blocks(plain: Plain) -> Iterator[torch.Tensor]:
        for start in range(0, count, BLOCK):
            made = [procedural_cube(plain, study.pretrain.seed, k) for k in range(start, min(start + BLOCK, count))]
            yield torch.from_numpy(np.stack(made))

    def write() -> None:
        plain = Plain.of(cohort.cubes(cohort.index_of(split.known)[:PLAIN_FROM]))
        about = {"wavelengths": cohort.wavelengths, "size": cohort.height, "provenance": provenance}
        write_foreign_shards(out, blocks(plain), name=PROCEDURAL, seed=study.pretrain.seed, **about)

    return {"seconds": _timed(out, write)}


def pretraining_of(study: Study, arm: Arm, seed: int, out: Path, steps: int) -> Pretraining:
    """The pretraining of an arm: what the study shares, and what makes the arm."""
    values: dict[str, Any] = study.pretrain.model_dump(mode="json")
    values |= {"out": str(out), "seed": seed, "steps": steps, "patients": "known", "gates": "off"}
    values |= {"synthetic_ratio": arm.synthetic_ratio, "ratio_schedule": arm.ratio_schedule}
    if arm.reuse is not None:
        values["reuse"] = arm.reuse
    if arm.strong:
        values["augmentation"] = study.strong.model_dump(mode="json")
    if arm.source == "generator":
        values["generator"] = study.generator_folder
    elif arm.source != "none":
        values["shards"] = str(made_by(study, {"fixed": FIXED, "procedural": PROCEDURAL}[arm.source]))
    if arm.gated and arm.needs_generator:
        values |= {"gates": study.policy, "gates_folder": study.gates_folder}
    return build(Pretraining, values)


def steps_of(study: Study, arm: Arm, seed: int) -> int:
    """Optimiser steps: the study's, or as many as real-only makes in the time that another arm took."""
    steps = study.pretrain.steps
    if not arm.lasts:
        return steps
    real, mixed = (read_outcome(outcome_path(study, job_name(name, seed))) for name in (REAL, MIXED))
    seconds = mixed.seconds
    if arm.lasts == "mixed and generator":
        if study.given_generator is not None:
            raise ConfigError(
                "the time that a given generator took to train is not known",
                found=study.given_generator,
                remedy=f"leave the arm '{arm.name}' out, or let the study train its generator",
            )
        seconds += sum(read_outcome(outcome_path(study, name)).seconds for name in (GENERATOR, GATES))
    return max(steps, round(steps * seconds / real.seconds))


def _arm(study: Study, job: Job) -> dict[str, Any]:
    arm = job.arm
    assert arm is not None
    about: dict[str, Any] = {"arm": arm.name, "seed": job.seed}
    if not arm.pretrained:
        began = time.monotonic()
        return about | {"probe": _baseline(study, job), "seconds": time.monotonic() - began}
    folder, steps = Path(study.out) / "pretrain" / job.name, steps_of(study, arm, job.seed)

    def train() -> None:
        begun = bool(Checkpoints(folder / "checkpoints").steps())
        config = pretraining_of(study, arm, job.seed, folder, steps)
        pretrain(config.model_copy(update={"resume": begun}))

    seconds = _timed(folder, train)
    summary, backbone = read_json(folder / "summary.json"), load_backbone(folder, pick_device())
    seen = check_same_patients(study, backbone.provenance, f"the pretraining {job.name}")
    features = lambda cubes: embed(backbone.model, backbone.statistics, cubes)
    return about | {
        "seconds": seconds,
        "steps": steps,
        "synthetic_seen": summary["synthetic_seen_per_process"],
        "gates": summary["gates"],
        "generator": summary["generator_hash"],
        "feature_std": summary["feature_std"],
        "patients": seen,
        "probe": _probed(study, features, backbone.provenance),
    }


def _baseline(study: Study, job: Job) -> ProbeResult:
    if job.name == SPECTRA:
        return _probed(study, mean_spectra, None, fit=fit_lda)
    cohort, split, _ = known_patients(study)
    index = cohort.index_of(split.known)
    statistics = band_statistics(cohort.each(index[:STATISTICS_FROM]))
    torch.manual_seed(job.seed)  # the weights that the pretraining of this seed starts from
    model = make_backbone(study.pretrain.backbone, cohort.bands, cohort.height, study.pretrain.reading)
    if study.pretrain.whiten:
        whiten_first_layer(model, pixel_spectra(cohort.each(even_subset(index, SPECTRA_FROM)), statistics).whitening())
    model.to(pick_device())
    return _probed(study, lambda cubes: embed(model, statistics, cubes), None)


def _probed(
    study: Study, features: Callable[[np.ndarray], np.ndarray], provenance: Provenance | None, **how: Any
) -> ProbeResult:
    """The probe on the study's labelled patients, on the same folds whatever the features; names as salted hashes."""
    cohort, index, labels, who = labelled_cubes(study)
    check_unseen(provenance, who.tolist())
    found = [features(cohort.cubes(index[start : start + BLOCK])) for start in range(0, len(index), BLOCK)]
    about = {"seed": study.probe_seed, "folds": study.folds, "repeats": study.repeats}
    result = probe(np.concatenate(found), labels, who, **about, **how)
    hidden = hash_patients(result.patients, cohort.content_hash[:16])
    return result.model_copy(update={"patients": tuple(name[:12] for name in hidden)})


def _timed(folder: Path, work: Callable[[], Any]) -> float:
    """Seconds that `work` in `folder` took, in all its sittings; what a killed sitting has left is removed first."""
    mark, spent = folder / "spent.json", 0.0
    if mark.exists():
        spent = float(read_json(mark)["seconds"])
        mark.unlink()  # a kill from here on leaves no mark
    else:
        remove(folder)
    began = time.monotonic()
    try:
        work()
    except Stopped:
        write_json(mark, {"seconds": spent + time.monotonic() - began})
        raise
    return spent + time.monotonic() - began


if __name__ == "__main__":
    run_named(Study, jobs_of, run_job)
