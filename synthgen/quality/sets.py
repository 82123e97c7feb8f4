"""The set statistics: how far a query set lies from a reference set, in each of several views of their cubes.

Every statistic is made of two steps: a view is fitted on the reference and gives coordinates of both sets (`View`),
and a distance is taken between the two clouds. Refitting the view on each reference is part of the statistic, so its
null distribution (real against real) contains the same fitting error as its use (real against synthetic).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from synthgen.cubes.structures import region_spectra
from synthgen.quality.embedding import Basis, block_sizes, set_features
from synthgen.quality.metrics import frechet_distance, ms_ssim, spectral_kl
from synthgen.quality.segment import STRUCTURES, Segmenter

Array = NDArray[np.float64]

FRECHET = "frechet"
PARTS = ("level", "shape", "extent")
MAX_DIMENSION = 64  # of the Frechet space; n/5 below that, or the covariance is mostly noise
SHAPE_COMPONENTS = 3  # of a structure's spectral shape, plus one coordinate for what they leave over
MIN_FOUND = 10  # cubes in which a structure must be found before its spectra are compared
_CHUNK = 64


@dataclass(frozen=True)
class SetFeatures:
    """What the statistics need to know of N cubes, computed once.

    features: [N, F] of `embedding.set_features`. spectra: per structure [N, C] mean log-reflectance, NaN where absent.
    extent: per structure [N] log of its share of the pixels. patients: [N]; a synthetic cube is its own patient.
    """

    features: Array
    spectra: dict[str, Array]
    extent: dict[str, Array]
    patients: np.ndarray

    def __len__(self) -> int:
        return len(self.features)

    def take(self, index: NDArray[np.int64]) -> SetFeatures:
        def pick(values: dict[str, Array]) -> dict[str, Array]:
            return {name: value[index] for name, value in values.items()}

        return SetFeatures(self.features[index], pick(self.spectra), pick(self.extent), self.patients[index])


def set_features_of(cubes: Tensor, segmenter: Segmenter | None, patients: Sequence[str] | None = None) -> SetFeatures:
    """Features of cubes float32 [N, C, H, W] (on the device they and the segmenter are on)."""
    blocks = [set_features(cubes[i : i + _CHUNK]).cpu().double().numpy() for i in range(0, len(cubes), _CHUNK)]
    spectra: dict[str, Array] = {}
    extent: dict[str, Array] = {}
    if segmenter is not None:
        masks = segmenter.masks(cubes)
        found = region_spectra(cubes.cpu().numpy(), masks)
        spectra = {name: found[name] for name in STRUCTURES}
        # four pixels more keep an absent structure finite, and far from a present one
        extent = {name: np.log((masks[name].sum((1, 2)) + 4) / masks[name][0].size) for name in STRUCTURES}
    owners = np.arange(len(cubes)).astype(str) if patients is None else np.asarray(patients, str)
    return SetFeatures(np.concatenate(blocks), spectra, extent, owners)


def statistic_names(structures: Sequence[str]) -> list[str]:
    return [FRECHET, *(f"{name}_{part}" for name in structures for part in PARTS)]


@dataclass(frozen=True)
class View:
    """Coordinates of a reference set in the views fitted on it, and the means to bring a query there."""

    basis: Basis
    shapes: dict[str, tuple[Array, Array]]  # structure -> mean [C], components [C, k] of the centred spectra
    reference: dict[str, Array]  # statistic -> [n, d], NaN rows where a structure is absent

    @staticmethod
    def fit(reference: SetFeatures, bands: int) -> View:
        n = len(reference)
        basis, own = Basis.fit(
            reference.features, reference.patients, block_sizes(bands), max(2, min(MAX_DIMENSION, n // 5))
        )
        shapes = {name: _shape_basis(spectra) for name, spectra in reference.spectra.items()}
        coordinates = {FRECHET: own} | _structure_coordinates(reference, shapes)
        return View(basis, shapes, coordinates)

    def query(self, features: SetFeatures) -> dict[str, Array]:
        return {FRECHET: self.basis(features.features)} | _structure_coordinates(features, self.shapes)


def statistic(name: str, reference: Array, query: Array) -> float:
    """The distance of two clouds of coordinates: Frechet, or the greater of the two Kullback-Leibler divergences.

    NaN when a structure is found in fewer than MIN_FOUND cubes of either set.
    """
    if name == FRECHET:
        return frechet_distance(reference, query)
    x, y = reference[~np.isnan(reference[:, 0])], query[~np.isnan(query[:, 0])]
    if min(len(x), len(y)) < MIN_FOUND:
        return float("nan")
    return max(spectral_kl(x, y))


def statistics(reference: SetFeatures, query: SetFeatures, bands: int) -> dict[str, float]:
    """Every statistic of a query set against a reference set."""
    view = View.fit(reference, bands)
    there = view.query(query)
    return {name: statistic(name, own, there[name]) for name, own in view.reference.items()}


def _shape_basis(spectra: Array) -> tuple[Array, Array]:
    present = spectra[~np.isnan(spectra[:, 0])]
    if len(present) < MIN_FOUND:
        return np.zeros(spectra.shape[1]), np.zeros((spectra.shape[1], 0))
    shape = present - present.mean(1, keepdims=True)
    right = np.linalg.svd(shape - shape.mean(0), full_matrices=False)[2]
    return shape.mean(0), right[:SHAPE_COMPONENTS].T


def _structure_coordinates(features: SetFeatures, shapes: dict[str, tuple[Array, Array]]) -> dict[str, Array]:
    coordinates: dict[str, Array] = {}
    for name, spectra in features.spectra.items():
        mean, components = shapes[name]
        level = spectra.mean(1, keepdims=True)
        centred = spectra - level - mean
        scores = centred @ components
        rest = np.log(np.linalg.norm(centred - scores @ components.T, axis=1, keepdims=True) + 1e-6)
        coordinates[f"{name}_level"] = level
        coordinates[f"{name}_shape"] = np.concatenate([scores, rest], axis=1)
        coordinates[f"{name}_extent"] = features.extent[name][:, None]
    return coordinates


def one_per_patient(patients: np.ndarray, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Cubes of at most `count` patients drawn at random, one of each."""
    drawn = rng.permutation(np.unique(patients))[:count]
    return np.array([rng.choice(np.flatnonzero(patients == p)) for p in drawn], dtype=np.int64)


@torch.no_grad()
def similarity_matrix(images: Tensor) -> Array:
    """MS-SSIM of every pair of images [k, C, H, W] in [0, 1]: symmetric [k, k], zero on the diagonal."""
    k = len(images)
    pairs = torch.triu_indices(k, k, 1)
    matrix = np.zeros((k, k))
    for block in pairs.split(_CHUNK, dim=1):
        matrix[block[0].numpy(), block[1].numpy()] = ms_ssim(images[block[0]], images[block[1]]).double().cpu().numpy()
    return matrix + matrix.T
