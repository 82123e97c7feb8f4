"""Arterial and venous trees: arcades around the macula, branches that taper by Murray's law, sub-pixel drawing.

Coordinates are shares of the field's radius, x toward the disc (nasal), y upward, the fovea near the origin.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

STEP = 0.012  # distance between the points of a centre line, shares of the field's radius
FOVEAL_ZONE = 0.11  # radius of the zone without vessels
ARTERY_RATIO = 0.68  # artery to vein width; about 2/3 in healthy eyes
FIELD_MM = 6.0  # radius of the field on the retina: about 40 degrees across
THINNEST_MM = 0.012
SPACING = 0.45  # pixels between the points with which a vessel is drawn


@dataclass(frozen=True)
class Branch:
    """points [n, 2]; diameter_mm [n] along it."""

    points: np.ndarray
    diameter_mm: np.ndarray


def grow_tree(rng: np.random.Generator, disc: np.ndarray, main_mm: float, offset: float) -> list[Branch]:
    """One tree from the disc: two temporal arcades, two nasal trunks, and their branches.

    Args:
        disc: centre of the disc [2]. main_mm: diameter of the arcades at the disc.
        offset: where the trunks leave, so that arteries and veins run beside and cross each other.
    """
    branches: list[Branch] = []
    for side in (1.0, -1.0):
        reach = rng.uniform(0.50, 0.72)
        control = np.array(
            [
                disc + np.array([0.01 * offset, 0.03 * side]),
                disc + np.array([rng.uniform(-0.05, 0.06) + 0.04 * offset, side * (0.40 + 0.06 * offset)]),
                [rng.uniform(-0.05, 0.25), side * (reach + 0.07 * offset)],
                [-0.85 + rng.normal(0, 0.08), side * rng.uniform(0.12, 0.45)],
            ]
        )
        arcade = _wander(_bezier(control), rng, 0.012)
        _add(branches, rng, arcade, main_mm * rng.uniform(0.92, 1.08), 0, side)
        angle = side * rng.uniform(0.45, 1.15) + 0.12 * offset
        length = rng.uniform(0.5, 0.8)
        away = np.array([np.cos(angle), np.sin(angle)])
        bend = np.array([-away[1], away[0]]) * rng.normal(0, 0.1)
        nasal = np.array([disc + 0.02 * away, disc + 0.35 * length * away, disc + 0.7 * length * away + bend,
                          disc + length * away + 1.5 * bend])  # fmt: skip
        _add(branches, rng, _wander(_bezier(nasal), rng, 0.012), main_mm * rng.uniform(0.6, 0.8), 1, 0.0)
    for _ in range(rng.integers(1, 4)):  # small vessels straight from the disc toward the macula
        angle = np.pi + rng.normal(0, 0.35)
        line = disc + np.linspace(0, rng.uniform(0.25, 0.4), 24)[:, None] * [np.cos(angle), np.sin(angle)]
        _add(branches, rng, _wander(line, rng, 0.01), main_mm * 0.3, 2, 0.0)
    return branches


def _add(
    branches: list[Branch], rng: np.random.Generator, line: np.ndarray, diameter: float, depth: int, side: float
) -> None:
    """Add a vessel and, recursively, what branches off it. Murray: d0^3 = d1^3 + d2^3 at every fork."""
    line = line[: _stop(line)]
    if len(line) < 4 or diameter < THINNEST_MM:
        return
    n = len(line)
    forks = np.sort(rng.uniform(0.15, 0.95, rng.poisson(n * STEP * (7.0 if depth == 0 else 4.5))))
    widths, current, start = np.empty(n), diameter, 0
    for fork in forks:
        at = int(fork * n)
        if at <= start + 2 or at >= n - 2:
            continue
        share = rng.beta(1.6, 6.5)  # of the cube of the diameter that the side branch takes
        widths[start:at] = current
        child = current * share ** (1 / 3)
        current *= (1 - share) ** (1 / 3)
        start = at
        direction = line[at + 1] - line[at - 1]
        heading = np.arctan2(direction[1], direction[0])
        turn = rng.choice([-1.0, 1.0]) * rng.uniform(0.4, 0.95)
        length = rng.uniform(0.4, 1.0) * min(1.0, 0.15 + child / 0.07) * 0.75
        if depth < 4:
            _add(branches, rng, _walk(rng, line[at], heading + turn, length), child, depth + 1, side)
    widths[start:] = current
    branches.append(Branch(line, widths * np.linspace(1.0, 0.8, n)))


def _walk(rng: np.random.Generator, start: np.ndarray, heading: float, length: float) -> np.ndarray:
    """A smooth random walk whose heading drifts back to where it first pointed."""
    n = max(int(length / STEP), 2)
    kicks = np.cumsum(rng.normal(0, 0.075, n))
    headings = heading + kicks - np.linspace(0, 0.6, n) * kicks[-1]
    return start + np.cumsum(np.stack([np.cos(headings), np.sin(headings)], 1) * STEP, 0)


def _wander(line: np.ndarray, rng: np.random.Generator, size: float) -> np.ndarray:
    """Tortuosity: a smooth displacement across the line, zero at its start."""
    n = len(line)
    along = np.linspace(0, 1, n)
    wave = sum(rng.normal(0, size / k**1.3) * np.sin(np.pi * k * along * 2 + rng.uniform(0, 6.28)) for k in range(1, 6))
    direction = np.gradient(line, axis=0)
    across = np.stack([-direction[:, 1], direction[:, 0]], 1)
    across /= np.linalg.norm(across, axis=1, keepdims=True) + 1e-9
    return line + across * (wave * np.minimum(1, along * 6))[:, None]


def _bezier(control: np.ndarray) -> np.ndarray:
    """A cubic through four control points, sampled about every STEP."""
    n = int(np.linalg.norm(np.diff(control, axis=0), axis=1).sum() / STEP)
    t = np.linspace(0, 1, max(n, 4))[:, None]
    weights = np.hstack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3])
    return weights @ control


def _stop(line: np.ndarray) -> int:
    """Vessels end at the foveal zone and a little beyond the field."""
    distance = np.hypot(line[:, 0], line[:, 1])
    bad = np.flatnonzero((distance < FOVEAL_ZONE) | (distance > 1.25))
    return int(bad[0]) if len(bad) else len(line)


def draw(branches: list[Branch], place, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Cover [H, W] in 0..1 and mean path through the blood, mm [H, W], of a tree.

    The area of each short piece of vessel is dealt out to the pixels under it (bilinear), so a vessel thinner than a
    pixel covers just its share of it. A cylinder of diameter d is crossed over d sqrt(1 - u^2) at the offset u.

    Args:
        place: points [n, 2] of the field -> pixel coordinates [n, 2] (row, column).
        size: H = W.
    """
    pixel_mm = FIELD_MM / (size / 2)
    lengths = np.array([len(b.points) for b in branches])
    at = place(np.concatenate([b.points for b in branches]))
    width = np.concatenate([b.diameter_mm for b in branches]) / pixel_mm
    inner = np.ones(len(at) - 1, dtype=bool)  # pieces between two points of the same branch
    inner[np.cumsum(lengths)[:-1] - 1] = False
    first, second = at[:-1][inner], at[1:][inner]
    width = width[:-1][inner]
    step = second - first
    length = np.linalg.norm(step, axis=1)
    across = np.stack([-step[:, 1], step[:, 0]], 1) / (length[:, None] + 1e-9)
    along_count = max(int(np.ceil(length.max() / SPACING)), 1)
    area, path = np.zeros((size + 2) ** 2), np.zeros((size + 2) ** 2)
    across_counts = np.ceil(width / SPACING).astype(int).clip(2)
    for m in np.unique(across_counts):  # thick pieces take more points across
        some = across_counts == m
        t = (np.arange(along_count) + 0.5) / along_count
        u = (np.arange(m) + 0.5) / m * 2 - 1
        centre = first[some, None] + t[:, None] * step[some, None]  # [k, along, 2]
        offset = across[some, None] * (u[:, None] * width[some, None, None] / 2)  # [k, m, 2]
        points = (centre[:, :, None] + offset[:, None]).reshape(-1, 2)
        each = np.repeat(width[some] * length[some] / (along_count * m), along_count * m)  # pixel areas
        chord = (width[some, None] * pixel_mm * np.sqrt(1 - u**2))[:, None].repeat(along_count, 1).ravel()
        _splat(area, path, points, each, chord, size)
    area, path = (x.reshape(size + 2, size + 2)[1:-1, 1:-1] for x in (area, path))
    return np.minimum(area, 1.0), path / np.maximum(area, 1e-6)


def _splat(area: np.ndarray, path: np.ndarray, points: np.ndarray, each: np.ndarray, chord: np.ndarray, size: int):
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
            path += np.bincount(where, weight * chord, len(path))
