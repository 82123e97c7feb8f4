"""`synthgen train-generator`: both trainings of a generator, one after the other, from one recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, model_validator

from synthgen.config import Config
from synthgen.integration.artifacts import tell_if_too_few_for_gates
from synthgen.integration.pages.run import end_with_report
from synthgen.integration.train import WatchedAutoencoder, WatchedDiffusion, train_autoencoder, train_diffusion
from synthgen.runs.checkpoint import Checkpoints
from synthgen.runs.locks import one_at_a_time

SHARED = ("data", "resume", "cpu", "patients")  # given once, for both trainings


class GeneratorTraining(Config):
    """A recipe: two trainings on one cohort. `out/autoencoder` and `out/diffusion` are their run folders."""

    command: ClassVar[str] = "train-generator"
    several: ClassVar[bool] = True
    data: str = Field(description="cohort file (HDF5)")
    out: str = Field(description="folder of the two runs; the generator is out/diffusion/generator")
    resume: bool = Field(False, description="go on where the recipe was stopped")
    cpu: bool = Field(False, description="stay on the CPU even where there is a GPU")
    patients: str = Field("train", description="train or all, as in the two trainings")
    autoencoder: WatchedAutoencoder = Field(description="the first training")
    diffusion: WatchedDiffusion = Field(description="the second")

    @model_validator(mode="before")
    @classmethod
    def _copy_shared(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not {"data", "out"} <= values.keys():
            return values
        shared = {k: values[k] for k in SHARED if k in values}
        out = Path(str(values["out"]))
        places = {
            "autoencoder": {"out": str(out / "autoencoder")},
            "diffusion": {"out": str(out / "diffusion"), "autoencoder": str(out / "autoencoder")},
        }
        return {**values, **{k: (values.get(k) or {}) | shared | place for k, place in places.items()}}


def train_generator(config: GeneratorTraining, note: str = "") -> Path:
    """Train what is not trained yet; returns the generator's folder. `note` is written below the contact sheets."""
    with one_at_a_time(config.out, make=True):
        return _train_generator(config, note)


def _train_generator(config: GeneratorTraining, note: str) -> Path:
    first, second = config.autoencoder, config.diffusion
    if first.patients != "all":
        tell_if_too_few_for_gates(first.data)
    if not (config.resume and (Path(first.out) / "autoencoder").is_dir()):
        train_autoencoder(resumable(first), note)
    folder = train_diffusion(resumable(second), note)
    end_with_report(config.out)
    return folder


def resumable(config: Any) -> Any:
    """The training, resumed only if it has got as far as a checkpoint."""
    begun = bool(Checkpoints(Path(config.out) / "checkpoints").steps())
    return config.model_copy(update={"resume": config.resume and begun})
