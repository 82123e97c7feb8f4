"""Patterns fixed to the retina: mottle of the pigment, choroidal vessels, bundles of nerve fibres."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

SPLINE_POWER = 151 / 315  # mean square of white noise under a cubic B-spline, per axis; its root for both axes
EXTENT = 1.4  # the patterns reach from -EXTENT to EXTENT, fractions of the field's radius


def mottle(rng: np.random.Generator, scale: float, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Smooth noise of mean 0 and variance 1 at the positions x, y [H, W]; `scale` is the size of a grain.

    A grid of independent numbers under cubic B-splines: linear interpolation would show the grid's squares.
    """
    n = max(int(2 * EXTENT / scale), 6)
    grid = rng.standard_normal((n, n), dtype=np.float32) / SPLINE_POWER
    to_grid = (n - 1) / (2 * EXTENT)
    at = np.stack([(y + EXTENT) * to_grid, (x + EXTENT) * to_grid])
    return ndimage.map_coordinates(grid, at, order=3, mode="nearest", output=np.float32, prefilter=False)


def choroidal_vessels(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Cover of choroidal vessels, 0..1 [H, W]: lanes that leave the macula and meander outward, wide and narrow."""
    radius, angle = np.hypot(x + 0.1, y) + 1e-9, np.arctan2(y, x + 0.1)
    drift = 0.07 * mottle(rng, 0.45, x, y)
    across, along = (angle / np.pi + drift) * 1.2, 0.20 * np.log(radius + 0.25)
    wide = np.tanh(1.3 * mottle(rng, 0.048, along, across))
    narrow = np.tanh(1.3 * mottle(rng, 0.027, along * 1.3, -across))
    return np.clip(0.5 + 0.4 * wide + 0.25 * narrow, 0, 1)


def nerve_fibres(x: np.ndarray, y: np.ndarray, disc: np.ndarray, radius: float, grain: np.ndarray) -> np.ndarray:
    """Factor [H, W] on the thickness of the nerve-fibre layer: thick bundles above and below the disc, striation.

    disc: its centre [2]; radius: its radius; grain: noise [H, W] that makes the striation irregular.
    """
    dx, dy = x - disc[0], y - disc[1]
    from_disc, angle = np.hypot(dx, dy) / radius, np.arctan2(dy, dx)
    bundles = 0.5 * np.abs(np.sin(angle)) ** 1.5 * np.exp(-(((from_disc - 1.4) / 2.6) ** 2))
    irregular = np.sin(38 * angle + 5 * grain) * np.sin(9 * angle - 3 * grain)
    return (1 + bundles) * (1 + 0.10 * irregular * np.exp(-((from_disc / 5) ** 2)))
