"""A generator whose autoencoder erases a weak blue tilt is not let through by a good look of its cubes."""

from __future__ import annotations

import pytest
import torch

from synthgen.contracts import Status
from synthgen.cubes.phantom.simulate import WAVELENGTHS, simulate_cube
from synthgen.generator.generator import Generator
from synthgen.integration.supply.signature_check import tilt_checks


@pytest.fixture(scope="module")
def cubes() -> torch.Tensor:
    return torch.stack([torch.from_numpy(simulate_cube(p, seed=5).cube) for p in range(6)])


class Erasing:
    """Stands in for a generator: the three blue bands of every cube become those of the first."""

    def __init__(self, cubes: torch.Tensor):
        self.first = cubes[:1]

    def encode(self, cubes: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.first[:, :5].expand(len(cubes), -1, -1, -1), cubes[:, 5:]], 1)

    def decode(self, cubes: torch.Tensor) -> torch.Tensor:
        return cubes


@pytest.mark.slow
def test_the_packaged_generator_keeps_the_tilt(cubes: torch.Tensor) -> None:
    whole, half = tilt_checks(Generator.load("phantom64", "cpu"), cubes, WAVELENGTHS, range(6))
    assert whole.status == Status.PASS and whole.value is not None and whole.value > 0.95
    assert half.value is not None and half.value > 0.85


def test_one_that_erases_it_fails(cubes: torch.Tensor) -> None:
    checks = tilt_checks(Erasing(cubes), cubes, WAVELENGTHS, range(6))  # type: ignore[arg-type]
    assert [c.status for c in checks] == [Status.FAIL, Status.FAIL]
    assert "is left after encoding" in checks[0].reason


def test_without_blue_bands_nothing_is_decided(cubes: torch.Tensor) -> None:
    checks = tilt_checks(Erasing(cubes), cubes[:, 6:], WAVELENGTHS[6:], range(6))  # type: ignore[arg-type]
    assert {c.status for c in checks} == {Status.UNDECIDED}
