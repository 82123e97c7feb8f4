"""One cube from its key (seed, patient, eye, visit)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from synthgen.cubes.phantom.bands import Bands, Fundus, tabulate
from synthgen.cubes.phantom.camera import FWHM_NM, photograph
from synthgen.cubes.phantom.demographics import Patient, Visit, draw_patient, draw_visit, truth
from synthgen.cubes.phantom.drawing import draw, draw_reflex
from synthgen.cubes.phantom.sites import Sites, sites
from synthgen.cubes.phantom.spectra import Signature
from synthgen.cubes.phantom.textures import choroidal_vessels, mottle, nerve_fibres
from synthgen.cubes.phantom.trees import ARTERY_RATIO, Tree, Trunks, grow_tree
from synthgen.runs.keys import numpy_stream

WAVELENGTHS = tuple(450.0 + 30.0 * i for i in range(16))
DISC_X = 0.62  # where the disc lies, fractions of the field's radius from the fovea
MACULA = 0.30  # radius of the macula, likewise
REFLEX = 0.35  # the central reflex of an artery gives back so much of what its blood keeps
BLOCK = 2**16  # pixels at a time: what belongs to them stays in the processor's cache
COVERED = 0.3  # a pixel belongs to a vessel's mask when so much of it is covered
FINE = 0.018  # grains of retina and pigment epithelium, fractions of the field's radius; larger pixels average them
LABELLED = Signature()


@dataclass(frozen=True)
class PhantomCube:
    """cube float32 [C, H, W] reflectance; masks bool [H, W]; who and what it is; `truth`: the numbers behind it."""

    cube: np.ndarray
    masks: dict[str, np.ndarray]
    patient_id: str
    eye: str
    visit: int
    label: int
    truth: dict[str, float]


@dataclass(frozen=True)
class Eye:
    """The anatomy of one eye: what all its visits share."""

    disc: np.ndarray
    disc_axes: tuple[float, float]
    cup_ratio: float
    arteries: Tree
    veins: Tree
    texture: int  # key of its choroid, mottling and fibre patterns


@lru_cache(maxsize=16)  # the visits of one eye come one after the other
def draw_eye(seed: int, patient: int, eye: str, person: Patient, generations: int = 3) -> Eye:
    """The anatomy of one eye. Fellow eyes are mirrored relatives: they share calibre, disc, cup and two thirds of the
    variance of the arcades' shape; the finer branches are each eye's own."""
    shared = numpy_stream("phantom eyes", seed, patient)
    height = shared.normal(0.03, 0.03)
    rng = numpy_stream("phantom eye", seed, patient, eye)
    disc = np.array([DISC_X + rng.normal(0, 0.02), height + rng.normal(0, 0.015)])
    axes = (person.disc_radius * rng.uniform(0.86, 0.96), person.disc_radius * rng.uniform(0.98, 1.06))
    cup = float(np.clip(person.cup_ratio + rng.normal(0, 0.03), 0.1, 0.8))
    offset = shared.choice([-1.0, 1.0])  # arterial trunks outside or inside the venous ones
    trees = {}
    for kind, width, aside in (("vein", person.width_mm, 0.0), ("artery", person.width_mm * ARTERY_RATIO, offset)):
        trunks = Trunks.draw(shared, rng)
        key = np.random.default_rng(rng.integers(2**63))
        trees[kind] = grow_tree(key, trunks, disc, width, aside, person.tortuosity, person.branching, generations)
    return Eye(disc, axes, cup, trees["artery"], trees["vein"], int(rng.integers(2**31)))


def simulate_cube(
    patient: int,
    eye: str = "OD",
    visit: int = 0,
    size: int = 64,
    seed: int = 0,
    wavelengths: Sequence[float] = WAVELENGTHS,
    *,
    signature: Signature | float = LABELLED,
    prevalence: float = 0.5,
    age_gap: float = 0.0,
    fwhm_nm: float = FWHM_NM,
    alter: Callable[[Patient], Patient] | None = None,
) -> PhantomCube:
    """Simulate one cube; the same key gives the same cube, alone or in a cohort.

    Args:
        patient, eye ("OD" right or "OS" left), visit, seed: the key.
        size: rows and columns; the field of view fills the frame.
        wavelengths: nm.
        signature: of the labelled patients, or its amplitude (see `Signature`; 0 for none).
        prevalence: fraction of labelled patients. age_gap: years that they are older.
        fwhm_nm: width of the camera's bands at half maximum.
        alter: changes the person before the eye is drawn, to plant a fault that no transform of the cube could.

    Returns:
        reflectance in [0, 1], zero outside the field of view, with exact masks.
    """
    mark = signature if isinstance(signature, Signature) else Signature(float(signature))
    person, nm = draw_patient(seed, patient, prevalence, age_gap), np.asarray(wavelengths, dtype=float)
    person = person if alter is None else alter(person)
    generations = 2 if size < 96 else 3  # the finest vessels are far below such a pixel
    anatomy, moment = draw_eye(seed, patient, eye, person, generations), draw_visit(seed, patient, eye, visit)
    x, y, place = _frame(size, eye, moment)
    field = _Field(person, anatomy, x, y, place)
    cube = field.reflectance(Bands.of(nm, fwhm_nm))
    if person.label and mark.amplitude:
        strength = field.region(mark.region)
        law = mark.law(nm)
        for band in np.flatnonzero(law):
            cube[band] *= np.exp(law[band] * strength).astype(np.float32)
    noise = numpy_stream("phantom noise", seed, patient, eye, visit)
    cube = photograph(cube, field.masks["fov"], moment, noise)
    return PhantomCube(cube, field.masks, person.name, eye, visit, person.label, truth(person, moment))


def simulate_job(job: tuple) -> PhantomCube:
    """`simulate_cube` with its arguments in one tuple, for a pool of processes."""
    patient, eye, visit, size, seed, wavelengths, signature, prevalence, age_gap, fwhm_nm = job
    return simulate_cube(
        patient, eye, visit, size, seed, wavelengths,
        signature=signature, prevalence=prevalence, age_gap=age_gap, fwhm_nm=fwhm_nm,
    )  # fmt: skip


def _frame(size: int, eye: str, moment: Visit):
    """Field coordinates x (nasal positive), y (up) of every pixel [H, W], and the way back from points to pixels."""
    middle, radius = (size - 1) / 2, size / 2
    mirror = 1.0 if eye == "OD" else -1.0  # in a right eye's image the disc lies on the right
    cos, sin = np.cos(moment.roll), np.sin(moment.roll)
    turn = np.array([[cos, -sin], [sin, cos]])
    centre = np.array([0.24, 0.0]) + moment.gaze  # the camera looks between fovea and disc
    rows, columns = np.mgrid[:size, :size]
    flat = np.stack([mirror * (columns - middle) / radius, -(rows - middle) / radius], -1) @ turn.T + centre

    def place(points: np.ndarray) -> np.ndarray:
        back = (points - centre) @ turn
        return np.stack([middle - back[:, 1] * radius, middle + mirror * back[:, 0] * radius], 1)

    return flat[..., 0], flat[..., 1], place


class _Field:
    """Maps [H, W] of one eye as the camera sees it, and the masks that follow from them."""

    def __init__(self, person: Patient, anatomy: Eye, x: np.ndarray, y: np.ndarray, place):
        size = len(x)
        self.person, self.x, self.y, self.fovea = person, x, y, np.hypot(x, y)
        dx, dy = (x - anatomy.disc[0]) / anatomy.disc_axes[0], (y - anatomy.disc[1]) / anatomy.disc_axes[1]
        self.from_disc = np.hypot(dx, dy)
        edge = 2 / size / person.disc_radius  # one pixel, in units of the disc
        self.disc = np.clip((1 - self.from_disc) / edge + 0.5, 0, 1)
        soft = max(edge, 0.12)  # the floor of the cup rises gently
        self.cup = np.clip((anatomy.cup_ratio - np.hypot(dx + 0.08, dy)) / soft + 0.5, 0, 1) * self.disc
        texture = np.random.default_rng(anatomy.texture)
        self.lanes = choroidal_vessels(texture, x, y)
        self.grain, self.patches = mottle(texture, 0.030, x, y), mottle(texture, 0.22, x, y)
        self.texture = person.mottling * FINE / max(FINE, 2 / size) * mottle(texture, FINE, x, y)
        self.fibres = nerve_fibres(x, y, anatomy.disc, person.disc_radius, self.patches)
        self.crescent = texture.uniform(0, 0.8) * np.exp(-(((self.from_disc - 1.05) / 0.14) ** 2)) * (dx < 0)
        self.artery, self.artery_mm = draw(anatomy.arteries, place, size)
        self.vein, self.vein_mm = draw(anatomy.veins, place, size)
        self.reflex = draw_reflex(anatomy.arteries, place, size) if size >= 128 else np.zeros_like(self.artery)
        self.masks = self._masks(size)

    def layers(self) -> Sites:
        """Melanin, choroidal blood, nerve fibres and macular pigment of every pixel."""
        at, person = sites(self.fovea, self.person), self.person
        hidden = np.exp(-((self.fovea / 0.25) ** 2))  # the macula's pigment hides the choroid's vessels
        lanes = person.tessellation * (self.lanes - 0.5) * (1 - 0.75 * hidden)
        melanin = at.melanin * np.exp(0.03 * self.grain + 0.10 * self.patches - 0.45 * lanes) * (1 - self.crescent)
        blood = at.blood_mm * (1 + 0.5 * lanes + 0.05 * self.patches)
        return Sites(melanin.clip(0.02), blood.clip(0.01), at.nerve * self.fibres, at.macular)

    def reflectance(self, bands: Bands) -> np.ndarray:
        """Reflectance float32 [C, H, W] before the camera."""
        person, size, layers = self.person, len(self.x), self.layers()
        tables = tabulate(
            bands, person.age, person.clarity, person.epithelium,
            {"artery": person.artery_saturation, "vein": person.vein_saturation},
            (layers.melanin.min(), layers.melanin.max()), (layers.blood_mm.min(), layers.blood_mm.max()),
        )  # fmt: skip
        out = np.empty((len(bands.nm), size * size), dtype=np.float32)
        for start in range(0, size * size, BLOCK):
            some = slice(start, start + BLOCK)
            out[:, some] = self._block(tables, layers, 550 / bands.nm.mean(1), some)
        return out.reshape(-1, size, size)

    def _block(self, tables: Fundus, layers: Sites, fading: np.ndarray, some: slice) -> np.ndarray:
        """Reflectance [C, P] of some of the pixels; `fading` [C] is the strength of the fine texture."""
        of = lambda image: image.ravel()[some]
        flat = tables.reflectance(of(layers.melanin), of(layers.blood_mm), of(layers.nerve))
        flat *= 1 + np.outer(fading, of(self.texture)).astype(np.float32)
        disc = of(self.disc)
        on = np.flatnonzero(disc > 0)
        cup = of(self.cup)[on].astype(np.float32)
        tissue = tables.rim[:, None] * (1 - cup) + tables.cup[:, None] * cup
        flat[:, on] += disc[on].astype(np.float32) * (tissue - flat[:, on])
        for kind, cover, chord in (("vein", self.vein, self.vein_mm), ("artery", self.artery, self.artery_mm)):
            on = np.flatnonzero(of(cover) > 1e-3)
            kept = of(cover)[on] * (1 - tables.through(kind, of(chord)[on]))
            if kind == "artery":
                kept *= 1 - REFLEX * of(self.reflex)[on]
            flat[:, on] *= 1 - kept.astype(np.float32)
        on = np.flatnonzero(of(layers.macular) > 1e-3)
        density = np.outer(tables.macular, of(layers.macular)[on])
        flat[:, on] *= np.exp(-2 * np.log(10) * density).astype(np.float32)
        return flat

    def region(self, name: str) -> np.ndarray:
        """How strong a signature of the region `name` is at each pixel, 0..1 [H, W]."""
        if name == "macula":
            return np.exp(-((self.fovea / MACULA) ** 2))
        if name == "superior":
            return 1 / (1 + np.exp(-self.y / 0.05))
        if name == "disc":
            return np.exp(-(((self.from_disc - 1) / 1.0).clip(0) ** 2))
        return np.ones_like(self.x)

    def _masks(self, size: int) -> dict[str, np.ndarray]:
        rows, columns = np.mgrid[:size, :size] - (size - 1) / 2
        fov = np.hypot(rows, columns) <= size / 2 - 0.5
        artery, vein = self.artery >= COVERED, self.vein >= COVERED
        masks = {
            "artery": artery,
            "vein": vein,
            "disc": self.disc >= 0.5,
            "cup": self.cup >= 0.5,
            "macula": self.fovea <= MACULA,
            "crossing": artery & vein,
        }
        return {"fov": fov, **{name: mask & fov for name, mask in masks.items()}}
