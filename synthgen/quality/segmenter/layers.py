"""Phantom eyes in layers: the fundus without vessels, and what covers it. The segmenter's training paints them anew.

Anatomy is the phantom's, drawn wider than people vary: calibre, tortuosity, size, shape and place of the disc, field of
view.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from synthgen.cubes.phantom.bands import Bands
from synthgen.cubes.phantom.camera import FWHM_NM
from synthgen.cubes.phantom.demographics import EYES, Patient, draw_patient
from synthgen.cubes.phantom.simulate import WAVELENGTHS, Eye, _Field, draw_eye
from synthgen.cubes.phantom.trees import Tree
from synthgen.runs.files import atomic
from synthgen.runs.keys import numpy_stream
from synthgen.runs.progress import progress

# After the C bands of the bare fundus (log-reflectance): how much of a pixel each structure covers, and its depth.
MAPS = ("artery", "artery_depth", "vein", "vein_depth", "reflex", "disc", "fov")
_FAR = 1.25  # fractions of the phantom's field to which its trees reach


def eye_layers(seed: int, index: int, size: int) -> np.ndarray:
    """Layers float16 [C + 7, size, size] of one eye: bare log-reflectance at `WAVELENGTHS`, then `MAPS`.

    Covers in 0..1; depths are cover times mean chord in mm (so that both can be averaged over pixels).
    """
    rng = numpy_stream("segmenter eye", seed, index)
    key = int(rng.integers(2**31))
    person = _varied(draw_patient(key, index), rng)
    anatomy = draw_eye(key, index, EYES[index % 2], person, generations=2 if size < 96 else 3)
    anatomy = replace(anatomy, arteries=_thicker(anatomy.arteries, rng.uniform(0.85, 1.35)))
    anatomy = beside_vessels(anatomy, numpy_stream("segmenter disc", seed, index))
    x, y, place, fov = _view(rng, size, anatomy.disc)
    field = _Field(person, anatomy, x, y, place)
    maps = [field.artery, field.artery * field.artery_mm, field.vein, field.vein * field.vein_mm, field.reflex]
    field.artery, field.vein = np.zeros_like(field.artery), np.zeros_like(field.vein)  # the bare fundus
    bare = np.log(np.maximum(field.reflectance(Bands.of(np.asarray(WAVELENGTHS), FWHM_NM)), 1e-6))
    return np.concatenate([bare, np.stack([*maps, field.disc, fov])]).astype(np.float16)


def simulate_layers(path: str | os.PathLike, count: int, size: int, seed: int) -> np.ndarray:
    """The layers of `count` eyes, float16 [count, C + 7, size, size], made once and kept at `path` (.npy)."""
    path = Path(path)
    if not path.exists():
        shape = (count, len(WAVELENGTHS) + len(MAPS), size, size)
        with atomic(path) as partial, progress(f"simulating eyes of {size} pixels", count, "eye") as bar:
            layers = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float16, shape=shape)
            for i in range(count):
                layers[i] = eye_layers(seed, i, size)
                bar.advance()
            layers.flush()
    return np.load(path, mmap_mode="r")


def beside_vessels(anatomy: Eye, rng: np.random.Generator) -> Eye:
    """The eye with its disc squeezed and moved away from where the vessels meet, mostly towards the fovea.

    The phantom's vessels meet in the middle of the disc; many people's do at its nasal rim.
    """
    axes = np.array(anatomy.disc_axes) * np.exp(rng.normal(0, 0.12) * np.array([1.0, -1.0]))
    aside = -rng.uniform(0.15, 0.95) if rng.random() < 0.6 else rng.normal(0, 0.12)
    disc = anatomy.disc + axes * [aside, rng.normal(0, 0.12)]
    return replace(anatomy, disc=disc, disc_axes=(float(axes[0]), float(axes[1])))


def _varied(person: Patient, rng: np.random.Generator) -> Patient:
    """The person, with what shapes the picture drawn anew and wider."""
    return replace(
        person,
        width_mm=float(np.clip(0.15 * rng.lognormal(0, 0.28), 0.08, 0.28)),
        tortuosity=float(np.clip(rng.lognormal(0.35, 0.5), 0.4, 5.0)),
        branching=float(np.clip(rng.lognormal(0, 0.35), 0.4, 2.0)),
        disc_radius=float(rng.uniform(0.085, 0.20)),
        cup_ratio=float(rng.uniform(0.1, 0.75)),
        tessellation=float(np.clip(rng.gamma(1.5, 0.5), 0.0, 2.0)),
        mottling=float(np.clip(rng.lognormal(np.log(0.03), 0.6), 0.005, 0.12)),
    )


def _thicker(tree: Tree, factor: float) -> Tree:
    return Tree(tree.points, tree.diameter_mm * factor)


def _view(rng: np.random.Generator, size: int, disc: np.ndarray):
    """Field coordinates x, y of every pixel [H, W], the way back from points to pixels, and the field of view.

    The camera looks between fovea and disc, or at one of them; it shows 25 to 50 degrees, a little squeezed; its round
    aperture fills the frame, or lies within it, or is cut above and below.
    """
    middle, radius = (size - 1) / 2, size / 2
    aperture = 1.0 if rng.random() < 0.4 else rng.uniform(0.82, 1.02)
    reach = min(np.exp(rng.uniform(np.log(0.6), np.log(1.25))) / aperture, 1.4)
    centre = [np.array([0.24, 0.0]), disc, np.zeros(2)][rng.choice(3, p=(0.7, 0.15, 0.15))] + rng.normal(0, 0.07, 2)
    squeeze = np.exp(rng.normal(0, 0.06) * np.array([1.0, -1.0])) * reach
    roll = rng.normal(0, 0.15)
    cos, sin = np.cos(roll), np.sin(roll)
    turn = np.array([[cos, -sin], [sin, cos]])
    rows, columns = (np.mgrid[:size, :size] - middle) / radius
    flat = (np.stack([columns, -rows], -1) * squeeze) @ turn.T + centre
    fov = np.hypot(rows, columns) <= aperture
    if rng.random() < 0.2:
        fov &= np.abs(rows) <= rng.uniform(0.65, 1.0)
    if rng.random() < 0.1:
        fov[:] = True  # a patch, or a square sensor
    fov &= np.hypot(flat[..., 0] - 0.24, flat[..., 1]) < _FAR + 0.15

    def place(points: np.ndarray) -> np.ndarray:
        back = ((points - centre) @ turn) / squeeze
        return np.stack([middle - back[:, 1] * radius, middle + back[:, 0] * radius], 1)

    return flat[..., 0], flat[..., 1], place, fov
