"""Whether the bands of a cube lie on one another: their shifts by cross-correlation, and bringing them back.

Contrast changes its sign between bands (vessels are dark in the green, choroidal ones bright in the infrared) and noise
rules the blue. So bands are compared by the size of the gradient of the smoothed logarithm of reflectance, which has no
sign, and by cross-correlation without whitening: whitened, as in plain phase correlation, the noise would rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any

import numpy as np
from scipy import fft, ndimage, optimize, sparse
from skimage.registration import phase_cross_correlation

from synthgen.cubes.floor import LOG_FLOOR

SMALLEST_SIDE = 48  # pixels; below, a few pixels of shift cannot be distinguished from a difference between the bands
LARGEST_SIDE = 512  # larger images are binned before: the time stays bounded and a shift is large in pixels anyway
SMOOTH = 1.5  # pixels; wider than the noise of neighbouring pixels, narrower than a vessel
NEIGHBOURS = 2  # each band is compared with so many next ones: one poor band does not break the chain
ACROSS = 6  # nearest pairs of two groups of bands that are compared where the neighbours leave the groups apart
TELLING = 0.5  # least correlation of a pair that counts; unrelated textures come to 0.25-0.38
FARTHEST = 1 / 8  # fraction of the side; a peak farther out is a chance likeness
RIM = 6  # pixels at the edge of the field that do not count: smoothing and half-lit pixels
DARK = 0.25  # of a band's median in the field; darker and joined to the surround is surround
FEW = 0.03  # fraction of dark pixels along the edge that noise and vessels make
ONE_GROUP = 1.0  # pixels; bands of one group lie within that of its middle: errors, and colours in focus differently
LEAST_SHIFT = 0.3  # pixels; a smaller one is within the error of the measurement and is left alone


@dataclass(frozen=True)
class Registration:
    """shifts float64 [C, 2]: rows and columns by which each band is displaced against the middle of all bands.

    measured bool [C]: whether the band can be compared with the others, through its neighbours; else its shift is 0.
    """

    shifts: np.ndarray
    measured: np.ndarray

    @property
    def sizes(self) -> np.ndarray:
        """Length of each band's shift, in pixels, float64 [C]."""
        return np.hypot(*self.shifts.T)


