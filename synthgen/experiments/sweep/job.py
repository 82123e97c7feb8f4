"""One job of a sweep, in a process of its own: train and screen an autoencoder; train, sample and judge; or time.

`python -m synthgen.experiments.sweep.job SWEEP.yaml NAME`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from synthgen.contracts import Provenance, content_hash
from synthgen.cubes.cohort.cohort import Cohort
from synthgen.errors import MismatchError
from synthgen.experiments.jobs import run_named
from synthgen.experiments.sweep.plan import KINDS, Cell, Job, Sweep, asked, cells, jobs, recipe, record
from synthgen.experiments.sweep.score import BLOCK, held_out, interpolation_frechet, judge, speed, tilt_kept
from synthgen.generator.generator import Generator
from synthgen.generator.training.autoencoder import train_autoencoder
from synthgen.generator.training.checkpoint import load_autoencoder
from synthgen.generator.training.cube_source import split_index
from synthgen.generator.training.flow import train_diffusion
from synthgen.integration.recipe import resumable
from synthgen.quality.gates import Gates, load_gates
from synthgen.runs.files import read_json, write_json
from synthgen.runs.folder import environment
from synthgen.runs.processes.device import pick_device, set_threads


def run_job(sweep: Sweep, job: Job) -> None:
    """Do what is not done yet of a job; leaves `screen.json` or the cells' records."""
    set_threads()
    {"coder": _coder, "flow": _flow, "speed": _speed}[job.kind](sweep, job)


def _coder(sweep: Sweep, job: Job) -> None:
    config = recipe(sweep, job.cells[0]).autoencoder
    cohort, gates = _measures(sweep)
    if not (Path(config.out) / "autoencoder").is_dir():
        train_autoencoder(resumable(config))
    found = load_autoencoder(config.out)
    _must_be_of(cohort, config.patients, found.provenance, config.out)
    screen, made_of = Path(config.out) / "screen.json", {"screened": content_hash(found.hash, gates.hash)}
    if not screen.exists() or read_json(screen).get("screened") != made_of["screened"]:
        model = found.model.to(_device(sweep))
        distance = interpolation_frechet(model, gates, held_out(cohort))
        write_json(screen, {"interpolation_frechet": distance, **tilt_kept(model, cohort), **made_of})


def _flow(sweep: Sweep, job: Job) -> None:
    config = recipe(sweep, job.cells[0]).diffusion
    cohort, gates = _measures(sweep)
    folder = Path(config.out) / "generator"
    if not folder.is_dir():
        folder = train_diffusion(resumable(config))
    generator = Generator.load(folder, _device(sweep))
    _must_be_of(cohort, config.patients, generator.provenance, folder)
    real = held_out(cohort)
    screen = read_json(Path(config.autoencoder) / "screen.json")
    for cell in [c for c in job.cells if record(sweep, c) is None]:
        made = {
            "status": "done",
            **asked(sweep, cell),
            "figures": judge(gates, real, sampled(generator, sweep, cell)),
            "speed": None,
            **{name: value for name, value in screen.items() if name != "screened"},
            "trained": {name: _trained(generator.made[name]) for name in ("autoencoder", "diffusion")},
            "parameters": {
                "autoencoder": sum(p.numel() for p in generator.autoencoder.parameters()),
                "flow": sum(p.numel() for p in generator.flow.parameters()),
            },
            "real_cubes": len(real),
            "cohort": cohort.content_hash,
            "gates_hash": gates.hash,
            "generator": generator.hash,
            "environment": environment(),
        }
        write_json(Path(sweep.results) / cell.file, made)


def _speed(sweep: Sweep, job: Job) -> None:
    for cell in job.cells:
        found = record(sweep, cell)
        if found is not None and (sweep.time_again or not found["speed"]):
            generator = Generator.load(Path(recipe(sweep, cell).diffusion.out) / "generator", _device(sweep))
            timed = speed(generator, sweep.timed, cell.steps, sweep.sampler)
            write_json(Path(sweep.results) / cell.file, {**found, "speed": timed})


def sampled(generator: Generator, sweep: Sweep, cell: Cell) -> torch.Tensor:
    """The synthetic cubes that a cell is judged by, [samples, C, H, W] on the CPU."""
    tokens = generator.sample(range(sweep.samples), 0, cell.steps, sweep.sampler)
    return torch.cat([generator.decode(tokens[i : i + BLOCK]).cpu() for i in range(0, sweep.samples, BLOCK)])


def _measures(sweep: Sweep) -> tuple[Cohort, Gates]:
    """Cohort and gates; MismatchError, before any training, where the one cannot be judged by the other."""
    cohort, gates = Cohort.open(sweep.data), load_gates(sweep.gates)
    gates.must_fit(torch.zeros(1, cohort.bands, cohort.height, cohort.width), cohort.wavelengths)
    return cohort, gates


def _must_be_of(cohort: Cohort, patients: str, found: Provenance, path: str | Path) -> None:
    """MismatchError where a finished training is of other cubes, or of other patients of theirs."""
    wanted = cohort.provenance(split_index(cohort, patients)[0])
    for what, was, now in (
        ("on another cohort", found.cohort_hash, wanted.cohort_hash),
        ("with another split of the patients", content_hash(*found.patients), content_hash(*wanted.patients)),
    ):
        if was != now:
            raise MismatchError(
                f"was trained {what}", path=path, found=was, expected=now, remedy="choose another `out`"
            )


def _trained(made: dict[str, Any]) -> dict[str, Any]:
    """What a training reports of itself."""
    return {key: made[key] for key in ("steps", "minutes", "validation_l1", "best_loss") if key in made}


def _device(sweep: Sweep) -> torch.device:
    return pick_device("cpu" if sweep.cpu else None)


def _all_jobs(sweep: Sweep) -> list[Job]:
    return [job for kind in KINDS for job in jobs(kind, cells(sweep))]


if __name__ == "__main__":
    run_named(Sweep, _all_jobs, run_job)
