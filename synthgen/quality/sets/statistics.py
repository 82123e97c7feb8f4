"""The set statistics: how far a query set lies from a reference set, in each of several views of their cubes.

Both sets are given as `Rows`. Every statistic is computed under weights [R, n] of the cubes of both, so that a value,
its bootstrap draws and its null distribution are one and the same function. All are larger when worse.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from synthgen.quality.features.projection import Fingerprint
from synthgen.quality.features.regions import REGIONS
from synthgen.quality.sets.moments import Moments, divergences, frechet, moments, vendi
from synthgen.quality.sets.table import Rows
from synthgen.science.bootstrap import Index, owners

Array = NDArray[np.float64]

SPACES = ("encoder", "spectra", "structures")  # the learned and the two untrained spaces; the last needs a segmenter
JOINT = ("encoder", "structures")  # of the headline: learned features do not see all that matters about vessels
VESSELS = ("artery", "vein")
MIN_FOUND = 10  # cubes in which a structure must be found before its spectra are compared
NEIGHBOURS = 5  # of coverage (Naeem 2020)
LEAST_DIMENSION = 8  # of the Frechet space; it grows with the size of the sets, a fifth of it


class Measure(StrEnum):
    """What is compared: divergences of one-dimensional or spectral quantities, shifts of means, distances of clouds."""

    LEVEL = "level"
    SHAPE = "shape"
    EXTENT = "extent"
    SPECTRUM = "spectrum"
    CONTRAST = "contrast"
    FRECHET = "frechet"
    KID = "kid"
    COVERAGE = "coverage"
    VENDI = "vendi"
    MS_SSIM = "ms_ssim"  # |difference of the mean over pairs|


class Statistic(str):
    """A measure of a space or a structure; as text its name in gates.json, such as 'vein_shape'.

    direction: of a divergence, to read and not to judge: 'forward' KL(real || synthetic), large when modes of the real
    cubes are missing, 'reverse' KL(synthetic || real), large for implausible ones; "" for all that is judged.
    """

    of: str
    measure: Measure
    direction: Literal["", "forward", "reverse"]

    def __new__(cls, of: str, measure: Measure, direction: Literal["", "forward", "reverse"] = "") -> Statistic:
        name = f"{of}_{measure}" if of else str(measure)
        made = super().__new__(cls, f"{name}|{direction}" if direction else name)
        made.of, made.measure, made.direction = of, measure, direction
        return made

    def along(self, direction: Literal["forward", "reverse"]) -> Statistic:
        return Statistic(self.of, self.measure, direction)


# in both joint spaces together, each with the same variance; a multiple of real against real
RATIO = Statistic("joint", Measure.FRECHET)
MS_SSIM = Statistic("", Measure.MS_SSIM)


def dimension(size: int, most: int) -> int:
    """Coordinates used at sets of `size` cubes: a fifth of the cubes, or the covariance is mostly noise."""
    return int(min(most, max(LEAST_DIMENSION, size // 5)))


@dataclass(frozen=True)
class Lens:
    """How rows are looked at: fingerprints of the structures, and how many leading coordinates each space has."""

    fingerprints: Mapping[str, Fingerprint]
    contrasts: Mapping[str, Fingerprint]
    dimensions: Mapping[str, int]

    def clouds(self, rows: Rows, size: int) -> dict[Statistic, Array]:
        """The coordinates [n, d] in which each statistic compares sets; NaN where absent."""
        found: dict[Statistic, Array] = {}
        for space, most in self.dimensions.items():
            own = rows[space].astype(np.float64)
            found[Statistic(space, Measure.FRECHET)] = np.concatenate(
                [own[:, : dimension(size, most)], own[:, most:]], 1
            )
        have = [space for space in JOINT if space in self.dimensions]
        equal = [found[Statistic(space, Measure.FRECHET)] / np.sqrt(self.dimensions[space]) for space in have]
        found[RATIO] = np.concatenate(equal, 1)
        for name, print_ in self.fingerprints.items():
            spectra = rows[name].astype(np.float64)
            found[Statistic(name, Measure.LEVEL)] = spectra.mean(1, keepdims=True)
            found[Statistic(name, Measure.SHAPE)] = print_.shape(spectra)
            found[Statistic(name, Measure.SPECTRUM)] = print_.whitened(spectra)
        for name, print_ in self.contrasts.items():
            found[Statistic(name, Measure.CONTRAST)] = print_.whitened(rows[f"{name}_contrast"].astype(np.float64))
        for name in REGIONS:
            if name in self.fingerprints and name != "background":
                found[Statistic(name, Measure.EXTENT)] = rows[f"{name}_extent"].astype(np.float64)[:, None]
        return found


class Pair:
    """A reference set and a query set of about `size` cubes each, ready to be weighted."""

    def __init__(self, lens: Lens, reference: Rows, query: Rows, size: int):
        self.x, self.y = lens.clouds(reference, size), lens.clouds(query, size)
        self.n, self.m = len(reference), len(query)
        x_owner, y_owner = (owners(r.patients, len(r)) for r in (reference, query))
        self.x_owner, self.y_owner = x_owner, y_owner
        self._kernels: dict[str, tuple[Array, Array, Array, Index, Index]] = {}
        for space in lens.dimensions:
            a, b = (c[Statistic(space, Measure.FRECHET)] for c in (self.x, self.y))
            xx, yy = _cubic(a, a), _cubic(b, b)
            xx[x_owner[:, None] == x_owner] = 0  # pairs of one patient are not independent
            yy[y_owner[:, None] == y_owner] = 0
            self._kernels[space] = xx, yy, _cubic(a, b), x_owner, y_owner
        space = next(iter(lens.dimensions))
        real, made = (c[Statistic(space, Measure.FRECHET)] for c in (self.x, self.y))
        between = cdist(real, real)
        between[x_owner[:, None] == x_owner] = np.inf
        k = min(NEIGHBOURS, self.n - 1)
        radius = np.partition(between, k - 1, axis=1)[:, k - 1] if self.n > 1 else np.zeros(self.n)
        self._within = (cdist(real, made) < radius[:, None]).astype(np.float32)
        self._space = space

    def __call__(self, w: Array | None = None, v: Array | None = None) -> dict[Statistic, Array]:
        """Every statistic [R] under weights w [R, n] of the reference and v [R, m] of the query (ones if not given)."""
        w = np.ones((1, self.n)) if w is None else w
        v = np.ones((1, self.m)) if v is None else v
        found: dict[Statistic, Array] = {}
        for name, own in self.x.items():
            other = self.y[name]
            if name.measure == Measure.FRECHET:
                found[name] = frechet(moments(own, w), moments(other, v))
            elif name.measure in (Measure.SPECTRUM, Measure.CONTRAST):
                found[name] = _shift(own, other, w, v)
            else:
                a, b = moments(own, w), moments(other, v)
                forward, reverse = divergences(a, b)
                few = _few(a, b)
                found[name.along("forward")], found[name.along("reverse")] = (
                    np.where(few, np.nan, d) for d in (forward, reverse)
                )
                found[name] = np.where(few, np.nan, np.maximum(forward, reverse))
        for space, kernels in self._kernels.items():
            found[Statistic(space, Measure.KID)] = _discrepancy(*kernels, w, v)
        found[Statistic(self._space, Measure.COVERAGE)] = 1 - _covered(self._within, w, v)
        real, made = (vendi(c[Statistic(self._space, Measure.FRECHET)], s) for c, s in ((self.x, w), (self.y, v)))
        found[Statistic(self._space, Measure.VENDI)] = 1 - made / real
        return found


def wanted(statistic: Statistic) -> bool:
    """Whether a statistic is judged by the family's limits (the Frechet ratio has a policy limit of its own)."""
    return not statistic.direction and statistic != RATIO


