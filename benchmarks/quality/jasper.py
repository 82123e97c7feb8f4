"""A genuine hyperspectral cube, read and resampled, beside a computation that shares no code with the package.

    python -m benchmarks.quality.jasper jasperRidge2_R198.mat

The file (AVIRIS, Jasper Ridge, as in hyperspectral unmixing benchmarks) holds `Y` uint16 [bands, pixels] in MATLAB's
column order, `SlectBands` (1-based, into 224 bands from 380 nm, 9.46 nm apart), `nRow`, `nCol` and `maxValue`.
"""

from __future__ import annotations

import math
import sys

import numpy as np
import scipy.io

from synthgen.cubes.readers.open import Hints, open_source
from synthgen.cubes.wavelengths import resample

FIRST_NM, STEP_NM, ORIGINAL = 380.0, 9.46, 224
TARGET_NM = tuple(range(450, 901, 30))


def by_the_package(path: str) -> np.ndarray:
    """Reflectance [16, rows, columns]."""
    source = open_source(path, Hints(wavelengths=tuple(FIRST_NM + STEP_NM * k for k in range(ORIGINAL))))
    cube = source.read(0).astype(np.float32) / np.float32(source.full_scale or 1)
    return resample(cube, source.wavelengths, TARGET_NM)


def directly(path: str) -> np.ndarray:
    """The same by explicit loops in float64: Gaussians of full width 30 nm at half maximum, weights that sum to 1."""
    held = scipy.io.loadmat(path)
    stored, rows, columns = held["Y"], int(held["nRow"].item()), int(held["nCol"].item())
    nm = [FIRST_NM + STEP_NM * (int(number) - 1) for number in held["SlectBands"].ravel()]
    out = np.zeros((len(TARGET_NM), rows, columns))
    for t, centre in enumerate(TARGET_NM):
        weights = [math.exp(-4 * math.log(2) * ((wavelength - centre) / 30) ** 2) for wavelength in nm]
        total = math.fsum(weights)
        for band, weight in enumerate(weights):
            for column in range(columns):
                pixels = stored[band, column * rows : (column + 1) * rows].astype(np.float64)
                out[t, :, column] += weight / total * pixels / float(held["maxValue"].item())
    return out


def main(path: str) -> float:
    """Print and return the largest difference, in reflectance."""
    difference = float(np.abs(by_the_package(path) - directly(path)).max())
    print(f"{path}: 16 bands at 450-900 nm, largest difference from a direct computation {difference:.2e}")
    return difference


if __name__ == "__main__":
    sys.exit(0 if main(sys.argv[1]) < 1e-6 else 1)
