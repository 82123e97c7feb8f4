"""A phantom cube is a function of its key; its geometry is an eye's."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from synthgen.cubes.phantom import camera
from synthgen.cubes.phantom.cohort import simulate_cohort
from synthgen.cubes.phantom.demographics import draw_patient
from synthgen.cubes.phantom.simulate import simulate_cube
from synthgen.errors import ConfigError


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return simulate_cohort(
        tmp_path_factory.mktemp("phantom") / "p.h5", patients=4, size=32, seed=6, visits=2, workers=1
    )


def test_one_cube_alone_equals_the_one_in_the_cohort(cohort):
    for row in (0, 5, 15):
        patient = sorted(set(cohort.patient_id)).index(cohort.patient_id[row])
        alone = simulate_cube(patient, str(cohort.eye[row]), int(cohort.visit[row]), 32, seed=6)
        assert np.abs(alone.cube - cohort.cubes([row])[0]).max() <= 0.5 / 65535 + 1e-6, "up to rounding to 16 bits"
        assert np.array_equal(alone.masks["vein"], cohort.masks([row])["vein"][0])


@pytest.mark.slow
def test_any_number_of_workers_writes_the_same_cohort(tmp_path):
    one = simulate_cohort(tmp_path / "one.h5", patients=16, size=32, seed=2, workers=1)
    two = simulate_cohort(tmp_path / "two.h5", patients=16, size=32, seed=2, workers=2)
    assert one.content_hash == two.content_hash
    other = simulate_cohort(tmp_path / "other.h5", patients=16, size=32, seed=3, workers=1)
    assert other.content_hash != one.content_hash and not set(other.patients) & set(one.patients)


def test_masks_lie_inside_the_field_of_view(cohort):
    masks = cohort.masks()
    assert set(masks) == {"artery", "vein", "disc", "cup", "macula", "fov", "crossing"}
    for name, mask in masks.items():
        assert not (mask & ~masks["fov"]).any(), name
    assert (masks["cup"] <= masks["disc"]).all()
    assert np.array_equal(masks["crossing"], masks["artery"] & masks["vein"])
    assert (cohort.cubes()[:, 0][~masks["fov"]] == 0).all()


def test_right_and_left_eyes_mirror_each_other():
    for patient in range(4):
        sides = {}
        for eye in ("OD", "OS"):
            masks = simulate_cube(patient, eye, 0, 64, seed=1).masks
            sides[eye] = np.nonzero(masks["disc"])[1].mean() - np.nonzero(masks["macula"])[1].mean()
        assert sides["OD"] > 10 and sides["OS"] < -10, "the disc lies on the nasal side"


def test_visits_share_the_eye_and_differ_in_gaze_and_noise():
    first, second = (simulate_cube(0, "OD", v, 64, seed=1).cube for v in (0, 1))
    other = simulate_cube(1, "OD", 0, 64, seed=1).cube
    inside = first[0] > 0
    level = lambda cube: np.log(cube[:, inside].mean(1))
    assert not np.array_equal(first, second)
    assert np.abs(level(first) - level(second)).mean() < np.abs(level(first) - level(other)).mean()


@pytest.mark.parametrize("size", [64, 224])
def test_values_are_reflectance(size):
    cube = simulate_cube(2, "OS", 0, size).cube
    assert cube.dtype == np.float32 and cube.shape == (16, size, size)
    assert cube.min() >= 0 and cube.max() <= 1 and np.isfinite(cube).all()


@pytest.mark.parametrize("bad", [{"patients": 0}, {"size": 4}, {"visits": 0}, {"signature": 2.0}])
def test_impossible_cohorts(tmp_path, bad):
    with pytest.raises(ConfigError):
        simulate_cohort(tmp_path / "x.h5", **{"patients": 1, "size": 32, **bad})
    assert not list(tmp_path.iterdir())


def test_the_label_is_confounded_with_age_on_request():
    def gap(years):
        people = [draw_patient(1, p, age_gap=years) for p in range(600)]
        ages = {label: np.mean([p.age for p in people if p.label == label]) for label in (0, 1)}
        return ages[1] - ages[0]

    assert abs(gap(0.0)) < 1.5
    assert gap(6.0) == pytest.approx(6.0, abs=1.5)


def test_people_differ_in_everything_that_is_drawn():
    people = [draw_patient(1, p) for p in range(30)]
    for field in dataclasses.fields(people[0]):
        assert len({getattr(p, field.name) for p in people}) > 1, field.name


@pytest.mark.parametrize("bands", [(400.0, 500.0), (500.0, 950.0), (600.0, 500.0), ()])
def test_bands_that_the_tables_do_not_hold(tmp_path, bands):
    with pytest.raises(ConfigError, match="bands"):
        simulate_cohort(tmp_path / "x.h5", patients=1, size=32, wavelengths=bands)
    for wide in (-1.0, 200.0, float("nan")):
        with pytest.raises(ConfigError, match="bands"):
            simulate_cohort(tmp_path / "x.h5", patients=1, size=32, fwhm_nm=wide)
    assert not list(tmp_path.iterdir())


def test_any_camera_can_be_simulated(tmp_path):
    """91 bands of 5 nm, as the hyperspectral fundus cameras have them, and one band alone."""
    for bands in (tuple(np.arange(450.0, 901.0, 5.0)), (548.0,)):
        cohort = simulate_cohort(
            tmp_path / f"{len(bands)}.h5", 1, 32, wavelengths=bands, fwhm_nm=5.0, signature=0.01, workers=1
        )
        assert cohort.wavelengths == bands and cohort.cubes([0]).shape == (1, len(bands), 32, 32)


def test_the_camera_shifts_a_bright_band_by_less_than_a_pixel_and_keeps_its_light():
    point = camera._point(0.8, 0.4)
    at = np.arange(len(point)) - len(point) // 2
    assert point.sum() == pytest.approx(1.0)
    assert (point * at).sum() == pytest.approx(-0.4, abs=0.01), "a correlation kernel moves the image the other way"
    assert (point * (at + 0.4) ** 2).sum() == pytest.approx(0.8**2 + 1 / 12, rel=0.05)


@pytest.mark.slow
def test_an_interrupted_phantom_says_one_line_and_leaves_nothing(tmp_path):
    """Ctrl-C in a terminal reaches its workers as well."""
    words = ["phantom", "x.h5", "--patients", "9999", "--size", "64", "--workers", "2"]  # far more than it gets to make
    child = subprocess.Popen(
        [sys.executable, "-m", "synthgen", *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "SYNTHGEN_QUIET": "1"},
    )  # fmt: skip
    end = time.monotonic() + 60
    while not any(path.stat().st_size > 500_000 for path in tmp_path.glob(".x.h5.*")) and time.monotonic() < end:
        time.sleep(0.02)
    os.killpg(child.pid, signal.SIGINT)
    _, message = child.communicate(timeout=60)
    assert child.returncode == 130 and message == "stopped: interrupted; nothing half-written was left behind\n"
    assert not list(tmp_path.iterdir())
