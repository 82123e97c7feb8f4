"""The crude control: keyed, in range, of a plain spectrum."""

import numpy as np

from synthgen.cubes.floor import LOG_FLOOR
from synthgen.cubes.phantom.procedural import Plain, procedural_cube

SIZE, BANDS = 48, 6


def plain():
    rows, columns = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    fov = np.hypot(rows, columns) < SIZE / 2
    rng = np.random.default_rng(0)
    level = np.linspace(0.02, 0.3, BANDS)[None, :, None, None]
    cubes = level * np.exp(0.2 * rng.normal(size=(8, 1, SIZE, SIZE))) * fov
    return Plain.of(cubes.astype(np.float32)), fov


def test_what_is_taken_from_real_cubes():
    found, fov = plain()
    np.testing.assert_array_equal(found.fov, fov)
    np.testing.assert_allclose(found.mean, np.log(np.linspace(0.02, 0.3, BANDS)), atol=0.05)
    np.testing.assert_allclose(found.std, 0.2, atol=0.02)


def test_cubes_are_keyed_in_range_and_black_outside_the_field():
    known, fov = plain()
    one, again, other = procedural_cube(known, 0, 3), procedural_cube(known, 0, 3), procedural_cube(known, 0, 4)
    assert one.shape == (BANDS, SIZE, SIZE) and one.dtype == np.float32
    assert one.min() >= 0 and one.max() <= 1 and not one[:, ~fov].any() and (one[:, fov] > 0).mean() > 0.99
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 0.01
    assert procedural_cube(known, 1, 3)[0, SIZE // 2, SIZE // 2] != one[0, SIZE // 2, SIZE // 2]


def test_the_spectrum_is_plain_and_the_picture_is_not():
    """Log-spectra leave the mean along two directions, brightness and curves, and by a hundredth of noise."""
    known, fov = plain()
    cubes = np.stack([procedural_cube(known, 0, k) for k in range(6)])
    logs = np.log(cubes[:, :, fov] + LOG_FLOOR) - known.mean[:, None]
    values = np.linalg.svd(logs.transpose(1, 0, 2).reshape(BANDS, -1), compute_uv=False) ** 2
    assert values[:2].sum() / values.sum() > 0.99
    assert logs.std(2).min() > 0.1  # every cube has light and dark places
