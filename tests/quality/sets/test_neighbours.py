"""Coverage, density, C_T and AuthPct: their null values, and what they see."""

from __future__ import annotations

import numpy as np
import pytest

from synthgen.errors import InputError
from synthgen.quality.sets import neighbours
from synthgen.quality.sets.neighbours import auth_pct, authentic, copying_z, expected_coverage, nearest, neighbourhood


def gaussians(rng: np.random.Generator, *sizes: int, d: int = 8) -> list[np.ndarray]:
    """Sets of one law, variance 1/k in direction k: as principal components of cubes fall off."""
    return [rng.normal(size=(n, d)) / np.sqrt(np.arange(1, d + 1)) for n in sizes]


@pytest.mark.parametrize(("n", "m", "k", "expected"), [(1000, 1000, 5, 0.9690), (100, 100, 3, 0.8788)])
def test_expected_coverage_of_one_law(n: int, m: int, k: int, expected: float) -> None:
    assert expected_coverage(n, m, k) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("n", "m", "k"), [(100, 100, 3), (60, 120, 5)])
def test_coverage_of_one_law_is_as_expected_and_density_is_one(n: int, m: int, k: int) -> None:
    rng = np.random.default_rng(0)
    found = np.array([neighbourhood(*gaussians(rng, n, m), k) for _ in range(150)])
    error = found.std(0) / np.sqrt(len(found))
    assert abs(found[:, 0].mean() - 1) < 3 * error[0]
    assert abs(found[:, 1].mean() - expected_coverage(n, m, k)) < 3 * error[1]


def test_coverage_sees_a_lost_mode_and_density_what_lies_off() -> None:
    rng = np.random.default_rng(1)
    real, made = gaussians(rng, 200, 200)
    real[:100, 0] += 20
    both = made.copy()
    both[:100, 0] += 20
    assert neighbourhood(real, both).coverage > 0.9
    assert neighbourhood(real, made).coverage == pytest.approx(0.5, abs=0.05)
    off = both.copy()
    off[::2, 1] += 20
    assert neighbourhood(real, off).density == pytest.approx(neighbourhood(real, both).density / 2, rel=0.2)


def test_neighbours_of_the_same_patient_are_passed_over() -> None:
    """Twin cubes of a patient would make every ball as small as their difference."""
    rng = np.random.default_rng(2)
    real, made, train = gaussians(rng, 80, 80, 80)
    twins = np.concatenate([real, real + 1e-6])
    patients = np.tile(np.arange(80), 2)
    assert neighbourhood(twins, made, 1).coverage < 0.02
    known = neighbourhood(twins, made, 2, patients)  # the nearest other patient's two cubes
    assert known.coverage == pytest.approx(neighbourhood(real, made, 1).coverage, abs=0.02)
    twins = np.concatenate([train, train + 1e-6])
    assert auth_pct(twins, made) == 100
    assert auth_pct(twins, made, patients) == pytest.approx(auth_pct(train, made), abs=2)


def test_blocks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    real, made = gaussians(rng, 70, 50)
    whole = (neighbourhood(real, made), *nearest(made, real))
    monkeypatch.setattr(neighbours, "_BLOCK", 171)
    parts = (neighbourhood(real, made), *nearest(made, real))
    assert whole[0] == parts[0]
    assert (whole[1] == parts[1]).all() and (whole[2] == parts[2]).all()


def test_copying_z_of_fresh_cubes_is_standard_normal() -> None:
    rng = np.random.default_rng(4)
    z = [copying_z(*gaussians(rng, 60, 40, 50)) for _ in range(400)]
    assert abs(np.mean(z)) < 3 / np.sqrt(len(z))
    assert np.std(z) == pytest.approx(1, abs=0.12)


def test_copying_z_of_a_share_of_copies_is_as_stated() -> None:
    rng = np.random.default_rng(7)
    z = []
    for _ in range(60):
        train, test, made = gaussians(rng, 150, 150, 150)
        made[:30] = train[:30]
        z.append(copying_z(train, test, made))
    assert np.mean(z) == pytest.approx(-0.2 * np.sqrt(1.5 * 150), abs=3 / np.sqrt(60))


def test_copying_z_of_known_distances() -> None:
    """Training at 0; 2 made against 3 test distances: U counts the pairs in which the made cube lies further off."""
    train, test, made = np.zeros((1, 1)), np.array([[1.0], [3], [5]]), np.array([[2.0], [4]])
    assert copying_z(train, test, made) == pytest.approx((1 + 2 - 3) / np.sqrt(3))
    assert copying_z(train, test, 10 * made) == pytest.approx((6 - 3) / np.sqrt(3))
    assert copying_z(train, test, 0 * made) == pytest.approx((0 - 3) / np.sqrt(3))


@pytest.mark.parametrize(("d", "low", "high"), [(8, 54, 62), (64, 63, 72)])
def test_auth_pct_of_fresh_cubes_is_well_above_half(d: int, low: float, high: float) -> None:
    rng = np.random.default_rng(5)
    assert low < np.mean([auth_pct(*gaussians(rng, 100, 100, d=d)) for _ in range(40)]) < high


def test_copies_lower_auth_pct_and_copying_z() -> None:
    """Monotone in the share of training cubes among the made ones; exact and slightly noisy copies alike."""
    rng = np.random.default_rng(6)
    train, test, made = gaussians(rng, 150, 150, 150)
    percent, z = [], []
    for share in (0, 30, 75, 150):
        mixed = made.copy()
        mixed[:share] = train[:share] + 0.01 * rng.normal(size=(share, 8))
        percent.append(auth_pct(train, mixed))
        z.append(copying_z(train, test, mixed))
    assert percent[0] > percent[1] > percent[2] > percent[3]
    assert z[0] > z[1] > z[2] > z[3]
    assert abs(z[0]) < 3 and z[2] < -3 and z[3] < -10
    assert auth_pct(train, train) == 0
    assert not authentic(train, mixed)[: len(train)].any()
    assert auth_pct(train, made + 50) == 100 and copying_z(train, test, made + 50) > 10


def test_too_few_neighbours_are_refused() -> None:
    real = np.zeros((5, 2))
    with pytest.raises(InputError, match="no 5 neighbours"):
        neighbourhood(real, real, 5)
    with pytest.raises(InputError, match="no 1 neighbours"):
        auth_pct(real, real, ["a"] * 5)
