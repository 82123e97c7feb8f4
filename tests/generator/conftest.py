"""A small cohort of eye-like toy cubes for the tests of the generator."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from synthgen.cubes.cohort.writer import CohortWriter

os.environ.setdefault("SYNTHGEN_QUIET", "1")
BANDS, SIZE = 6, 32
WAVELENGTHS = tuple(450.0 + 90 * band for band in range(BANDS))


def toy_cube(patient: int, eye: int, bands: int = BANDS, size: int = SIZE) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Reflectance float32 [bands, size, size] with a disc, two vessels and a slow tilt; masks of disc and fov."""
    random = np.random.default_rng([patient, eye])
    rows, columns = np.mgrid[0:size, 0:size] / size
    if eye:
        columns = columns[:, ::-1]
    wave = np.linspace(0, 1, bands)[:, None, None]
    disc = (rows - 0.5 + random.normal(0, 0.05)) ** 2 + (columns - 0.25 + random.normal(0, 0.05)) ** 2 < 0.012
    vessels = np.zeros((size, size))
    for sign in (-1, 1):
        path = 0.5 + sign * (0.3 + random.normal(0, 0.05)) * np.sqrt(np.clip(columns - 0.2, 0, None))
        vessels += np.exp(-(((rows - path) / 0.03) ** 2))
    log = -4 + 2.5 * wave + random.normal(0, 0.2) + random.normal(0, 0.3) * (columns - 0.5) * (1 - wave)
    log = log + 0.8 * disc - 0.7 * vessels * (1 - 0.7 * wave) + random.normal(0, 0.02, (bands, size, size))
    return np.exp(log).clip(0, 1).astype(np.float32), {"disc": disc, "fov": np.ones_like(disc)}


def write_toy_cohort(path: Path, patients: int = 12, bands: int = BANDS, size: int = SIZE) -> Path:
    wavelengths = np.linspace(450, 900, bands)
    with CohortWriter(path, wavelengths, size, size) as writer:
        for patient in range(patients):
            for eye in range(2):
                cube, masks = toy_cube(patient, eye, bands, size)
                writer.append(cube, f"p{patient:04d}", eye="OD" if eye else "OS", masks=masks)
    return path


@pytest.fixture(scope="session")
def cohort_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return write_toy_cohort(tmp_path_factory.mktemp("cohort") / "toy.h5")


@pytest.fixture(scope="session")
def write_cohort():
    """The function that writes a toy cohort: (path, patients, bands, size) -> path."""
    return write_toy_cohort
