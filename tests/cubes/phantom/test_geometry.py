"""The phantom's anatomy: trees that obey Murray's law, arcades, fellow eyes that are relatives, a hidden choroid."""

import dataclasses

import numpy as np
import pytest
from scipy import ndimage

from synthgen.cubes.phantom import simulate
from synthgen.cubes.phantom.demographics import draw_patient
from synthgen.cubes.phantom.drawing import draw
from synthgen.cubes.phantom.simulate import WAVELENGTHS, draw_eye, simulate_cube
from synthgen.cubes.phantom.trees import FIELD_MM, FOVEAL_ZONE, THINNEST_MM, Generation, Tree, Trunks, _fork, grow_tree

NM = list(WAVELENGTHS)
DISC = np.array([0.62, 0.03])


def fork(seed, tortuosity=1.0):
    """One straight trunk of 0.14 mm and what branches off it."""
    points = np.stack([np.linspace(0.5, -0.7, 40), np.full(40, 0.5)], 1)[None]
    trunk = Generation(points, np.full((1, 40), 0.14), np.ones(1))
    return _fork(np.random.default_rng(seed), trunk, 0, tortuosity, 1.0, DISC)


def test_forks_conserve_the_cube_of_the_diameter():
    children, after = fork(1)
    first = children.diameter_mm[:, 0]
    assert (first > 0).sum() >= 4
    assert after[0, -1] ** 3 + (first**3).sum() == pytest.approx(0.14**3, rel=1e-6)
    assert (np.diff(after[0]) <= 1e-12).all(), "a vessel only gets thinner"
    assert {-1.0, 1.0} <= set(children.side), "branches leave on both sides"


def test_thin_branches_leave_at_wide_angles_and_equal_ones_at_37_degrees():
    """Murray 1926: cos(theta) = 2^(-1/3) for equal branches, a right angle for vanishing ones."""
    angles, ratios = [], []
    for seed in range(40):
        children, _ = fork(seed, tortuosity=0.0)
        step = children.points[:, 1] - children.points[:, 0]
        angles.append(np.degrees(np.abs(np.abs(np.arctan2(step[:, 1], step[:, 0])) - np.pi)))
        ratios.append(children.diameter_mm[:, 0] / 0.14)
    angles, ratios = np.concatenate(angles), np.concatenate(ratios)
    thin, thick = angles[(ratios > 0) & (ratios < 0.4)], angles[ratios > 0.7]
    assert np.median(thin) > np.median(thick) + 8
    assert 25 < np.median(thick) < 60


def test_trees_leave_the_disc_arch_around_the_macula_and_thin_out():
    for patient in range(6):
        person = draw_patient(3, patient)
        eye = draw_eye(3, patient, "OD", person)
        for tree in (eye.arteries, eye.veins):
            on = tree.diameter_mm > 0
            radius = np.hypot(*np.moveaxis(tree.points, -1, 0))
            assert radius[on].min() > FOVEAL_ZONE
            starts = tree.points[:4, 0] - eye.disc
            assert np.hypot(starts[:, 0], starts[:, 1]).max() < 0.08
            x, y = tree.points[[0, 2]][..., 0], tree.points[[0, 2]][..., 1]
            above, below = np.interp(0.0, x[0][::-1], y[0][::-1]), np.interp(0.0, x[1][::-1], y[1][::-1])
            assert above > 0.3 and below < -0.3, "the arcades pass above and below the fovea"
            assert tree.diameter_mm[on].min() < 2 * THINNEST_MM + 0.01 < tree.diameter_mm.max()
        ratio = eye.arteries.diameter_mm[[0, 2], 0].mean() / eye.veins.diameter_mm[[0, 2], 0].mean()
        assert 0.55 < ratio < 0.85


def test_the_widths_of_arteries_and_veins_are_as_two_to_three():
    ratios = []
    for patient in range(30):
        eye = draw_eye(4, patient, "OS", draw_patient(4, patient))
        ratios.append(eye.arteries.diameter_mm[:4, 0].sum() / eye.veins.diameter_mm[:4, 0].sum())
    assert np.mean(ratios) == pytest.approx(2 / 3, abs=0.05)


def test_arteries_and_veins_cross():
    crossings = [simulate_cube(p, "OD", 0, 128, seed=2).masks["crossing"].sum() for p in range(6)]
    assert np.count_nonzero(crossings) >= 5