def _shift(x: Array, y: Array, w: Array, v: Array) -> Array:
    """Squared shift of the mean [R] in whitened coordinates, the effect size of Hotelling's T^2."""
    a, b = _means(x, w), _means(y, v)
    few = np.minimum(a[1], b[1]) < MIN_FOUND
    return np.where(few, np.nan, np.square(a[0] - b[0]).sum(1))


def _means(x: Array, w: Array) -> tuple[Array, Array]:
    there = ~np.isnan(x[:, 0])
    count = w[:, there].sum(1)
    return w[:, there] @ x[there] / np.maximum(count, 1e-12)[:, None], count


def _few(a: Moments, b: Moments) -> NDArray[np.bool_]:
    return np.minimum(a.count, b.count) < MIN_FOUND


def _cubic(x: Array, y: Array) -> Array:
    """Kernel of KID (Binkowski 2018, section 4)."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def _discrepancy(xx: Array, yy: Array, xy: Array, x_owner: Index, y_owner: Index, w: Array, v: Array) -> Array:
    """MMD^2 [R] of the weighted sets over pairs of different patients (Gretton 2012, eq. 3)."""
    between = ((w @ xy) * v).sum(1) / (w.sum(1) * v.sum(1))
    return _mean_pair(xx, x_owner, w) + _mean_pair(yy, y_owner, v) - 2 * between


def _mean_pair(kernel: Array, owner: Index, w: Array) -> Array:
    total = np.zeros((len(w), int(owner.max()) + 1))
    np.add.at(total, (slice(None), owner), w)  # type: ignore[arg-type] # the stubs know no tuple of slices
    pairs = np.square(w.sum(1)) - np.square(total).sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(pairs > 0, ((w @ kernel) * w).sum(1) / pairs, np.nan)


def _covered(within: NDArray[np.float32], w: Array, v: Array) -> Array:
    """Coverage [R] (Naeem 2020, eq. 4): fraction of the real balls that hold a query cube of some weight."""
    hit = within @ (v > 0).astype(np.float32).T > 0
    return (w * hit.T).sum(1) / w.sum(1)
