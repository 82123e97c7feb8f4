"""The layer model: reflectance of the fundus from what light meets on its way in and out.

    R = T_media^2 T_macular^2 [ rho + T_melanin^2 T_blood^2 S ]      (fundus; after Delori & Pflibsen 1989, model III)

rho is what the retina and the pigment epithelium reflect in front of the melanin, S what the choroid and sclera reflect
behind it. Retinal vessels multiply it by the double pass through their blood, the disc replaces it by nerve tissue
without pigment. Every density is a map over the image; nothing is multiplied by a published reflectance curve.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from synthgen.cubes.phantom.tables import blood_absorption, macular_density, media_density, melanin_density

SCLERA = 0.45  # reflectance of deep choroid and sclera at 700 nm; fitted at the nasal site of Delori's Table I
SCLERA_SLOPE = -0.9  # exponent over wavelength: less scattering in the infrared; fitted at the same site
RHO_SLOPE = -0.35  # exponent of the inner reflectance: the retina scatters blue light more
NERVE, NERVE_SLOPE = 0.27, -0.1  # reflectance of disc tissue at 600 nm and its exponent
CHOROID_SATURATION = 0.92  # choroidal blood is nearly arterial
DISC_BLOOD_MM = 0.018  # capillary blood in the rim, single pass
SIDE_LIGHT = 0.25  # share of light that reaches a vessel's pixels by scatter around it; keeps vessels from going black


@dataclass(frozen=True)
class Layers:
    """Maps [H, W] of one eye.

    rho: inner reflectance. melanin: density at 500 nm, single pass. choroid_mm: choroidal blood, mm, single pass.
    macular: peak density of macular pigment. artery, vein: share of the pixel covered, 0..1; artery_mm, vein_mm: mean
    path through the vessel, mm. disc, cup: share covered. nerve: extra reflectance of nerve fibres at 500 nm.
    """

    rho: np.ndarray
    melanin: np.ndarray
    choroid_mm: np.ndarray
    macular: np.ndarray
    artery: np.ndarray
    artery_mm: np.ndarray
    vein: np.ndarray
    vein_mm: np.ndarray
    disc: np.ndarray
    cup: np.ndarray
    nerve: np.ndarray


def fundus(wavelengths: np.ndarray, rho: np.ndarray, melanin: np.ndarray, choroid_mm: np.ndarray) -> np.ndarray:
    """What leaves the retina toward the eye's lens, [C, ...]: rho + T_melanin^2 T_blood^2 S."""
    nm = _column(wavelengths, rho.ndim)
    inner = rho * (nm / 550) ** RHO_SLOPE
    density = melanin * melanin_density(nm)
    absorbed = choroid_mm * _column(blood_absorption(wavelengths, CHOROID_SATURATION), rho.ndim)
    return inner + SCLERA * (nm / 700) ** SCLERA_SLOPE * np.exp(-2 * (np.log(10) * density + absorbed))


def render(wavelengths: np.ndarray, layers: Layers, age: float, artery_s: float, vein_s: float) -> np.ndarray:
    """Reflectance [C, H, W] of an eye. `age` in years, saturations in 0..1."""
    nm = _column(wavelengths, 2)
    out = fundus(wavelengths, layers.rho, layers.melanin, layers.choroid_mm)
    out += layers.nerve * (nm / 500) ** -2
    pink = np.exp(-2 * DISC_BLOOD_MM * (1 - 0.8 * layers.cup) * _column(blood_absorption(wavelengths, 0.85), 2))
    disc = NERVE * (1 + 0.45 * layers.cup) * (nm / 600) ** NERVE_SLOPE * pink
    out += layers.disc * (disc - out)
    for cover, path, saturation in ((layers.vein, layers.vein_mm, vein_s), (layers.artery, layers.artery_mm, artery_s)):
        through = np.exp(-2 * path * _column(blood_absorption(wavelengths, saturation), 2))
        out *= 1 - cover * (1 - SIDE_LIGHT) * (1 - through)
    out *= 10 ** (-2 * layers.macular * _column(macular_density(wavelengths), 2))
    return out * _column(10 ** (-2 * media_density(wavelengths, age)), 2)


def signature(wavelengths: np.ndarray, amplitude: float) -> np.ndarray:
    """Factor [C] on reflectance of an amyloid-like change: exp(amplitude (nm / 450)^-4) up to 585 nm, 1 above.

    The law (Rayleigh-like, short wavelengths) follows the reported range of 450-585 nm; sign and size are not settled
    in the literature and stay parameters.
    """
    nm = np.asarray(wavelengths, dtype=float)
    return np.exp(np.where(nm <= 585, amplitude * (nm / 450.0) ** -4, 0.0))


def _column(values: np.ndarray, ndim: int) -> np.ndarray:
    return np.asarray(values, dtype=float).reshape(-1, *([1] * ndim))
