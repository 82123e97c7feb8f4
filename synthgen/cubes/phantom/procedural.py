"""A control that knows nothing of eyes: smooth random fields, branching curves, one plain spectrum.

If pretraining on these cubes helps as much as on a generator's, the generator has no merit of its own ("Learning to See
by Looking at Noise", NeurIPS 2021: even noise processes pretrain). Of the real cubes only the mean spectrum, its
deviation and the field of view are used, so that brightness alone does not give a cube away.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from synthgen.cubes.floor import LOG_FLOOR
from synthgen.runs.keys import numpy_stream

OCTAVES = ((4, 0.6), (9, 0.3), (20, 0.15))  # (cells per side, standard deviation) of the smooth field
TREES, STEPS, FORK = (3, 7), 90, 0.025  # curves per cube, steps of a curve, probability of a fork at a step
DEPTH = (0.2, 0.6)  # by how much a curve lowers log-reflectance, alike in every band
NOISE = 0.01  # standard deviation of log-reflectance from pixel to pixel


@dataclass(frozen=True)
class Plain:
    """What is taken from real cubes: mean and standard deviation of log-reflectance [C], field of view bool [H, W]."""

    mean: np.ndarray
    std: np.ndarray
    fov: np.ndarray

    @staticmethod
    def of(cubes: np.ndarray) -> Plain:
        """From reflectance [N, C, H, W]; a pixel is in view where it reflects more than the floor in most cubes."""
        fov = (cubes.mean(1) > LOG_FLOOR).mean(0) > 0.5
        fov = fov if fov.any() else np.ones_like(fov)
        logs = np.log(cubes[:, :, fov].clip(0).astype(np.float64) + LOG_FLOOR)
        return Plain(logs.mean((0, 2)), logs.std((0, 2)), fov)


def procedural_cube(plain: Plain, seed: int, number: int) -> np.ndarray:
    """Reflectance float32 [C, H, W] of the key (seed, number)."""
    rng = numpy_stream("procedural", seed, number)
    size = len(plain.fov)
    smooth = sum(amount * _field(rng, cells, size) for cells, amount in OCTAVES)
    level = rng.normal() + smooth  # one number for all bands: a plain spectrum, brighter or darker
    logs = plain.mean[:, None, None] + plain.std[:, None, None] * level
    logs = logs - _curves(rng, size) + NOISE * rng.standard_normal(logs.shape)
    cube = (np.exp(logs) - LOG_FLOOR).clip(0, 1) * plain.fov
    return cube.astype(np.float32)


def _field(rng: np.random.Generator, cells: int, size: int) -> np.ndarray:
    """Smooth noise [size, size] of mean 0 and standard deviation 1."""
    coarse = rng.standard_normal((cells, cells))
    at = np.linspace(0, cells - 1, size)
    field = ndimage.map_coordinates(coarse, np.stack(np.meshgrid(at, at, indexing="ij")), order=3, mode="nearest")
    return (field - field.mean()) / max(field.std(), 1e-9)


def _curves(rng: np.random.Generator, size: int) -> np.ndarray:
    """Depth [size, size] of random walks that fork and grow thinner."""
    depth = np.zeros((size, size))
    rows, columns = np.mgrid[:size, :size]
    walks = [
        (rng.uniform(0, 1, 2), rng.uniform(0, 2 * np.pi), rng.uniform(0.008, 0.02)) for _ in range(rng.integers(*TREES))
    ]
    dark = rng.uniform(*DEPTH)
    for _ in range(40):  # trees may fork without end
        if not walks:
            break
        at, angle, width = walks.pop()
        points = []
        for _ in range(STEPS):
            angle += rng.normal(0, 0.15)
            at = at + 0.012 * np.array([np.sin(angle), np.cos(angle)])
            points.append(at)
            if rng.random() < FORK:
                walks.append((at, angle + rng.choice([-0.6, 0.6]), 0.75 * width))
        wide = max(width * size, 0.6)
        for y, x in np.array(points) * size:
            low = [int(max(0, v - 3 * wide)) for v in (y, x)]
            part = tuple(slice(v, v + int(6 * wide) + 2) for v in low)
            near = np.exp(-((rows[part] - y) ** 2 + (columns[part] - x) ** 2) / (2 * wide**2))
            depth[part] = np.maximum(depth[part], near)
    return dark * depth
