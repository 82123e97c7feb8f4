"""gates.json: every limit of the gates, and how it came about."""

from __future__ import annotations

from typing import Any

from pydantic import AliasChoices, Field

from synthgen.config import Config
from synthgen.contracts import Embedding, Provenance
from synthgen.quality.per_cube.validity import ValidityLimits
from synthgen.quality.sets.null import Family

_STORED = "spread"  # the key of both in gates.json, of which the hash of the gates is taken


class SizeLimits(Config):
    """Null of comparing two sets of `size` real cubes each."""

    size: int
    resamples: int
    frechet_median: float = Field(description="median of `sets.RATIO` of real against real")
    middle: dict[str, float] = Field(description="null median of every judged statistic")
    width: dict[str, float] = Field(
        validation_alias=AliasChoices("width", _STORED),
        serialization_alias=_STORED,
        description="from there to its 95 % quantile",
    )
    tail_start: float = Field(description="largest excess in units of the width: exceeded in a tenth of resamples")
    tail_excess: float = Field(description="by this much on average")
    null: dict[str, tuple[float, ...]] = Field(description="quantiles 0, 0.05, ... 1 of every statistic's null")

    @property
    def family(self) -> Family:
        return Family(self.middle, self.width, self.tail_start, self.tail_excess)


class Authenticity(Config):
    """Limits of the distance to the nearest training cube; null where there are too few calibration patients."""

    alpha: float = Field(description="probability that a fresh real cube is taken for a copy")
    limit: float | None = Field(description="conformal limit at alpha")
    strict: float | None = Field(description="conformal limit at the smallest level that the calibration patients give")
    strict_alpha: float = Field(description="that level")
    patients: int
    note: str


class Plausible(Config):
    """Limits of the plausibility of a single cube, or null: cannot certify."""

    alpha: float = Field(description="probability that a fresh real cube is rejected, for each of the gates")
    limits: dict[str, float] | None
    signs: tuple[int, ...] = Field(description="which of `plausible.SIGNS` hold in real cubes")
    std: tuple[float, ...] = Field(
        validation_alias=AliasChoices("std", _STORED),
        serialization_alias=_STORED,
        description="standard deviation of each, over real cubes",
    )
    patients: int
    note: str


class Limits(Config):
    """Everything in gates.json besides the hash."""

    wavelengths_nm: tuple[float, ...]
    size: int
    seed: int
    validity: ValidityLimits
    authenticity: Authenticity
    plausible: Plausible
    pigment: tuple[float, float] = Field(description="terciles of the background's log-reflectance at 600-700 nm")
    sets: tuple[SizeLimits, ...] = Field(description="ascending sizes; empty: too few patients")
    structures_note: str = Field(description="how structures are detected, or why they cannot be")
    structures: bool = Field(description="whether structures can be detected in cubes of these bands")
    dice: dict[str, float] = Field(description="of the segmenter on calibration patients, where they have masks")
    real_similarity: float = Field(description="mean pairwise MS-SSIM of real cubes")
    ms_ssim_scales: int
    embeddings: tuple[Embedding, ...]
    networks: dict[str, dict[str, Any]] = Field(description="settings of encoder, memorization detector and segmenter")
    provenance: Provenance
