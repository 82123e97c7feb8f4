"""`synthgen augmentations`: how much of a planted weak difference each augmentation takes, as a table."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from synthgen.config import Config, build, read_words, unfolded
from synthgen.cubes.cohort.cohort import Cohort
from synthgen.cubes.cohort.splits import load_or_make_split
from synthgen.errors import ConfigError, GateError
from synthgen.integration.artifacts import open_cohort
from synthgen.integration.options import Pretraining
from synthgen.ssl.augment.noise import measured_noise
from synthgen.ssl.augment.pipeline import Augmentation
from synthgen.ssl.augment.signature_retention import (
    INFORMATION,
    INFORMATION_ALL,
    KEPT,
    KEPT_ALL,
    SHOWN,
    Retained,
    losses,
    signature_retained,
)

PHANTOM_PATIENTS, PHANTOM_SIZE, PHANTOM_SEED = 16, 64, 7
MIDDLE = 0.3  # radius of the region where no macula is marked, as a fraction of the image's width


class Safety(Config):
    """What the augmentations leave of a tilt of 1 % at 450-585 nm."""

    source: str = Field(description="whose cubes")
    cubes: int
    views: int
    region: str = Field(description="where the regional signature sits")
    augmentation: Augmentation
    everywhere: dict[str, Retained] = Field(description="signature in the whole field of view")
    regional: dict[str, Retained] = Field(description="signature in the region alone, against the rest")

    @property
    def too_much(self) -> list[str]:
        """What goes beyond the limits, in words; empty when the augmentations are safe."""
        return [f"whole field: {loss}" for loss in losses(self.everywhere)] + [
            f"{self.region}: {loss}" for loss in losses(self.regional, regional=True)
        ]


def augmentation_safety(
    data: Annotated[str | os.PathLike | None, Field(description="cohort file; simulated eyes by default")] = None,
    recipe: Annotated[str | os.PathLike | None, Field(description="recipe (YAML) with a table 'augmentation'")] = None,
    cubes: Annotated[int, Field(ge=2, description="cubes examined, at most")] = 32,
    views: Annotated[int, Field(ge=2, description="views of each cube")] = 4,
    seed: Annotated[int, Field(ge=0, description="of the views")] = 0,
) -> Safety:
    """Plant the difference in training cubes of a cohort (or of simulated eyes) and look for it in their views.

    Args:
        data: cohort file; without it, simulated eyes without any signature of their own.
        recipe: YAML file with a table `augmentation`; without it, the defaults.
        cubes: at most so many, spread evenly over the training cubes. views: of each.
    """
    config = _strengths(recipe)
    with tempfile.TemporaryDirectory() as folder:
        cohort = open_cohort(str(data)) if data is not None else _phantom(Path(folder))
        if cohort.height != cohort.width:
            raise ConfigError("the cubes are not square", path=cohort.path, found=f"{cohort.height}x{cohort.width}")
        train = cohort.index_of(load_or_make_split(cohort).train) if data is not None else np.arange(len(cohort))
        chosen = np.unique(train[np.linspace(0, len(train) - 1, min(cubes, len(train))).astype(np.int64)])
        values = cohort.cubes(chosen)
        name, region = _region(cohort, chosen)
    noise = measured_noise(values) if config.noise == "measured" else None
    everywhere, regional = (
        signature_retained(values, cohort.wavelengths, config, None, views, seed, where, noise)
        for where in (None, region)
    )
    return Safety(
        source=str(data) if data is not None else "simulated eyes",
        cubes=len(values),
        views=views,
        region=name,
        augmentation=config,
        everywhere=everywhere,
        regional=regional,
    )


def raise_unless_safe(safety: Safety) -> None:
    """GateError when an augmentation takes more than its share."""
    if safety.too_much:
        raise GateError(
            "the augmentations take too much of a weak signature",
            found="; ".join(safety.too_much),
            remedy="weaken these augmentations",
        )


def print_safety(safety: Safety) -> None:
    """The table on the terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    title = f"What is left of 1 % at 450-585 nm: {safety.cubes} cubes of {safety.source}, {safety.views} views each"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("augmentation", no_wrap=True)
    for name in ("kept", "separation left", f"kept, {safety.region}", "separation left", "region shown"):
        table.add_column(name, justify="right")
    for name, row in safety.everywhere.items():
        local = safety.regional[name]
        figures = (row.kept, row.information, local.kept, local.information, local.shown)
        table.add_row(name, *(f"{value:.3f}" for value in figures))
    console = Console()
    console.print(table)
    limits = f"kept {KEPT:g} (all {KEPT_ALL:g}), separation left {INFORMATION:g} (all {INFORMATION_ALL:g})"
    console.print(f"limits: {limits} in the whole field, region shown {SHOWN:g}", highlight=False)
    for line in safety.too_much:
        console.print(f"too much: {line}", highlight=False, soft_wrap=True)


def _strengths(recipe: str | os.PathLike | None) -> Augmentation:
    if recipe is None:
        return Augmentation()
    table = unfolded(Pretraining, read_words(recipe), recipe).get("augmentation")
    if not isinstance(table, dict):
        raise ConfigError("has no table 'augmentation'", path=recipe, remedy="without --config the defaults are tested")
    return build(Augmentation, table, recipe)


def _phantom(folder: Path) -> Cohort:
    from synthgen.cubes.phantom.cohort import simulate_cohort

    return simulate_cohort(folder / "eyes.h5", PHANTOM_PATIENTS, PHANTOM_SIZE, PHANTOM_SEED, signature=0.0, workers=1)


def _region(cohort: Cohort, index: np.ndarray) -> tuple[str, np.ndarray]:
    """The macula where it is marked in every cube, else a disc in the middle: name and bool [n, H, W]."""
    if "macula" in cohort.mask_names:
        macula = cohort.masks(index)["macula"]
        if macula.any((1, 2)).all():
            return "macula", macula
    at = np.linspace(-0.5, 0.5, cohort.height)
    disc = at[:, None] ** 2 + at[None] ** 2 < MIDDLE**2
    return "middle", np.broadcast_to(disc, (len(index), *disc.shape)).copy()