@pytest.mark.slow
def test_fellow_eyes_are_relatives():
    """The shape of the arcades is more alike between the eyes of a patient than between patients."""

    def arcades(patient, eye):
        anatomy = draw_eye(5, patient, eye, draw_patient(5, patient))
        return np.concatenate([anatomy.veins.points[[0, 2]].ravel(), 3 * np.array(anatomy.disc_axes)])

    right = np.stack([arcades(p, "OD") for p in range(40)])
    left = np.stack([arcades(p, "OS") for p in range(40)])
    fellows = np.linalg.norm(right - left, axis=1).mean()
    strangers = np.linalg.norm(right - np.roll(left, 1, axis=0), axis=1).mean()
    assert fellows < 0.8 * strangers
    assert not np.allclose(right, left), "relatives, not copies"


def test_fewer_generations_leave_the_coarse_vessels_as_they_are():
    trunks = Trunks.draw(np.random.default_rng(0), np.random.default_rng(1))
    grown = [grow_tree(np.random.default_rng(7), trunks, DISC, 0.14, 0.0, 1.0, 1.0, g) for g in (2, 3)]
    n = len(grown[0].points)
    assert len(grown[1].points) > n
    assert np.array_equal(grown[0].points, grown[1].points[:n])
    finer = grown[0].diameter_mm - grown[1].diameter_mm[:n]
    assert finer.min() >= 0 and (finer > 1e-9).any(1).mean() < 0.4, "only the parents of the finest are thinner"
    trunks_and_branches = slice(0, 7)
    assert np.array_equal(grown[0].diameter_mm[trunks_and_branches], grown[1].diameter_mm[:n][trunks_and_branches])


@pytest.mark.parametrize("size", [64, 224])
@pytest.mark.parametrize("diameter", [0.02, 0.1, 0.2])
def test_a_drawn_vessel_covers_its_area_at_any_size(size, diameter):
    """Down to far below a pixel: cover x pixel area = length x diameter; the mean chord is about pi/4 diameters."""
    points = np.stack([np.linspace(-0.5, 0.5, 40), np.linspace(-0.21, 0.3, 40)], 1)[None]
    tree = Tree(points, np.full((1, 40), diameter))
    place = lambda p: np.stack([(size - 1) / 2 - p[:, 1] * size / 2, (size - 1) / 2 + p[:, 0] * size / 2], 1)
    cover, chord = draw(tree, place, size)
    pixel = FIELD_MM / (size / 2)
    length = np.hypot(*(points[0, -1] - points[0, 0])) * FIELD_MM
    assert cover.sum() * pixel**2 == pytest.approx(length * diameter, rel=0.02)
    assert (cover * chord).sum() / cover.sum() == pytest.approx(np.pi / 4 * diameter, rel=0.11)


def test_choroidal_vessels_show_in_the_red_and_hide_in_the_green():
    """Between eyes with and without tessellation: red and near-infrared gain texture, green does not."""
    made = {}
    for visible in (0.05, 1.2):
        energy = []
        for patient in range(4):
            given = {"tessellation": visible, "mottling": 0.01, "melanin": 0.6}
            person = dataclasses.replace(draw_patient(6, patient), **given)
            anatomy, moment = draw_eye(6, patient, "OD", person), simulate.draw_visit(6, patient, "OD", 0)
            field = simulate._Field(person, anatomy, *simulate._frame(128, "OD", moment))
            cube = np.log(field.reflectance(simulate.Bands.of(np.array(NM), 10.0)))
            plain = field.masks["fov"] & (field.artery + field.vein < 0.01) & (field.from_disc > 1.5)
            slope = np.abs(np.diff(cube, axis=2))[:, plain[:, 1:] & plain[:, :-1]]
            energy.append(np.median(slope, 1))
        made[visible] = np.mean(energy, 0)
    gain = made[1.2] / made[0.05]
    assert gain[NM.index(660)] > 1.5 and gain[NM.index(840)] > 1.3, dict(zip(NM, gain.round(2), strict=True))
    assert gain[NM.index(540)] < 1.2 and gain[NM.index(480)] < 1.2


def test_arteries_have_a_central_reflex(monkeypatch):
    """A bright line along the middle of the wider arteries, and nothing elsewhere."""
    with_it = simulate_cube(0, "OD", 0, 448, seed=2, wavelengths=(540.0,))
    monkeypatch.setattr(simulate, "REFLEX", 0.0)
    without = simulate_cube(0, "OD", 0, 448, seed=2, wavelengths=(540.0,))
    gain = with_it.cube[0] / np.maximum(without.cube[0], 1e-4)
    bright = gain > 1.02
    assert bright.sum() > 200
    near = ndimage.binary_dilation(with_it.masks["artery"], iterations=2)
    assert near[bright].mean() > 0.95  # the rest: arteries too thin for the mask
    assert ndimage.distance_transform_edt(near)[bright].mean() > ndimage.distance_transform_edt(near)[near].mean()
