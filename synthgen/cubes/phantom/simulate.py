"""One cube from its key (seed, patient, eye, visit)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from synthgen.cubes.phantom.people import Patient, Visit, draw_patient, draw_visit
from synthgen.cubes.phantom.spectra import Layers, render, signature
from synthgen.cubes.phantom.vessels import ARTERY_RATIO, Branch, draw, grow_tree
from synthgen.runs.keys import numpy_stream

WAVELENGTHS = tuple(450.0 + 30.0 * i for i in range(16))
DISC_X = 0.62  # where the disc lies, shares of the field's radius from the fovea
MACULA = 0.30  # radius of the macula, likewise
SHOT, READ = 1.2e-5, 1.5e-4  # noise variance per unit of reflectance, and noise in the dark


@dataclass(frozen=True)
class PhantomCube:
    """cube float32 [C, H, W] reflectance; masks bool [H, W]; who and what it is."""

    cube: np.ndarray
    masks: dict[str, np.ndarray]
    patient_id: str
    eye: str
    visit: int
    label: int
    age: float


@dataclass(frozen=True)
class Eye:
    """The anatomy of one eye: what all its visits share."""

    disc: np.ndarray
    disc_axes: tuple[float, float]
    arteries: list[Branch]
    veins: list[Branch]
    texture: int  # key of its choroid, mottling and fibre patterns


def draw_eye(seed: int, patient: int, eye: str, person: Patient) -> Eye:
    """Both eyes share the patient's calibre, disc size and cup; each has its own trees, as real eyes do."""
    shared = numpy_stream("phantom eyes", seed, patient)
    height = shared.normal(0.03, 0.03)
    rng = numpy_stream("phantom eye", seed, patient, eye)
    disc = np.array([DISC_X + rng.normal(0, 0.02), height + rng.normal(0, 0.015)])
    axes = (person.disc_radius * rng.uniform(0.86, 0.96), person.disc_radius * rng.uniform(0.98, 1.06))
    veins = grow_tree(rng, disc, person.width_mm, 0.0)
    arteries = grow_tree(rng, disc, person.width_mm * ARTERY_RATIO, rng.choice([-1.0, 1.0]))
    return Eye(disc, axes, arteries, veins, int(rng.integers(2**31)))


def simulate_cube(
    patient: int,
    eye: str = "OD",
    visit: int = 0,
    size: int = 64,
    seed: int = 0,
    wavelengths: Sequence[float] = WAVELENGTHS,
    *,
    amplitude: float = 0.03,
    prevalence: float = 0.5,
    age_gap: float = 0.0,
) -> PhantomCube:
    """Simulate one cube; the same key gives the same cube, alone or in a cohort.

    Args:
        patient, eye ("OD" right or "OS" left), visit, seed: the key.
        size: rows and columns; the field of view fills the frame.
        wavelengths: nm.
        amplitude: of the labelled patients' signature in log-reflectance at 450 nm (either sign; 0 for none).
        prevalence: share of labelled patients. age_gap: years that they are older.

    Returns:
        reflectance in [0, 1], zero outside the field of view, with exact masks.
    """
    person, nm = draw_patient(seed, patient, prevalence, age_gap), np.asarray(wavelengths, dtype=float)
    anatomy, moment = draw_eye(seed, patient, eye, person), draw_visit(seed, patient, eye, visit)
    x, y, place = _frame(size, eye, moment)
    layers, masks = _layers(size, x, y, place, person, anatomy)
    cube = render(nm, layers, person.age, person.artery_saturation, person.vein_saturation)
    if person.label:
        cube *= signature(nm, amplitude)[:, None, None]
    noise = numpy_stream("phantom noise", seed, patient, eye, visit)
    cube = _camera(cube, masks["fov"], moment, noise)
    return PhantomCube(cube.astype(np.float32), masks, person.name, eye, visit, person.label, person.age)


def simulate_job(job: tuple) -> PhantomCube:
    """`simulate_cube` with its arguments in one tuple, for a pool of processes."""
    patient, eye, visit, size, seed, wavelengths, amplitude, prevalence, age_gap = job
    return simulate_cube(
        patient, eye, visit, size, seed, wavelengths, amplitude=amplitude, prevalence=prevalence, age_gap=age_gap
    )


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


