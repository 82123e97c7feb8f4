"""Whether a single cube could be a real one: spectra of its structures, signs that physics dictates, density.

Each of the three is one score per cube, larger when less plausible, with a conformal limit from real patients that
nothing here was fitted on. An absent structure is not judged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from synthgen.quality.features.projection import mahalanobis_fit
from synthgen.quality.features.regions import REGIONS
from synthgen.quality.per_cube.conformal import upper_limit

Array = NDArray[np.float64]

GATES = ("spectra", "physics", "density")
REASONS = {
    "spectra": "spectrum of a structure unlike any real one",
    "physics": "contrast of vessels or disc of the wrong sign",
    "density": "far from every real cube",
}
COMPONENTS = 4  # of a structure's log-spectrum (Mahalanobis distance), plus one coordinate for what they leave over
NEIGHBOUR = 5  # the density of the real manifold is judged by the distance to the 5th nearest real cube
# (structure, minus structure or its surroundings, nm from, nm to, sign): Prahl's haemoglobin table; Delori & Pflibsen
SIGNS = (
    ("artery", "vein", 600.0, 750.0, 1),  # venous blood absorbs up to three times more
    ("artery", "vein", 810.0, 900.0, -1),  # and less beyond the isosbestic point; wider veins can hide it
    ("disc", "background", 500.0, 650.0, 1),  # no melanin and less blood in the disc
    ("vein", "background", 540.0, 580.0, -1),
    ("artery", "background", 540.0, 580.0, -1),
)
_HOLDS = 0.9  # fraction of real cubes in which a sign must hold to be asked for
_LEAST = 10  # cubes in which a structure must be found to learn its spectrum


@dataclass(frozen=True)
class Plausibility:
    """centres, axes, precision, unit: by structure, mean [C], components [C, k], precision [k+1, k+1] of its scores and
    their mean, and the distance that 95 % of real cubes stay within. signs: places in SIGNS that hold in real cubes;
    std: their standard deviation. manifold [n, d]: encoder coordinates of real cubes."""

    tensors: dict[str, Tensor]
    signs: tuple[int, ...]
    std: tuple[float, ...]
    wavelengths: tuple[float, ...]

    @staticmethod
    def fit(spectra: Mapping[str, Array], coordinates: Array, wavelengths: Sequence[float]) -> Plausibility:
        """From spectra [n, C] by structure (NaN where absent) and encoder coordinates [n, d] of real cubes."""
        tensors: dict[str, Tensor] = {"manifold": torch.from_numpy(np.asarray(coordinates)).half()}
        for name, table in spectra.items():
            present = table[~np.isnan(table[:, 0])]
            if len(present) < _LEAST:
                continue
            centre = present.mean(0)
            k = min(COMPONENTS, len(present) // 5)
            axes = np.linalg.svd(present - centre, full_matrices=False)[2][:k].T
            scores = _scores(torch.from_numpy(present - centre), torch.from_numpy(axes)).numpy()
            mean, precision = mahalanobis_fit(scores)
            off = scores - mean
            unit = np.quantile(np.sqrt(np.einsum("ni,ij,nj->n", off, precision, off)), 0.95)
            parts = {"centre": centre, "axes": axes, "mean": mean, "precision": precision, "unit": np.array([unit])}
            tensors |= {f"{name}.{key}": torch.from_numpy(np.asarray(v)).float() for key, v in parts.items()}
        signs, std = [], []
        for place, _ in enumerate(SIGNS):
            values = _signed({n: torch.from_numpy(s) for n, s in spectra.items()}, place, wavelengths)
            values = values[torch.isfinite(values)].numpy() if values is not None else np.zeros(0)
            if len(values) >= _LEAST and (values > 0).mean() >= _HOLDS:
                signs.append(place)
                std.append(float(values.std()))
        return Plausibility(tensors, tuple(signs), tuple(std), tuple(wavelengths))

    @torch.no_grad()
    def scores(self, spectra: Mapping[str, Tensor], coordinates: Tensor) -> dict[str, Tensor]:
        """Of N cubes, by gate: float32 [N]; -inf where there is nothing to judge."""
        n = len(coordinates)
        worst = coordinates.new_full((n,), -torch.inf)
        for name in REGIONS:
            if f"{name}.centre" in self.tensors and name in spectra:
                t = {key: self.tensors[f"{name}.{key}"] for key in ("centre", "axes", "mean", "precision", "unit")}
                off = _scores(spectra[name].float() - t["centre"], t["axes"]) - t["mean"]
                distance = torch.einsum("ni,ij,nj->n", off, t["precision"], off).clamp_min(0).sqrt() / t["unit"]
                worst = torch.maximum(worst, torch.nan_to_num(distance, nan=-torch.inf))
        physics = coordinates.new_full((n,), -torch.inf)
        for place, std in zip(self.signs, self.std, strict=True):
            values = _signed(spectra, place, self.wavelengths)
            if values is not None:
                physics = torch.maximum(physics, torch.nan_to_num(-values.float() / std, nan=-torch.inf))
        manifold = self.tensors["manifold"].float()
        k = min(NEIGHBOUR, len(manifold))
        density = torch.cdist(coordinates, manifold).kthvalue(k, dim=1).values
        return {"spectra": worst, "physics": physics, "density": density}

    def to(self, device: torch.device | str) -> Plausibility:
        moved = {name: tensor.to(device) for name, tensor in self.tensors.items()}
        return Plausibility(moved, self.signs, self.std, self.wavelengths)


def limits_of(scores: Mapping[str, Array], patients: np.ndarray, alpha: float) -> dict[str, float] | None:
    """The conformal limit of each gate from the scores [N] of unseen real cubes; None: too few patients for `alpha`."""
    found = {}
    for name in GATES:
        # where nothing could be judged the score is -inf; a finite stand-in keeps the order
        limit = upper_limit(np.nan_to_num(np.asarray(scores[name], float), neginf=-1e9), patients, alpha)
        if limit is None:
            return None
        found[name] = limit
    return found


def in_words(place: int) -> str:
    """A sign constraint in words."""
    one, other, low, high, sign = SIGNS[place]
    return f"{one} {'brighter' if sign > 0 else 'darker'} than {other} at {low:g}-{high:g} nm"


def _scores(centred: Tensor, axes: Tensor) -> Tensor:
    scores = centred @ axes
    rest = (centred - scores @ axes.T).norm(dim=1, keepdim=True)
    return torch.cat([scores, (rest + 1e-4).log()], 1)


def _signed(spectra: Mapping[str, Tensor], place: int, wavelengths: Sequence[float]) -> Tensor | None:
    """[N] the difference that should be positive; None where bands or structures are missing."""
    one, other, low, high, sign = SIGNS[place]
    bands = [i for i, nm in enumerate(wavelengths) if low <= nm <= high]
    if not bands or one not in spectra or other not in spectra:
        return None
    return sign * (spectra[one][:, bands].mean(1) - spectra[other][:, bands].mean(1))
