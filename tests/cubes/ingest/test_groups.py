"""Shifts between groups of bands that poor bands keep apart: measured across, or not measured at all."""

import numpy as np
import pytest
from scipy import ndimage

from synthgen.cubes.ingest.registration import measure_shifts, shift_back
from synthgen.cubes.ingest.run import ingest
from synthgen.cubes.phantom.simulate import simulate_cube
from synthgen.errors import InputError

NM = tuple(450.0 + 30 * i for i in range(16))
POOR = (7, 8)
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def eye():
    """Bands that lie on one another but for two that hold noise only, and the field of view."""
    made = simulate_cube(1, "OD", size=224, seed=1)
    fov = made.masks["fov"]
    cube = shift_back(made.cube, fov, measure_shifts(made.cube, fov).shifts)[0] * fov
    cube[list(POOR)] = RNG.uniform(0.2, 0.3, (2, *fov.shape)) * fov
    return cube, fov


def moved(cube, fov, bands, shift):
    cube = cube.copy()
    for band in bands:
        cube[band] = ndimage.shift(cube[band], shift, order=3, mode="nearest") * fov
    return cube


def test_a_shift_between_two_groups_is_measured_across_the_poor_bands(eye):
    cube, fov = eye
    found = measure_shifts(moved(cube, fov, range(9, 16), (3, -4)), fov)
    assert np.flatnonzero(~found.measured).tolist() == list(POOR)
    apart = found.shifts[9:].mean(axis=0) - found.shifts[:7].mean(axis=0)
    assert np.abs(apart - (3, -4)).max() < 0.25


def test_half_the_bands_displaced_is_refused(tmp_path, eye):
    cube, fov = eye
    np.save(tmp_path / "a.npy", moved(cube, fov, range(9, 16), (3, -4)))
    with pytest.raises(InputError, match=r"off by [45]"):
        ingest([tmp_path / "a.npy"], tmp_path / "o.h5", source_wavelengths=NM, each_file_a_patient=True)


def test_of_groups_with_nothing_in_common_only_the_largest_is_measured(tmp_path, eye):
    cube, fov = eye
    wave = ndimage.gaussian_filter(RNG.standard_normal(fov.shape), 4)
    mixed = cube.copy()
    mixed[:6] = (0.3 + 0.05 * wave / wave.std()) * fov
    mixed[6] = cube[POOR[0]]
    found = measure_shifts(mixed, fov)
    assert np.flatnonzero(found.measured).tolist() == list(range(9, 16)) and not found.shifts[:9].any()
    np.save(tmp_path / "a.npy", mixed)
    report = ingest([tmp_path / "a.npy"], tmp_path / "o.h5", source_wavelengths=NM, each_file_a_patient=True)
    message = [f.reason for f in report.findings if f.check == "registration"]
    assert message == ["shift not measurable in 9 bands, at 450, 480, 510, 540, ... nm"]
