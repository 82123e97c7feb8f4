"""The options of a pretraining run; each is a key of its YAML file and a flag of `pretrain.py`.

They are written room by room: a room is handed its own (`Pretraining.part`) and cannot read the others.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, TypeVar

from pydantic import Field, field_validator, model_validator

from synthgen.config import Config
from synthgen.errors import ConfigError
from synthgen.integration.artifacts import PACKAGED
from synthgen.integration.mix import Schedule, as_ratio
from synthgen.runs.trackers import Trackers
from synthgen.ssl.augment.pipeline import Augmentation
from synthgen.ssl.methods.dino import DINOConfig
from synthgen.ssl.methods.simclr import SimCLRConfig
from synthgen.ssl.methods.vicreg import VICRegConfig
from synthgen.ssl.readout import Reading
from synthgen.ssl.spectral_statistics import StatisticsConfig

P = TypeVar("P", bound=Config)


class DataOptions(Config):
    """The real cubes."""

    data: str | None = Field(default=None, description="cohort file of real cubes; without it, the embedded default")
    patients: Literal["train", "known"] = Field(
        default="train",
        description="real cubes of the split's training patients; known: of the calibration patients, too",
    )


class SupplyOptions(Config):
    """The synthetic cubes: where they come from, how many a batch has, how often each is drawn."""

    generator: str | None = Field(
        default=None,
        description=f"generator folder; without it and without shards, {PACKAGED}; beside token shards: what decodes "
        "them, where it is no longer in the place that they remember",
    )
    shards: str | None = Field(default=None, description="folder of accepted shards, instead of sampling")
    synthetic_ratio: str = Field(default="0.5", description="fraction of synthetic samples in a batch: 0.5, 1/3 ...")
    ratio_schedule: Schedule = Field(
        default="constant",
        description="constant; linear: falling, with this fraction over the run; synthetic-first: then real alone",
    )
    cross_views: str = Field(
        default="0",
        description="fraction of the real samples whose second view is of the generator's variant of the cube",
    )
    cross_noise: float = Field(
        default=0.5, gt=0, le=1, description="how far variants are noised before they are sampled back; 1: wholly"
    )
    reuse: int = Field(default=8, ge=1, description="how often one synthetic cube is drawn (R)")
    max_age: int | None = Field(default=None, ge=1, description="steps after which a synthetic cube is no longer drawn")
    pool_cache: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="keep the cubes of pool or token shards decoded (3 MB each at 224): a draw costs nothing; auto: up "
        "to 1 GiB",
    )
    sampler: Literal["euler", "heun", "ab2"] = Field(default="ab2", description="ODE solver of the generator")
    sampler_steps: int = Field(default=8, ge=1, description="its number of steps")

    @field_validator("synthetic_ratio", "cross_views", mode="before")
    @classmethod
    def _ratio(cls, value: Any) -> str:
        try:
            as_ratio(value)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return str(value)

    @model_validator(mode="after")
    def _one_source(self) -> SupplyOptions:
        if self.shards is not None and as_ratio(self.cross_views) > 0:
            raise ValueError("variants of real cubes take a --generator; --shards have none to make them with")
        return self


class GateOptions(Config):
    """What the gates certify, and when."""

    gates: Literal["auto", "require", "report", "off"] = Field(
        default="auto",
        description="what a gate that does not pass does; auto: require, but report on the embedded default",
    )
    gates_folder: str | None = Field(default=None, description="folder written by `synthgen calibrate`")
    certify_count: int = Field(
        default=500, ge=2, description="cubes proposed for the set certificate before the first step"
    )
    gate_window: int | None = Field(
        default=None, ge=2, description="accepted cubes that the set gates watch; the largest calibrated size up to 400"
    )
    gate_every: int | None = Field(
        default=None, ge=1, description="accepted cubes between two verdicts on the window; half a window by default"
    )


class MethodOptions(Config):
    """What is learned, by which network, from which views."""

    method: Literal["simclr", "vicreg", "dino", "statistics"] = Field(
        default="statistics",
        description="self-supervised method; statistics: predicts the cube's statistics, alone or beside the others",
    )
    backbone: str = Field(default="resnet18", description="any timm model")
    reading: Reading = Field(
        default="stages",
        description="features that are trained and exported: mean, standard deviation and maximum of every stage, or "
        "those of the last layer alone",
    )
    whiten: bool = Field(
        default=True, description="begin with a first layer that sees whitened spectra, not brightness alone"
    )
    augmentation: Augmentation = Field(default_factory=Augmentation)
    simclr: SimCLRConfig = Field(default_factory=SimCLRConfig)
    vicreg: VICRegConfig = Field(default_factory=VICRegConfig)
    dino: DINOConfig = Field(default_factory=DINOConfig)
    statistics: StatisticsConfig = Field(default_factory=StatisticsConfig)


class OptimisationOptions(Config):
    """Steps, batches and the optimiser."""

    steps: int = Field(default=400, ge=1, description="optimiser steps")
    batch_size: int = Field(default=64, ge=2, description="samples per process and step, real and synthetic together")
    accumulate: int = Field(
        default=1,
        ge=1,
        description="parts of a batch that go through the backbone one after the other; the loss sees it whole",
    )
    learning_rate: float = Field(default=3e-3, gt=0, description="peak of the cosine schedule")
    weight_decay: float = Field(default=0.05, ge=0, description="on matrices and kernels, not on biases and norms")
    weight_decay_end: float | None = Field(
        default=None,
        ge=0,
        description="weight decay at the last step, reached by a cosine (DINO: from 0.04 to 0.4)",
    )
    warmup: float = Field(default=0.1, ge=0, lt=1, description="fraction of the steps in which the learning rate rises")
    clip: float = Field(default=3.0, gt=0, description="largest norm of the gradient")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(default="auto", description="auto is bf16 on CUDA")

    @model_validator(mode="after")
    def _parts(self) -> OptimisationOptions:
        if self.accumulate > self.batch_size // 2:
            raise ValueError(
                f"accumulate {self.accumulate} leaves parts of fewer than two cubes; a batch of {self.batch_size} "
                f"goes in at most {self.batch_size // 2} parts"
            )
        return self


class RunOptions(Config):
    """The run: its folder, checkpoints, metrics and seed."""

    seed: int = Field(default=0, ge=0, description="of the initial weights, batches, views and synthetic cubes")
    out: str = Field(default="runs/pretrain", description="run folder")
    resume: bool = Field(default=False, description="go on from the newest checkpoint in the run folder")
    checkpoint_every: int = Field(default=100, ge=1, description="steps between checkpoints")
    monitor_every: int = Field(
        default=100, ge=0, description="steps between measurements of the features for collapse and shortcuts; 0: never"
    )
    monitor_count: int = Field(
        default=128, ge=16, description="cubes of each kind in such a measurement, always the same ones"
    )
    log_every: int = Field(default=10, ge=1, description="steps between lines of metrics")
    tracker: Trackers = ""


class Pretraining(RunOptions, OptimisationOptions, MethodOptions, GateOptions, SupplyOptions, DataOptions):
    """What one pretraining run is: all options side by side, as in its YAML file (the last base class comes first)."""

    command: ClassVar[str] = "pretrain"
    several: ClassVar[bool] = True

    @model_validator(mode="after")
    def _second_views(self) -> Pretraining:
        if self.method == "statistics" and as_ratio(self.cross_views) > 0:
            raise ValueError("cross_views needs a method of two views: simclr, vicreg or dino")
        return self

    @property
    def policy(self) -> str:
        """`gates`, with auto resolved: the embedded default is for trials, so there the gates only report."""
        embedded = self.data is None and self.generator is None and self.shards is None
        return self.gates if self.gates != "auto" else ("report" if embedded else "require")

    def part(self, kind: type[P]) -> P:
        """The options of one room alone; of the gates with `policy` in place of auto."""
        values: dict[str, Any] = {name: getattr(self, name) for name in kind.model_fields}
        if "gates" in values:
            values["gates"] = self.policy
        return kind.model_construct(None, **values)
