"""Drawing a tree into an image, to the pixel limit: how much of each pixel it covers, and how deep."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from synthgen.cubes.phantom.trees import FIELD_MM, Tree

SPACING = 0.6  # pixels between the points with which a vessel is drawn
FAINTEST = 0.08  # pixels: a vessel thinner than that changes its pixels by less than the noise
REFLEX_MM, REFLEX_WIDTH = 0.05, 0.28  # central reflex: on arteries wider than the first, so wide a share of them


def draw(tree: Tree, place: Callable[[np.ndarray], np.ndarray], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Cover [H, W] in 0..1 and mean chord through the blood, mm [H, W], of a tree.

    The area of each short piece of vessel is dealt out to the pixels under it (bilinear), so a vessel thinner than a
    pixel covers just its share of it. A cylinder of diameter d is crossed over d sqrt(1 - u^2) at the offset u.

    Args:
        place: points [n, 2] of the field -> pixel coordinates [n, 2] (row, column).
        size: H = W.
    """
    pixel_mm = FIELD_MM / (size / 2)
    area, path = _deal(tree, place, size, FAINTEST * pixel_mm, 1.0, chords=True)
    return np.minimum(area, 1.0), path * pixel_mm / np.maximum(area, 1e-6)


def draw_reflex(tree: Tree, place: Callable[[np.ndarray], np.ndarray], size: int) -> np.ndarray:
    """Cover [H, W] in 0..1 of the bright line along the middle of the wider vessels."""
    return np.minimum(_deal(tree, place, size, REFLEX_MM, REFLEX_WIDTH, chords=False)[0], 1.0)


def _deal(tree: Tree, place, size: int, thinnest_mm: float, share: float, chords: bool):
    """Area and area x chord, in pixels, of the vessels wider than `thinnest_mm`, drawn at `share` of their width."""
    area, path = np.zeros((size + 2) ** 2), np.zeros((size + 2) ** 2)
    some = (tree.diameter_mm[:, :-1] > thinnest_mm) & (tree.diameter_mm[:, 1:] > 0)
    if some.any():
        at = place(tree.points.reshape(-1, 2)).reshape(tree.points.shape)
        first, second = at[:, :-1][some], at[:, 1:][some]
        near = ((first > -4) & (first < size + 3)).all(1)
        first, second = first[near], second[near]
        width = tree.diameter_mm[:, :-1][some][near] * share / (FIELD_MM / (size / 2))
        _pieces(area, path, first, second, width, size, chords)
    return tuple(x.reshape(size + 2, size + 2)[1:-1, 1:-1] for x in (area, path))


def _pieces(area, path, first, second, width, size: int, chords: bool) -> None:
    step = second - first
    length = np.linalg.norm(step, axis=1)
    across = np.stack([-step[:, 1], step[:, 0]], 1) / (length[:, None] + 1e-9)
    along_counts = np.ceil(length / SPACING).astype(int).clip(1)
    across_counts = np.ceil(width / SPACING).astype(int).clip(1)
    shape = along_counts * 1000 + across_counts  # pieces of one shape are drawn together
    for code in np.unique(shape):
        some = shape == code
        a, m = divmod(int(code), 1000)
        t, u = (np.arange(a) + 0.5) / a, (np.arange(m) + 0.5) / m * 2 - 1
        centre = first[some, None] + t[:, None] * step[some, None]  # [k, a, 2]
        offset = across[some, None] * (u[:, None] * width[some, None, None] / 2)  # [k, m, 2]
        points = (centre[:, :, None] + offset[:, None]).reshape(-1, 2)
        each = np.repeat(width[some] * length[some] / (a * m), a * m)  # pixel areas
        mean_chord = np.full(1, np.pi / 4) if m == 1 else np.sqrt(1 - u**2)
        chord = (width[some, None] * mean_chord)[:, None].repeat(a, 1).ravel()
        _splat(area, path, points, each, chord, size, chords)


def _splat(area, path, points: np.ndarray, each: np.ndarray, chord: np.ndarray, size: int, chords: bool) -> None:
    """Add points with their areas and chords to the pixels around them; a border beyond the frame is cut off later."""
    points = np.clip(points, -1, size)
    corner = np.minimum(np.floor(points).astype(int), size - 1)
    part = points - corner
    first = (corner[:, 0] + 1) * (size + 2) + corner[:, 1] + 1
    for dr in (0, 1):
        for dc in (0, 1):
            weight = each * np.abs(1 - dr - part[:, 0]) * np.abs(1 - dc - part[:, 1])
            where = first + dr * (size + 2) + dc
            area += np.bincount(where, weight, len(area))
            if chords:
                path += np.bincount(where, weight * chord, len(path))
