"""What a sweep is made of: its configuration, its cells, and the autoencoders that cells share."""

from __future__ import annotations

import json
from itertools import product
from typing import Any, NamedTuple

from pydantic import Field

from synthgen.config import Config, build
from synthgen.contracts import content_hash
from synthgen.errors import ConfigError
from synthgen.integration.recipe import GeneratorTraining


class Variant(Config):
    """A named departure from the common settings."""

    autoencoder: dict[str, Any] = Field({}, description="fields of the first training")
    diffusion: dict[str, Any] = Field({}, description="fields of the second")
    steps: int | None = Field(None, ge=1, description="sampling steps")
    table: str = Field("", description="the table that it belongs to")


class Sweep(Config):
    """A grid (compression x latent channels x base channels) and named variants, each with every seed."""

    data: str = Field(description="cohort file (HDF5)")
    gates: str = Field(description="gates folder or packaged name: the instruments that judge")
    out: str = Field(description="folder of the trainings")
    results: str = Field(description="folder of one small JSON per cell and seed; runs add up")
    cpu: bool = Field(False, description="stay on the CPU even where there is a GPU")
    devices: int | None = Field(None, ge=1, description="processes at a time; one per GPU, else one")
    seeds: tuple[int, ...] = Field((0,), min_length=1, description="seeds of the trainings")
    compression: tuple[int, ...] = Field((), description="of the grid")
    latent_channels: tuple[int, ...] = Field((), description="of the grid")
    channels: tuple[int, ...] = Field((), description="base channels of the U-Net, of the grid")
    variants: dict[str, Variant] = Field({}, description="by name")
    autoencoder: dict[str, Any] = Field({}, description="fields that every first training has")
    diffusion: dict[str, Any] = Field({}, description="fields that every second training has")
    samples: int = Field(500, ge=8, description="synthetic cubes judged per cell")
    timed: int = Field(128, ge=1, description="synthetic cubes timed per cell")
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


def recipe(sweep: Sweep, cell: Cell, root: str, resume: bool = True) -> GeneratorTraining:
    """The two trainings of a cell. ConfigError where a field is wrong."""
    made = build(GeneratorTraining, {
        "data": sweep.data, "out": root, "cpu": sweep.cpu, "resume": resume,
        "autoencoder": cell.autoencoder, "diffusion": cell.diffusion})  # fmt: skip
    places = {"autoencoder": f"{root}/{cell.coder}", "out": f"{root}/{cell.flow}"}
    return made.model_copy(update={
        "autoencoder": made.autoencoder.model_copy(update={"out": f"{root}/{cell.coder}"}),
        "diffusion": made.diffusion.model_copy(update=places)})  # fmt: skip


def _key(value: Any) -> str:
    return content_hash(json.dumps(value, sort_keys=True))[:10]
