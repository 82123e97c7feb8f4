"""What a sweep is made of: its configuration, its cells, and the autoencoders that cells share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from pydantic import Field

from synthgen.config import Config, build
from synthgen.contracts import content_hash
from synthgen.errors import ConfigError
from synthgen.integration.recipe import GeneratorTraining
from synthgen.runs.files import read_json

KINDS = {"coder": "autoencoder", "flow": "generator", "speed": "timing"}


class Variant(Config):
    """A named departure from the common settings."""

    autoencoder: dict[str, Any] = Field({}, description="fields of the first training")
    diffusion: dict[str, Any] = Field({}, description="fields of the second")
    steps: int | None = Field(None, ge=1, description="sampling steps")
    table: str = Field("", description="the table that it belongs to")


class Sweep(Config):
    """A grid (compression x latent channels x base channels) and named variants, each with every seed."""

    command: ClassVar[str] = "sweep"
    data: str = Field(description="cohort file (HDF5)")
    gates: str = Field(description="gates folder or packaged name: the instruments that judge")
    out: str = Field(description="folder of the trainings")
    results: str = Field(description="folder of one small JSON per cell and seed; runs add up")
    cpu: bool = Field(False, description="stay on the CPU even where there is a GPU")
    devices: int | None = Field(
        None, ge=1, description="processes at a time, which share the cores; one per GPU, else one per two cores"
    )
    time_again: bool = Field(False, description="time every finished cell again, on a machine that is idle now")
    seeds: tuple[int, ...] = Field((0,), min_length=1, description="seeds of the trainings")
    compression: tuple[int, ...] = Field((), description="of the grid")
    latent_channels: tuple[int, ...] = Field((), description="of the grid")
    channels: tuple[int, ...] = Field((), description="base channels of the U-Net, of the grid")
    variants: dict[str, Variant] = Field({}, description="by name")
    autoencoder: dict[str, Any] = Field({}, description="fields that every first training has")
    diffusion: dict[str, Any] = Field({}, description="fields that every second training has")
    samples: int = Field(500, ge=64, description="synthetic cubes judged per cell")
    timed: int = Field(128, ge=1, description="synthetic cubes generated in each of the timed rounds")
    steps: int = Field(8, ge=1, description="sampling steps")
    sampler: str = Field("ab2", description="euler, heun or ab2")


class Cell(NamedTuple):
    """One configuration with one seed. `coder` names the autoencoder that it shares with its like."""

    name: str
    seed: int
    autoencoder: dict[str, Any]
    diffusion: dict[str, Any]
    steps: int
    table: str

    @property
    def file(self) -> str:
        return f"{self.name}_seed{self.seed}.json"

    @property
    def coder(self) -> str:
        return "coder_" + _key(self.autoencoder)

    @property
    def flow(self) -> str:
        """The training; cells that differ in sampling steps alone share it."""
        return "flow_" + _key([self.autoencoder, self.diffusion])

    @property
    def timing(self) -> str:
        """Cells that share an autoencoder are timed together: a start takes longer than the timing of a cell."""
        return "speed_" + _key(self.autoencoder)


class Job(NamedTuple):
    """Work for one process, for some cells. `kind`: coder (train, screen), flow (train, sample, judge) or speed."""

    kind: str
    name: str
    cells: tuple[Cell, ...]
    needs: tuple[str, ...] = ()


def jobs(kind: str, some: Sequence[Cell]) -> list[Job]:
    """The jobs of one kind that `some` cells need, in the order of the cells."""
    groups: dict[str, list[Cell]] = {}
    for cell in some:
        groups.setdefault({"coder": cell.coder, "flow": cell.flow, "speed": cell.timing}[kind], []).append(cell)
    needs = lambda cell: (cell.coder,) if kind == "flow" else ()
    return [Job(kind, name, tuple(many), needs(many[0])) for name, many in groups.items()]


def asked(sweep: Sweep, cell: Cell) -> dict[str, Any]:
    """What a record repeats of its cell, and by which it is known again."""
    return {**cell._asdict(), "samples": sweep.samples, "sampler": sweep.sampler}


def record(sweep: Sweep, cell: Cell) -> dict[str, Any] | None:
    """The record of a finished cell; None where there is none with these settings."""
    path = Path(sweep.results) / cell.file
    found = read_json(path) if path.exists() else {}
    same = found.get("status") == "done" and all(found.get(k) == v for k, v in asked(sweep, cell).items())
    return found if same else None


def cells(sweep: Sweep) -> list[Cell]:
    """Every cell. ConfigError where there is none."""
    found = []
    for seed in sweep.seeds:
        for f, d, c in product(sweep.compression, sweep.latent_channels, sweep.channels):
            coder = sweep.autoencoder | {"compression": f, "latent_channels": d, "seed": seed}
            flow = sweep.diffusion | {"channels": c, "seed": seed}
            found.append(Cell(f"f{f}_d{d}_c{c}", seed, coder, flow, sweep.steps, "grid"))
        for name, v in sweep.variants.items():
            coder, flow = ({**a, **b, "seed": seed} for a, b in (
                (sweep.autoencoder, v.autoencoder), (sweep.diffusion, v.diffusion)))  # fmt: skip
            found.append(Cell(name, seed, coder, flow, v.steps or sweep.steps, v.table))
    if not found:
        raise ConfigError(
            "the sweep has no cells", remedy="give compression, latent_channels and channels, or variants"
        )
    return found


def ordered(found: list[Cell], screen: dict[str, float]) -> list[Cell]:
    """Cells of the best autoencoder (lowest interpolation distance) first; those without a figure last."""
    return sorted(found, key=lambda c: screen.get(c.coder, float("inf")))  # stable: the plan's order within a coder


def recipe(sweep: Sweep, cell: Cell) -> GeneratorTraining:
    """The two trainings of a cell. ConfigError where a field is wrong or the two do not go together."""
    values = {
        "data": sweep.data,
        "out": sweep.out,
        "cpu": sweep.cpu,
        "resume": True,
        "autoencoder": cell.autoencoder,
        "diffusion": cell.diffusion,
    }
    made = build(GeneratorTraining, values)
    coder, flow = f"{sweep.out}/{cell.coder}", f"{sweep.out}/{cell.flow}"
    autoencoder = made.autoencoder.model_copy(update={"out": coder})
    diffusion = made.diffusion.model_copy(update={"autoencoder": coder, "out": flow})
    return made.model_copy(update={"autoencoder": autoencoder, "diffusion": diffusion})


def _key(value: Any) -> str:
    return content_hash(json.dumps(value, sort_keys=True))[:10]
