"""What a study is: its data, its arms, and the settings that all arms share."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

import yaml
from pydantic import Field, model_validator

from synthgen.config import Config
from synthgen.errors import ConfigError
from synthgen.integration.mix import Schedule
from synthgen.integration.options import Pretraining
from synthgen.integration.recipe import GeneratorTraining
from synthgen.quality.calibrate import Calibration
from synthgen.ssl.augment.pipeline import Augmentation

REAL, MIXED, FIRST, CONTROL = "real", "mixed-0.5", "synthetic-first", "procedural"
REAL_LONGER, REAL_MUCH_LONGER = "real-longer", "real-much-longer"
RANDOM, SPECTRA = "random-weights", "mean-spectra"


class Arm(Config):
    """One way to pretrain. What is not set here is the same in every arm."""

    name: str
    what: str = Field(description="in words, for the table")
    pretrained: bool = True
    synthetic_ratio: str = "0"
    ratio_schedule: Schedule = "constant"
    source: Literal["none", "generator", "fixed", "procedural"] = "none"
    gated: bool = True
    reuse: int | None = Field(default=None, description="R; that of the pretraining where not given")
    strong: bool = Field(default=False, description="the study's strong augmentation")
    lasts: Literal["", "mixed", "mixed and generator"] = Field(
        default="", description="as long as that took, not so many steps"
    )

    @property
    def needs_generator(self) -> bool:
        return self.source in ("generator", "fixed")


def _mixed(name: str, what: str, **more: Any) -> Arm:
    return Arm(**{"name": name, "what": what, "synthetic_ratio": "0.5", "source": "generator", **more})


ARMS: dict[str, Arm] = {
    arm.name: arm
    for arm in (
        Arm(name=SPECTRA, what="LDA on mean spectra, no network", pretrained=False),
        Arm(name=RANDOM, what="the network, not trained", pretrained=False),
        Arm(name=REAL, what="real cubes only"),
        Arm(name="real-strong", what="real cubes only, strong augmentation", strong=True),
        _mixed(MIXED, "half of every batch synthetic"),
        _mixed("mixed-0.25", "a quarter of every batch synthetic", synthetic_ratio="0.25"),
        _mixed("mixed-0.75", "three quarters of every batch synthetic", synthetic_ratio="0.75"),
        _mixed("synthetic", "synthetic cubes only", synthetic_ratio="1"),
        _mixed(FIRST, "synthetic cubes in the first half, real ones in the second", ratio_schedule="synthetic-first"),
        _mixed(CONTROL, "half from a crude simulator instead of the generator", source="procedural", gated=False),
        _mixed("gates-off", "half synthetic, no gates", gated=False),
        _mixed("reuse-1", "half synthetic, every cube drawn once", reuse=1),
        _mixed("reuse-inf", "half synthetic, from a fixed set drawn for ever", source="fixed"),
        Arm(name=REAL_LONGER, what=f"real cubes only, for as long as {MIXED} took", lasts="mixed"),
        Arm(
            name=REAL_MUCH_LONGER,
            what=f"real cubes only, for as long as {MIXED}, generator and gates took",
            lasts="mixed and generator",
        ),
    )
}
STRONG = Augmentation(
    scale_min=0.2, rotation=30, gain_min=0.5, gain_max=2.0, vignette=0.5, spectral_jitter=0.05, wavelength_shift=0.5,
    dropout=0.6, blur=0.3, misregistration=1.0,
)  # fmt: skip
BY_ARM = (
    "patients", "generator", "shards", "synthetic_ratio", "ratio_schedule", "gates", "gates_folder", "seed", "resume",
)  # fmt: skip


class Study(Config):
    """One question to one cohort: do synthetic cubes in pretraining help to read the label?"""

    command: ClassVar[str] = "study"
    data: str = Field(description="cohort file: everything learns from its training and calibration patients")
    labelled: str | None = Field(
        default=None,
        description="cohort of other, labelled patients to probe on; by default the test patients of `data`",
    )
    label: str = Field(default="label", description="field of the cohort, or column of the table, that holds 0 or 1")
    table: str | None = Field(default=None, description="CSV with a column patient and the label")
    out: str = Field(default="runs/study", description="folder of the study; an interrupted one is resumed there")
    results: str | None = Field(
        default=None,
        description="folder of one small JSON per arm and seed; runs add up; `results` in `out` where not given",
    )
    arms: tuple[str, ...] = Field(default=tuple(ARMS), description="which arms; finished ones are not run again")
    seeds: tuple[int, ...] = Field(
        default=(0, 1, 2), min_length=1, description="of the pretrainings; more can be added later"
    )
    seeds_of: dict[str, tuple[int, ...]] = Field(
        default={}, description="other seeds for some arms: {real-much-longer: [0]}"
    )
    workers: int = Field(
        default=0, ge=0, description="processes at a time; 0: one per CUDA device, else one per two cores"
    )
    given_generator: str | None = Field(
        default=None,
        description="generator folder or packaged name to use instead of training one on the same patients",
    )
    given_gates: str | None = Field(default=None, description="gates folder or packaged name, likewise")
    policy: Literal["require", "report"] = Field(
        default="report",
        description="of the gates; report admits cubes uncertified and reports it in the conclusion",
    )
    folds: int = Field(default=5, ge=2, description="of the cross-validation by patient, the same in every arm")
    repeats: int = Field(default=3, ge=1, description="of the cross-validation, with other folds each time")
    probe_seed: int = Field(default=0, ge=0, description="of the folds and of the bootstrap")
    pretrain: Pretraining = Field(default_factory=Pretraining, description="what all pretrainings share")
    strong: Augmentation = Field(default=STRONG, description="augmentation of the arm real-strong")
    generator: GeneratorTraining = Field(description="the recipe of the generator")
    gates: Calibration = Field(description="the calibration of the gates")

    def to_yaml(self) -> str:
        """Without the places of the parts, which follow from `data` and `out`: the file serves another folder too."""
        placed = {"generator": {"data", "out", "patients"}, "gates": {"data", "out"}, "pretrain": {"data", "out"}}
        return yaml.safe_dump(self.model_dump(mode="json", exclude=placed), sort_keys=False)

    @model_validator(mode="before")
    @classmethod
    def _place(cls, values: Any) -> Any:
        """Give the parts what the study states once."""
        if not isinstance(values, dict) or "data" not in values:
            return values
        data, out = str(values["data"]), Path(str(values.get("out", cls.model_fields["out"].default)))
        places: dict[str, dict[str, Any]] = {
            "generator": {"data": data, "out": str(out / "generator"), "patients": "known"},
            "gates": {"data": data, "out": str(out / "gates")},
            "pretrain": {"data": data, "out": str(out / "pretrain")},
        }
        found = dict(values)
        for part, fixed in places.items():
            given = values.get(part) or {}
            if isinstance(given, Config):
                given = given.model_dump(mode="json")
            for key, value in fixed.items():
                if key in given and given[key] not in (value, None):
                    raise ConfigError(f"'{part}.{key}' is set by the study", found=repr(given[key]))
            found[part] = {**given, **fixed}
        return found

    @model_validator(mode="after")
    def _possible(self) -> Study:
        for name in (*self.arms, *self.seeds_of):
            if name not in ARMS:
                raise ValueError(f"there is no arm '{name}'; the arms are {', '.join(ARMS)}")
        for key in BY_ARM:
            if getattr(self.pretrain, key) != Pretraining.model_fields[key].get_default():
                raise ValueError(f"'pretrain.{key}' differs between arms and is set by the study")
        if self.given_generator is not None and self.given_gates is None:
            raise ValueError("a given generator needs the gates that belong to it (given_gates)")
        if self.given_gates is not None and self.given_generator is None:
            raise ValueError("given gates judge a given generator (given_generator); without one, leave both out")
        return self

    @property
    def generator_folder(self) -> str:
        return self.given_generator or str(Path(self.generator.out) / "diffusion" / "generator")

    @property
    def gates_folder(self) -> str:
        return self.given_gates or self.gates.out

    def seeds_for(self, arm: str) -> tuple[int, ...]:
        return self.seeds_of.get(arm, self.seeds)
