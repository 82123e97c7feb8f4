"""Drawing a tree into an image, to the pixel limit: how much of each pixel it covers, and how deep."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from synthgen.cubes.phantom.trees import FIELD_MM, Tree

SPACING = 0.6  # pixels between the points with which a vessel is drawn
FAINTEST = 0.08  # pixels: a vessel thinner than that changes its pixels by less than the noise
REFLEX_MM, REFLEX_WIDTH = 0.05, 0.28  # central reflex: on arteries wider than the first, so wide a fraction of them


def draw(tree: Tree, place: Callable[[np.ndarray], np.ndarray], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Cover [H, W] in 0..1 and mean chord through the blood, mm [H, W], of a tree.

    The area of each short piece of vessel is dealt out to the pixels under it (bilinear), so a vessel thinner than a
    pixel covers just its fraction of it. A cylinder of diameter d is crossed over d sqrt(1 - u^2) at the offset u.

    Args:
        place: points [n, 2] of the field -> pixel coordinates [n, 2] (row, column).
        size: H = W.
    """
    pixel_mm = FIELD_MM / (size / 2)
    points, each, chord = _pieces(tree, place, size, FAINTEST * pixel_mm)
    area, path = _splat(points, each, size), _splat(points, each * chord, size)
    return np.minimum(area, 1.0), path * pixel_mm / np.maximum(area, 1e-6)


def draw_reflex(tree: Tree, place: Callable[[np.ndarray], np.ndarray], size: int) -> np.ndarray:
    """Cover [H, W] in 0..1 of the bright line along the middle of the wider vessels."""
    points, each, _ = _pieces(tree, place, size, REFLEX_MM, REFLEX_WIDTH)
    return np.minimum(_splat(points, each, size), 1.0)


def _pieces(tree: Tree, place, size: int, thinnest_mm: float, share: float = 1.0):
    """Points over the vessels wider than `thinnest_mm` drawn at `share` of their width, see `_points`."""
    some = (tree.diameter_mm[:, :-1] > thinnest_mm) & (tree.diameter_mm[:, 1:] > 0)
    at = place(tree.points.reshape(-1, 2)).reshape(tree.points.shape)
    first, second = at[:, :-1][some], at[:, 1:][some]
    near = ((first > -4) & (first < size + 3)).all(1)
    width = tree.diameter_mm[:, :-1][some][near] * share / (FIELD_MM / (size / 2))
    return _points(first[near], second[near], width)


def _points(first: np.ndarray, second: np.ndarray, width: np.ndarray):
    """Points [n, 2] spread over pieces of vessel, each with its share of the area and the chord there, in pixels."""
    step = second - first
    length = np.linalg.norm(step, axis=1)
    across = np.stack([-step[:, 1], step[:, 0]], 1) / (length[:, None] + 1e-9)
    along_counts = np.ceil(length / SPACING).astype(int).clip(1)
    across_counts = np.ceil(width / SPACING).astype(int).clip(1)
    shape = along_counts * 1000 + across_counts  # pieces of one shape are made together
    found = [(np.zeros((0, 2)), np.zeros(0), np.zeros(0))]
    for code in np.unique(shape):
        some = shape == code
        a, m = divmod(int(code), 1000)
        t, u = (np.arange(a) + 0.5) / a, (np.arange(m) + 0.5) / m * 2 - 1
        centre = first[some, None] + t[:, None] * step[some, None]  # [k, a, 2]
        offset = across[some, None] * (u[:, None] * width[some, None, None] / 2)  # [k, m, 2]
        points = (centre[:, :, None] + offset[:, None]).reshape(-1, 2)
        each = np.repeat(width[some] * length[some] / (a * m), a * m)  # pixel areas
        mean_chord = np.full(1, np.pi / 4) if m == 1 else np.sqrt(1 - u**2)
        found.append((points, each, (width[some, None] * mean_chord)[:, None].repeat(a, 1).ravel()))
    return tuple(np.concatenate(parts) for parts in zip(*found, strict=True))


def _splat(points: np.ndarray, values: np.ndarray, size: int) -> np.ndarray:
    """Deal out values to the four pixels around each point, [H, W]; what falls beyond the frame is cut off."""
    points = np.clip(points, -1, size)
    corner = np.minimum(np.floor(points).astype(int), size - 1)
    part = points - corner
    first = (corner[:, 0] + 1) * (size + 2) + corner[:, 1] + 1
    image = np.zeros((size + 2) ** 2)
    for dr in (0, 1):
        for dc in (0, 1):
            weight = values * np.abs(1 - dr - part[:, 0]) * np.abs(1 - dc - part[:, 1])
            image += np.bincount(first + dr * (size + 2) + dc, weight, len(image))
    return image.reshape(size + 2, size + 2)[1:-1, 1:-1]
