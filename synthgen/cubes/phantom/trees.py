"""Arterial and venous trees: arcades around the macula, forks by Murray's law, generation by generation.

Coordinates are fractions of the field's radius, x toward the disc (nasal), y upward, the fovea at 0, 0. A generation
is one array of branches, so a tree of a thousand branches takes a few milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

POINTS = 40  # along each branch
FOVEAL_ZONE = 0.10  # radius of the zone without vessels
ARTERY_RATIO = 0.69  # artery to vein width; about 2/3 in healthy eyes
FIELD_MM = 6.0  # radius of the field on the retina: about 40 degrees across
FORKS = (9, 6, 4)  # places for forks along a branch of each generation
FORK_RATE = (9.0, 7.5, 8.0)  # forks per unit of length
FORK_SHARE = ((1.1, 5.0), (1.3, 3.0), (1.5, 2.5))  # Beta: of the cube of the diameter that the side branch takes
THINNEST_MM = 0.008  # capillaries
CELLS = 96  # grid on which branches of one tree keep clear of each other


@dataclass(frozen=True)
class Tree:
    """points [n, POINTS, 2]; diameter_mm [n, POINTS], zero where a branch has ended."""

    points: np.ndarray
    diameter_mm: np.ndarray


class Generation(NamedTuple):
    """Branches of one age: points [n, POINTS, 2], diameter_mm [n, POINTS], side [n] (-1, 1) of their first fork."""

    points: np.ndarray
    diameter_mm: np.ndarray
    side: np.ndarray


@dataclass(frozen=True)
class Trunks:
    """Shape of the first generation, in normal deviates [12, 4], part of which both eyes of a patient share."""

    deviates: np.ndarray

    @staticmethod
    def draw(shared: np.random.Generator, own: np.random.Generator) -> Trunks:
        """Two thirds of the variance is the patient's, one third the eye's: fellow eyes are relatives, not copies."""
        return Trunks(np.sqrt(2 / 3) * shared.standard_normal((12, 4)) + np.sqrt(1 / 3) * own.standard_normal((12, 4)))


def grow_tree(
    rng: np.random.Generator, trunks: Trunks, disc: np.ndarray, main_mm: float, offset: float,
    tortuosity: float = 1.0, branching: float = 1.0, generations: int = 3,
) -> Tree:  # fmt: skip
    """One tree from the disc: two temporal arcades, two nasal trunks, vessels to the macula, and their branches.

    Args:
        disc: centre of the disc [2]. main_mm: diameter of the arcades at the disc.
        offset: where the trunks leave, so that arteries and veins run beside and cross each other.
        tortuosity, branching (forks per length): 1 is the mean.
        generations: of branches beyond the trunks; fewer leave out the finest, and what these would take off the
            diameter of their parents; all else stays the same.
    """
    streams = [np.random.default_rng(seed) for seed in rng.integers(2**63, size=4)]  # one per generation
    branches = _trunks(streams[0], trunks, disc, main_mm, offset, tortuosity)
    busy = np.zeros((CELLS, CELLS), dtype=bool)
    grown = []
    for level in range(generations + 1):
        widths, children = branches.diameter_mm * _alive(branches.points, busy, level), branches
        if level < generations:
            alive = branches._replace(diameter_mm=widths)
            children, widths = _fork(streams[level + 1], alive, level, tortuosity, branching, disc)
        _occupy(busy, branches.points[widths > 0])
        grown.append((branches.points, widths))
        branches = children
    return Tree(*(np.concatenate(parts) for parts in zip(*grown, strict=True)))


def _trunks(rng, trunks: Trunks, disc: np.ndarray, main_mm: float, offset: float, tortuosity: float) -> Generation:
    """The first generation: arcades, nasal trunks and vessels to the macula."""
    z, lines, widths = trunks.deviates, [], []
    for i, up in enumerate((1.0, -1.0)):
        reach = np.clip(0.58 + 0.055 * z[i, 0], 0.45, 0.75) + 0.06 * offset
        lines.append(_bezier(np.array([
            disc + np.array([0.0, 0.02 * up]),
            disc + np.array([0.03 * z[i, 1] + 0.05 * offset, up * (0.36 + 0.05 * offset)]),
            [0.02 + 0.10 * z[i, 2], up * (reach + 0.06)],
            [-0.95 + 0.10 * z[i, 3], up * (0.30 + 0.12 * z[2 + i, 0])],
        ])))  # fmt: skip
        widths.append(main_mm * (1 + 0.06 * z[2 + i, 1]))
        angle = up * (0.75 + 0.2 * z[4 + i, 0]) + 0.15 * offset
        away = np.array([np.cos(angle), np.sin(angle)])
        bend = np.array([-away[1], away[0]]) * 0.12 * z[4 + i, 1]
        length = 0.75 + 0.1 * z[4 + i, 2]
        steps = np.array([0.02, 0.35, 0.7, 1.0])[:, None] * length
        lines.append(_bezier(disc + steps * away + np.array([0, 0.2, 1.0, 1.6])[:, None] * bend))
        widths.append(main_mm * 0.74 * (1 + 0.08 * z[6 + i, 0]))  # Murray: 40 % of the central vessel's cube
    for i in range(3):  # small vessels straight from the disc toward the macula
        angle = np.pi + (i - 1) * 0.55 + 0.15 * z[8 + i, 0] + 0.2 * offset
        line = disc + np.linspace(0.01, 0.34 + 0.04 * z[8 + i, 1], 4)[:, None] * [np.cos(angle), np.sin(angle)]
        lines.append(_bezier(line))
        widths.append(main_mm * 0.30 * (1 + 0.15 * z[8 + i, 2]))
    points = np.stack(lines)
    points = points + _across(points) * _sway(rng, len(points), 0.014 * tortuosity)[..., None]
    taper = np.linspace(1.0, 0.85, POINTS)
    return Generation(points, np.array(widths)[:, None] * taper, rng.choice([-1.0, 1.0], len(points)))


def _fork(rng, parents: Generation, level: int, tortuosity: float, branching: float, disc: np.ndarray):
    """The children of a generation, and the parents' diameters [n, POINTS], thinner behind each fork.

    Murray: d0^3 = d1^3 + d2^3 at every fork, and the angle of the branch that costs least (Murray 1926):
    cos(theta_2) = (d0^4 + d2^4 - d1^4) / (2 d0^2 d2^2).
    """
    lines, widths, side = parents
    n, places = len(lines), FORKS[level]
    start = (np.arange(places) + rng.random((n, places))) / places * 0.85 + 0.1
    wanted = rng.random((n, places)) < branching * FORK_RATE[level] * _lengths(lines)[:, None] / places
    share = rng.beta(*FORK_SHARE[level], (n, places)).clip(0.02, 0.6)
    flip = np.where(rng.random((n, places)) < 0.25, -1.0, 1.0)
    turn = rng.normal(1.0, 0.18, (n, places))
    reach = rng.uniform(0.55, 1.25, (n, places))
    at = (start * POINTS).astype(int).clip(1, POINTS - 2)
    rows = np.arange(n)[:, None]
    wanted &= widths[rows, at] > 2 * THINNEST_MM
    after = wanted[:, None] & (np.arange(POINTS)[None, :, None] >= at[:, None])
    left = np.where(after, (1 - share)[:, None], 1.0).prod(-1)  # of the cube, behind the forks so far
    parent, place = np.nonzero(wanted)
    here, s = at[parent, place], share[parent, place]
    d0 = widths[parent, here] * np.cbrt(left[parent, here] / (1 - s))
    d2, d1 = d0 * np.cbrt(s), d0 * np.cbrt(1 - s)
    angle = np.arccos(((d0**4 + d2**4 - d1**4) / (2 * d0**2 * d2**2)).clip(-1, 1)).clip(0, 1.35)
    sign = side[parent] * np.where(place % 2, -1.0, 1.0) * flip[parent, place]
    direction = lines[parent, here + 1] - lines[parent, here - 1]
    heading = np.arctan2(direction[:, 1], direction[:, 0]) + sign * angle * turn[parent, place]
    length = (0.10 + 9.5 * d2).clip(0, 0.9) * reach[parent, place]
    origin = lines[parent, here]
    points = _walk(rng, origin, heading, length, tortuosity, disc)
    taper = np.linspace(1.0, 0.75, POINTS)
    children = Generation(points, np.where(d2 > THINNEST_MM, d2, 0.0)[:, None] * taper, sign)
    return children, widths * np.cbrt(left)


def _walk(rng, origin, heading, length, tortuosity: float, disc: np.ndarray) -> np.ndarray:
    """Smooth walks [n, POINTS, 2]: those that start within the arcades turn to the fovea, the others outward."""
    n = len(origin)
    inward = np.arctan2(-origin[:, 1], -origin[:, 0] + 0.03)
    away = np.arctan2(origin[:, 1] - 0.6 * disc[1], origin[:, 0] - 0.6 * disc[0])
    pointed = np.cos(heading - inward) > 0.25
    inside = pointed & (np.hypot(origin[:, 0], origin[:, 1]) < 0.75)
    target = np.where(inside, inward, away)
    turn = (target - heading + np.pi) % (2 * np.pi) - np.pi
    t = np.linspace(0, 1, POINTS)
    headings = heading[:, None] + 0.75 * turn[:, None] * (1 - np.exp(-2.2 * t * (0.3 + 2.0 * length[:, None])))
    headings = headings + _sway(rng, n, 0.42 * tortuosity, first=2) * np.sqrt(length)[:, None].clip(0.25, 0.8)
    step = (length / POINTS)[:, None, None]
    return origin[:, None] + np.cumsum(np.stack([np.cos(headings), np.sin(headings)], -1) * step, 1)


def _sway(rng, n: int, size: float, first: int = 1) -> np.ndarray:
    """Smooth waves [n, POINTS] that start at zero: tortuosity."""
    t = np.linspace(0, 1, POINTS)
    k = np.arange(first, first + 4)
    weight = rng.normal(0, size, (n, 4)) / np.sqrt(k)
    phase = rng.uniform(0, 2 * np.pi, (n, 4))
    waves = weight[..., None] * np.sin(2 * np.pi * k[:, None] * t + phase[..., None])
    return waves.sum(1) * np.minimum(1, 5 * t)


def _across(points: np.ndarray) -> np.ndarray:
    direction = np.gradient(points, axis=1)
    across = np.stack([-direction[..., 1], direction[..., 0]], -1)
    return across / (np.linalg.norm(across, axis=-1, keepdims=True) + 1e-9)


def _lengths(points: np.ndarray) -> np.ndarray:
    return np.linalg.norm(np.diff(points, axis=1), axis=-1).sum(1)


def _bezier(control: np.ndarray) -> np.ndarray:
    t = np.linspace(0, 1, POINTS)[:, None]
    return np.hstack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3]) @ control


def _cells(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    at = ((points + 1.4) / 2.8 * CELLS).astype(int).clip(0, CELLS - 1)
    return at[..., 0], at[..., 1]


def _alive(points: np.ndarray, busy: np.ndarray, level: int) -> np.ndarray:
    """1 until a branch meets the foveal zone, the end of the field or another branch of its tree, then 0.

    It thins out over its last points; one that would end in its first third was never grown.
    """
    radius = np.hypot(points[..., 0], points[..., 1])
    good = (radius > FOVEAL_ZONE) & (np.hypot(points[..., 0] - 0.24, points[..., 1]) < 1.2)
    if level > 0:
        met = busy[_cells(points)]
        met[:, : max(4, POINTS // 6)] = False  # where it leaves its parent
        good &= ~met
    good = np.logical_and.accumulate(good, 1)
    count = good.sum(1, keepdims=True)
    left = (count - np.arange(POINTS)) / 10
    ends = np.where(count < POINTS, left, 1.0).clip(0, 1)
    return good * ends * (count >= POINTS / 3)


def _occupy(busy: np.ndarray, points: np.ndarray) -> None:
    busy[_cells(points)] = True
