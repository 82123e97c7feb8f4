"""Everything that looks at a single cube, on one device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from synthgen.quality.features.encoder import Encoder
from synthgen.quality.features.handcrafted import Logs, filled_logs, hand_features
from synthgen.quality.features.projection import Space
from synthgen.quality.features.regions import REGIONS, regions_of, structure_features
from synthgen.quality.per_cube.memorization import MemorizationDetector
from synthgen.quality.per_cube.plausibility import Plausibility
from synthgen.quality.segmenter.segmenter import Segmenter


@dataclass(frozen=True)
class Instruments:
    """Networks and bases. segmenter: None where structures cannot be found in cubes of these bands."""

    encoder: Encoder
    segmenter: Segmenter | None
    spaces: dict[str, Space]
    memorization: MemorizationDetector
    plausibility: Plausibility

    def to(self, device: torch.device | str) -> Instruments:
        return Instruments(
            self.encoder.to(device),
            None if self.segmenter is None else self.segmenter.to(device),
            {name: space.to(device) for name, space in self.spaces.items()},
            self.memorization.to(device),
            self.plausibility.to(device),
        )

    @torch.no_grad()
    def columns(self, cubes: Tensor, wavelengths: Sequence[float], logs: Logs | None = None) -> dict[str, Tensor]:
        """What the set gates know of cubes [N, C, H, W], whose logs may be at hand: see `Rows`; and `side` [N]."""
        logs = filled_logs(cubes) if logs is None else logs
        found = None if self.segmenter is None else self.segmenter.probabilities(cubes, wavelengths)
        regions = regions_of(logs, found)
        names = REGIONS if self.segmenter is not None else REGIONS[-1:]
        table = {"encoder": self.spaces["encoder"](self.encoder(cubes))}
        table["spectra"] = self.spaces["spectra"](hand_features(logs))
        if "structures" in self.spaces:
            table["structures"] = self.spaces["structures"](structure_features(regions))
        for name in names:
            k = REGIONS.index(name)
            table[name] = regions.spectra[:, k]
            table[f"{name}_contrast"] = regions.contrast[:, k]
            table[f"{name}_extent"] = regions.extent[:, k]
        return {**table, "side": regions.side}