def _layers(size: int, x: np.ndarray, y: np.ndarray, place, person: Patient, anatomy: Eye):
    """The maps of the layer model, and the masks."""
    texture = np.random.default_rng(anatomy.texture)
    fovea = np.hypot(x, y)
    dx, dy = (x - anatomy.disc[0]) / anatomy.disc_axes[0], (y - anatomy.disc[1]) / anatomy.disc_axes[1]
    from_disc = np.hypot(dx, dy)
    edge = 2 / size / person.disc_radius
    disc = np.clip((1 - from_disc) / edge + 0.5, 0, 1)
    cup_distance = np.hypot(dx + 0.08, dy) / max(person.cup_ratio, 0.05)
    cup = np.clip((1 - cup_distance) / (edge / person.cup_ratio * 2) + 0.5, 0, 1) * disc

    macula = np.exp(-((fovea / 0.20) ** 2))
    pigment = np.exp(-((fovea / 0.075) ** 2))
    ridges, mottle = _choroid(texture, x, y, size), _noise(texture, size, 0.035, x, y)
    melanin = person.melanin * (1 + 0.40 * macula + 0.20 * pigment + 0.05 * mottle - 0.08 * (fovea / 0.8) ** 2)
    melanin = melanin * (1 - person.tessellation * 0.25 * ridges * (1 - 0.7 * macula))
    rho = person.rho * (1 - 0.28 * macula - 0.22 * pigment) * (1 + 0.03 * mottle)
    choroid = person.choroid_mm * (1 + 0.15 * macula + 0.7 * person.tessellation * ridges)
    angle = np.arctan2(y - anatomy.disc[1], x - anatomy.disc[0])
    fibres = np.exp(-(((from_disc - 1.6) / 2.2) ** 2)) * np.abs(np.sin(angle)) ** 1.5 * (1 - macula)
    stripes = 1 + 0.5 * np.sin(26 * angle + 3 * mottle)
    artery, artery_mm = draw(anatomy.arteries, place, size)
    vein, vein_mm = draw(anatomy.veins, place, size)
    layers = Layers(
        rho=np.maximum(rho, 1e-3),
        melanin=np.maximum(melanin, 0.02),
        choroid_mm=np.maximum(choroid, 0.01),
        macular=0.75 * person.macular * np.exp(-np.minimum(fovea, 2) / 0.085),
        artery=artery,
        artery_mm=artery_mm,
        vein=vein,
        vein_mm=vein_mm,
        disc=disc,
        cup=cup,
        nerve=0.012 * fibres * stripes,
    )
    fov = _field_of_view(size)
    covered = {"artery": artery >= 0.3, "vein": vein >= 0.3}
    masks = {
        "fov": fov,
        **{name: mask & fov for name, mask in covered.items()},
        "disc": (disc >= 0.5) & fov,
        "cup": (cup >= 0.5) & fov,
        "macula": (fovea <= MACULA) & fov,
        "crossing": covered["artery"] & covered["vein"] & fov,
    }
    return layers, masks


def _field_of_view(size: int) -> np.ndarray:
    rows, columns = np.mgrid[:size, :size] - (size - 1) / 2
    return np.hypot(rows, columns) <= size / 2 - 0.5


def _noise(rng: np.random.Generator, size: int, scale: float, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Smooth unit-variance noise fixed to the retina: a grid of numbers, interpolated at the pixels' positions."""
    n = max(int(2.6 / scale), 4)
    grid = ndimage.gaussian_filter(rng.standard_normal((n, n)), 0.8)
    at = np.stack([(y + 1.3) / 2.6 * (n - 1), (x + 1.3) / 2.6 * (n - 1)])
    found = ndimage.map_coordinates(grid / grid.std(), at, order=1, mode="nearest")
    return found


def _choroid(rng: np.random.Generator, x: np.ndarray, y: np.ndarray, size: int) -> np.ndarray:
    """Choroidal vessels: ridges (0..1) of smooth noise stretched along a direction that turns around the macula."""
    radius, angle = np.hypot(x + 0.1, y) + 1e-9, np.arctan2(y, x + 0.1)
    drift = 0.35 * _noise(rng, size, 0.4, x, y)  # ridges run outward from the macula and meander
    across, along = 1.1 * (angle + drift) / np.pi, 0.35 * np.log(radius + 0.15)
    first = _noise(rng, size, 0.045, along, across)
    second = _noise(rng, size, 0.025, along * 1.3, across)
    return np.clip(1 - np.abs(first + 0.4 * second) * 1.3, 0, 1)


def _camera(cube: np.ndarray, fov: np.ndarray, moment: Visit, rng: np.random.Generator) -> np.ndarray:
    """Stray light, lamp, defocus and misregistration per band, shot and read noise, the aperture."""
    bands, size, _ = cube.shape
    rows, columns = (np.mgrid[:size, :size] - (size - 1) / 2) / (size / 2)
    lamp = (
        moment.gain
        * (1 - moment.vignette * (rows**2 + columns**2))
        * (1 + moment.tilt[0] * rows + moment.tilt[1] * columns)
    )
    mean = cube[:, fov].mean(1)[:, None, None]
    cube = ((1 - moment.stray) * cube + moment.stray * mean) * lamp
    blur = moment.defocus * size / 64 * (1 + 0.25 * np.abs(np.linspace(-1, 1, bands)) + rng.uniform(0, 0.2, bands))
    shift = rng.normal(0, 0.12, (bands, 2)) * size / 64
    cube = cube.astype(np.float32)
    for band in range(bands):
        soft = ndimage.gaussian_filter(cube[band], blur[band], mode="nearest", truncate=3)
        cube[band] = ndimage.shift(soft, shift[band], order=1, mode="nearest")
    noise = rng.standard_normal(cube.shape, dtype=np.float32)
    cube = cube + noise * np.sqrt(SHOT * np.maximum(cube, 0) + READ**2)
    return np.clip(cube, 0, 1) * fov
