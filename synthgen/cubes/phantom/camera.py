"""The camera: stray light, lamp, defocus and shift per band, noise, the aperture."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from synthgen.cubes.phantom.demographics import Visit

FWHM_NM = 10.0  # width of the bands at half maximum; snapshot and tunable cameras for the fundus have 5 to 10 nm
SHOT, READ = 4.5e-6, 9e-5  # variance per unit of reflectance, and standard deviation in the dark, of a pixel at 224x224
SHIFT = 0.10  # standard deviation of a band's shift, 64ths of the image's width
REFERENCE_SIZE = 224


def photograph(cube: np.ndarray, fov: np.ndarray, moment: Visit, rng: np.random.Generator) -> np.ndarray:
    """Reflectance float32 [C, H, W] in 0..1 as a camera records it; `cube` float32 is overwritten.

    A pixel of a larger image gets less light: the variance of the noise grows with the number of pixels.
    """
    bands, size, _ = cube.shape
    ruler = ((np.arange(size) - (size - 1) / 2) / (size / 2)).astype(np.float32)
    rows, columns = ruler[:, None], ruler[None]
    lamp = (1 - moment.vignette * (rows**2 + columns**2)) * (1 + moment.tilt[0] * rows + moment.tilt[1] * columns)
    lamp *= moment.gain
    mean = cube[:, fov].mean(1)
    off_focus = 1 + 0.25 * np.abs(np.linspace(-1, 1, bands)) + rng.uniform(0, 0.2, bands)
    blur = moment.defocus * size / 64 * off_focus
    shift = rng.normal(0, SHIFT, (bands, 2)) * size / 64
    lit = (1 - moment.stray) * lamp
    finer = (size / REFERENCE_SIZE) ** 2
    for band in range(bands):
        plane = cube[band]
        plane *= lit
        plane += moment.stray * mean[band] * lamp
        plane = ndimage.correlate1d(plane, _point(blur[band], shift[band, 0]), axis=0, mode="nearest")
        plane = ndimage.correlate1d(plane, _point(blur[band], shift[band, 1]), axis=1, mode="nearest")
        noise = rng.standard_normal(plane.shape, dtype=np.float32)
        noise *= np.sqrt(np.maximum(plane, 0) * np.float32(SHOT * finer) + np.float32(READ**2 * finer))
        cube[band] = np.clip(plane + noise, 0, 1) * fov
    return cube


def _point(sigma: float, shift: float) -> np.ndarray:
    """Weights of a Gaussian blur whose centre lies `shift` pixels aside, as a correlation kernel, as wide as a
    pixel at least."""
    reach = int(np.ceil(3 * sigma + abs(shift) + 0.5))
    at = np.arange(-reach, reach + 1)
    weight = np.exp(-0.5 * ((at + shift) ** 2) / (sigma**2 + 1 / 12))  # 1/12: the pixel's own width
    return weight / weight.sum()