def measure_shifts(cube: np.ndarray, fov: np.ndarray | None = None) -> Registration:
    """Shifts of the bands of `cube` float32 [C, H, W], reflectance, within the bool mask `fov` [H, W].

    Each band is compared with its next `NEIGHBOURS` ones to a twentieth of a pixel; the shifts of all bands are those
    that fit all pairs best (soft L1 loss, weighted by correlation), so that neither errors add up along the bands nor
    one poor pair counts. Groups of bands that no pair links, because poor bands lie between, are compared where they
    are nearest; where they have too little in common, too, only the largest group is measured. On the simulated eyes at
    224 pixels planted shifts of 0.5 to 5 pixels come out within 0.2.
    """
    bands = len(cube)
    fov = np.ones(cube.shape[1:], dtype=bool) if fov is None else fov
    nothing = Registration(np.zeros((bands, 2)), np.zeros(bands, dtype=bool))
    if bands < 2 or not fov.any():
        return nothing
    window = _bounding_box(fov)
    cube, fov = cube[(slice(None), *window)], fov[window]
    if min(fov.shape) < SMALLEST_SIDE:
        return nothing
    factor = -(-max(fov.shape) // LARGEST_SIDE)
    cube, fov = _binned(cube, factor), _binned(fov.astype(np.float32), factor) > 0.99
    weight = _taper(fov)
    cover = ndimage.gaussian_filter(fov.astype(np.float32), SMOOTH)
    spectra = [np.asarray(fft.fft2(_texture(band, *_lit(band, fov, weight, cover)))) for band in cube]
    pairs, moves, trust = [], [], []

    def compare(candidates: Iterable[tuple[int, int]]) -> None:
        for one, other in candidates:
            correlation, move = _displacement(spectra[one], spectra[other])
            if correlation >= TELLING and np.abs(move).max() <= FARTHEST * min(fov.shape):
                pairs.append((one, other))
                moves.append(move)
                trust.append(correlation**2)

    compare((one, other) for one in range(bands) for other in range(one + 1, min(one + 1 + NEIGHBOURS, bands)))
    if not pairs:
        return nothing
    for group, following in pairwise(_groups(pairs, bands)):
        compare(_nearest(group, following))
    largest, *others = sorted(_groups(pairs, bands), key=len, reverse=True)
    for group in others:
        compare(_nearest(largest, group))
    measured = np.zeros(bands, dtype=bool)
    measured[max(_groups(pairs, bands), key=len)] = True
    kept = [k for k, (one, _) in enumerate(pairs) if measured[one]]
    pairs, moves, trust = (np.array(values)[kept] for values in (pairs, moves, trust))
    shifts = np.stack([_agreed(pairs, m, trust, bands) for m in moves.T], axis=1)
    shifts -= _middle(shifts[measured])
    return Registration(np.where(measured[:, None], shifts, 0.0) * factor, measured)


def shift_back(cube: np.ndarray, fov: np.ndarray, shifts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Move each band of `cube` [C, H, W] back by its shift [C, 2] where that is at least LEAST_SHIFT.

    Cubic splines. The mask `fov` [H, W] loses the rim that not every band covers any more. The same cube is returned
    where nothing is to be moved.
    """
    off = np.flatnonzero(np.hypot(*shifts.T) >= LEAST_SHIFT)
    if not len(off):
        return cube, fov
    cube, covered = cube.copy(), fov.copy()
    for band in off:
        cube[band] = ndimage.shift(_extended(cube[band], fov), -shifts[band], order=3, mode="nearest")
        covered &= ndimage.shift(fov.astype(np.float32), -shifts[band], order=1, mode="constant") > 0.99
    return cube, covered


def _displacement(one: np.ndarray, other: np.ndarray) -> tuple[float, np.ndarray]:
    """Correlation (0-1) of two textures at the best shift, and that shift of the other, rows and columns."""
    if not (np.abs(one).max() > 0 and np.abs(other).max() > 0):
        return 0.0, np.zeros(2)
    plain: Any = None  # not a word: correlation without whitening, which the stubs do not know
    move, error, _ = phase_cross_correlation(one, other, space="fourier", upsample_factor=20, normalization=plain)
    return float(np.sqrt(max(0.0, 1 - float(error) ** 2))), -np.asarray(move, dtype=np.float64)


def _groups(pairs: Sequence[tuple[int, int]], bands: int) -> list[list[int]]:
    """The bands that pairs link, directly or through others, group by group in order of their first band."""
    links = sparse.coo_array((np.ones(len(pairs)), tuple(np.transpose(pairs))), shape=(bands, bands))
    count, group = sparse.csgraph.connected_components(links, directed=False)
    members = [np.flatnonzero(group == k).tolist() for k in range(count)]
    return [bands for bands in sorted(members) if len(bands) > 1]


def _middle(shifts: np.ndarray) -> np.ndarray:
    """Median of the shifts [K, 2] near the one that is nearest to all others: of two groups as large it lies in one,
    not between them, where each would be off by half only.
    """
    far = np.hypot(*(shifts[:, None] - shifts).T)
    return np.median(shifts[far[np.argmin(far.sum(axis=0))] < ONE_GROUP], axis=0)


def _nearest(group: list[int], other: list[int]) -> list[tuple[int, int]]:
    """The ACROSS pairs of a band of each that are the nearest to one another."""
    return sorted(product(group, other), key=lambda pair: abs(pair[0] - pair[1]))[:ACROSS]


def _agreed(pairs: np.ndarray, moves: np.ndarray, trust: np.ndarray, bands: int) -> np.ndarray:
    """Positions [C] of which the differences fit the moves of the pairs; of many such the smallest."""
    design = np.zeros((len(pairs), bands))
    rows = np.arange(len(pairs))
    design[rows, pairs[:, 1]], design[rows, pairs[:, 0]] = 1, -1
    root = np.sqrt(trust)[:, None]
    hold = 1e-3 * np.eye(bands)  # the whole may float: held near zero
    matrix = np.concatenate([design * root, hold])
    goal = np.concatenate([moves * root[:, 0], np.zeros(bands)])
    start = np.linalg.lstsq(matrix, goal, rcond=None)[0]
    slope: Any = lambda x: matrix  # a function, which the stubs do not know
    return optimize.least_squares(lambda x: matrix @ x - goal, start, jac=slope, loss="soft_l1", f_scale=0.2).x


def _lit(band: np.ndarray, fov: np.ndarray, weight: np.ndarray, cover: np.ndarray) -> tuple[np.ndarray, ...]:
    """Mask, weight and smoothed mask without the dark rim that a shifted band shows where the others show the eye."""
    limit = DARK * np.median(band[fov])
    edge = fov & (weight == 0)
    if (band[edge] < limit).mean() < FEW:
        return fov, weight, cover
    dark = ndimage.gaussian_filter(band, SMOOTH) < limit
    rim = ndimage.binary_propagation(~fov, mask=~fov | dark) & fov
    lit = fov & ~rim
    return lit, _taper(lit), ndimage.gaussian_filter(lit.astype(np.float32), SMOOTH)


def _texture(band: np.ndarray, fov: np.ndarray, weight: np.ndarray, cover: np.ndarray) -> np.ndarray:
    """Size of the gradient of the smoothed log-reflectance, of mean zero, faded out towards the edge of the field."""
    logs = np.where(fov, np.log(np.maximum(band, 0) + LOG_FLOOR), 0)
    logs = ndimage.gaussian_filter(logs, SMOOTH) / np.maximum(cover, 1e-3)  # mean over the pixels of the field only
    size = np.hypot(ndimage.sobel(logs, 0), ndimage.sobel(logs, 1))
    size = np.minimum(size, np.quantile(size[weight > 0], 0.99) if (weight > 0).any() else 0)  # no rim, glint or speck
    return (size - (size * weight).sum() / max(float(weight.sum()), 1e-9)) * weight


def _extended(image: np.ndarray, fov: np.ndarray) -> np.ndarray:
    """The image with every pixel outside the field set to the nearest one inside: splines must not see the edge."""
    if fov.all() or not fov.any():
        return image
    nearest = ndimage.distance_transform_edt(~fov, return_distances=False, return_indices=True)
    return image[tuple(np.asarray(nearest))]


def _taper(fov: np.ndarray) -> np.ndarray:
    """Weight 0 within RIM pixels of the edge of the field (and of the frame), rising to 1 over 6 % of the image."""
    depth = np.asarray(ndimage.distance_transform_edt(np.pad(fov, 1)))[1:-1, 1:-1]
    return np.clip((depth - RIM) / (0.06 * max(fov.shape)), 0, 1).astype(np.float32)


def _binned(image: np.ndarray, factor: int) -> np.ndarray:
    """Means of factor x factor pixels of [..., H, W]; what is over at the ends is cut."""
    if factor == 1:
        return image
    height, width = (n // factor for n in image.shape[-2:])
    cut = image[..., : height * factor, : width * factor]
    return cut.reshape(*image.shape[:-2], height, factor, width, factor).mean((-3, -1))


def _bounding_box(mask: np.ndarray) -> tuple[slice, slice]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
