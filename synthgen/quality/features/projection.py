"""Coordinates in which sets are compared, fitted once on real cubes that are in no comparison.

A `Space` is principal components of standardised features; what they leave over is kept as one coordinate per block of
features, because a fault that points away from all real variation would be projected out. They are not whitened:
measured, that halves the Frechet distance of a lost mode, which lies in the leading components. A feature that a cube
does not have (NaN) takes its mean.
A `Fingerprint` is the whitened spectrum of one structure: a shift that hardly any real eye shows stands out in it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.covariance import ledoit_wolf
from torch import Tensor

Array = NDArray[np.float64]

DIMENSION = 64  # largest of a Frechet space; the covariance of more is mostly noise at the sizes in use
COMPONENTS = 3  # of a structure's spectral shape, plus one coordinate for what they leave over
OUTLIER = (
    5.0  # standard deviations; what lies further off counts as that, lest one outlier make the distance of its set
)
_NOISE = 0.003  # of log-reflectance: what the mean of a structure cannot be known better than


@dataclass(frozen=True)
class Space:
    """mean [F], scale [F], components [F, d]; unit [1]: root of their mean variance, by which coordinates are divided;
    rest [blocks, 2]: mean and standard deviation of what is left over."""

    mean: Tensor
    scale: Tensor
    components: Tensor
    unit: Tensor
    rest: Tensor
    blocks: tuple[int, ...]

    @staticmethod
    def fit(features: Array, other: Array, blocks: tuple[int, ...]) -> Space:
        """From features [n, F] of real cubes; `other` [m, F], of other patients, only scales what is left over.

        Each block has the same total variance.
        """
        known = np.ma.masked_invalid(features)
        mean = known.mean(0).filled(0.0)
        scale = np.maximum(known.std(0).filled(0.0), 1e-6)
        z, held = (
            _standardised(torch.from_numpy(x), torch.from_numpy(mean), torch.from_numpy(scale), blocks).numpy()
            for x in (features, other)
        )
        _, values, right = np.linalg.svd(z, full_matrices=False)
        # some must be left over, for the coordinates of what is left over
        d = max(1, min(DIMENSION, len(z) // 2, 3 * z.shape[1] // 4, int((values > 1e-9).sum())))
        components = right[:d].T
        unit = np.sqrt(np.square(values[:d]).mean(keepdims=True) / max(len(z) - 1, 1))
        left_over = _left_over(torch.from_numpy(held), torch.from_numpy(components), blocks).numpy()
        rest = np.stack([left_over.mean(0), np.maximum(left_over.std(0), 1e-3)], 1)
        arrays = {"mean": mean, "scale": scale, "components": components, "unit": unit, "rest": rest}
        return Space(**{name: torch.from_numpy(x).float() for name, x in arrays.items()}, blocks=tuple(blocks))

    def __call__(self, features: Tensor) -> Tensor:
        """Coordinates float32 [N, d + blocks] of features [N, F]: leading components first."""
        z = self.standardised(features)
        rest = (_left_over(z, self.components, self.blocks) - self.rest[:, 0]) / self.rest[:, 1]
        return torch.cat([z @ self.components / self.unit, rest.clamp(-OUTLIER, OUTLIER)], 1)

    def standardised(self, features: Tensor) -> Tensor:
        """Features [N, F] in standard deviations from the mean; each block has the same total variance."""
        return _standardised(features.float(), self.mean, self.scale, self.blocks)

    @property
    def dimension(self) -> int:
        return self.components.shape[1]

    def to(self, device: torch.device | str) -> Space:
        return Space(**{name: x.to(device) for name, x in self.tensors().items()}, blocks=self.blocks)

    def tensors(self) -> dict[str, Tensor]:
        return {
            "mean": self.mean,
            "scale": self.scale,
            "components": self.components,
            "unit": self.unit,
            "rest": self.rest,
        }


def _standardised(features: Tensor, mean: Tensor, scale: Tensor, blocks: tuple[int, ...]) -> Tensor:
    weight = torch.cat([torch.full((size,), (size * len(blocks)) ** -0.5) for size in blocks]).to(features)
    return ((features - mean) / scale).nan_to_num(nan=0.0).clamp(-OUTLIER, OUTLIER) * weight


def _left_over(z: Tensor, components: Tensor, blocks: tuple[int, ...]) -> Tensor:
    """Log of the energy that the components leave over, per block: [N, blocks]."""
    rest = (z - z @ components @ components.T).square()
    return torch.stack([part.sum(1) for part in rest.split(list(blocks), dim=1)], 1).add(1e-6).log()


@dataclass(frozen=True)
class Fingerprint:
    """Of one structure: mean [C] and whitening [C, C] of its spectra, mean [C] and components [C, k] of their shape."""

    mean: Array
    whiten: Array
    shape_mean: Array
    components: Array

    @staticmethod
    def fit(spectra: Array) -> Fingerprint | None:
        """From spectra [n, C] (rows of NaN where absent); None when the structure is in fewer than 2 C cubes."""
        present = spectra[~np.isnan(spectra[:, 0])]
        bands = spectra.shape[1]
        if len(present) < 2 * bands:
            return None
        # plain covariance: shrinking it would hide the directions in which real eyes hardly differ
        values, vectors = np.linalg.eigh(np.cov(present.T) + _NOISE**2 * np.eye(bands))
        shape = present - present.mean(1, keepdims=True)
        right = np.linalg.svd(shape - shape.mean(0), full_matrices=False)[2]
        return Fingerprint(present.mean(0), vectors / np.sqrt(values), shape.mean(0), right[:COMPONENTS].T)

    def whitened(self, spectra: Array) -> Array:
        """[N, C]: standard deviation 1 in every direction in which real spectra vary."""
        return (spectra - self.mean) @ self.whiten

    def shape(self, spectra: Array) -> Array:
        """[N, k + 1]: components of the centred spectrum, and the log of what they leave over."""
        centred = spectra - spectra.mean(1, keepdims=True) - self.shape_mean
        scores = centred @ self.components
        rest = np.linalg.norm(centred - scores @ self.components.T, axis=1, keepdims=True)
        return np.concatenate([scores, np.log(rest + 1e-4)], axis=1)

    def tensors(self) -> dict[str, Tensor]:
        return {k: torch.from_numpy(np.asarray(v)).float() for k, v in self.__dict__.items()}


def mahalanobis_fit(x: Array) -> tuple[Array, Array]:
    """Mean [d] and Ledoit-Wolf precision [d, d] of x [n, d] without its rows of NaN."""
    present = x[~np.isnan(x).any(1)]
    return present.mean(0), np.linalg.inv(ledoit_wolf(present)[0] + 1e-9 * np.eye(x.shape[1]))
