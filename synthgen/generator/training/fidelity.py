"""What a reconstruction keeps of what matters: every band, the thinnest vessels, the oxygen in the blood.

All functions are pure and compare real cubes with their reconstructions pixel by pixel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from synthgen.cubes.cohort.structures import region_masks
from synthgen.cubes.floor import LOG_FLOOR
from synthgen.science.bands import nearest_bands

Cubes = NDArray[np.float32]  # reflectance [N, C, H, W]
Masks = Mapping[str, NDArray[np.bool_]]  # by name, each [N, H, W]

VESSEL_NM = (540.0, 585.0)  # where blood absorbs most and every vessel is darker than its surroundings
OXIMETRY_NM = (600.0, 570.0)  # the oximeter's pair: apart for oxygenated and spent blood, and (nearly) alike
RING = 2  # pixels around a vessel that are its surroundings
LEAST = 12  # pixels of a cube below which a mean is left out


def fidelity(real: Cubes, reconstructed: Cubes, masks: Masks, wavelengths_nm: Sequence[float]) -> dict[str, float]:
    """The figures below by name; those that cannot be measured on these cubes are left out."""
    found = {
        "worst_band_error": float(band_errors(real, reconstructed, masks).max()),
        "thin_vessels_kept": thin_vessel_contrast(real, reconstructed, masks, wavelengths_nm),
        "oxygen_contrast_kept": oxygen_contrast(real, reconstructed, masks, wavelengths_nm),
    }
    return {name: value for name, value in found.items() if np.isfinite(value)}


def band_errors(real: Cubes, reconstructed: Cubes, masks: Masks | None = None) -> NDArray[np.float64]:
    """Root mean square error of each band over that band's own standard deviation, [C]; 0 is perfect, 1 a flat grey.

    Over the pixels of the field of view where `masks` has one; a dark band counts as much as a bright one.
    """
    inside = np.asarray((masks or {}).get("fov", np.ones(real.shape[:1] + real.shape[2:], bool)))
    found = []
    for band in range(real.shape[1]):
        a, b = real[:, band][inside].astype(np.float64), reconstructed[:, band][inside]
        found.append(np.sqrt(np.square(b - a).mean()) / max(a.std(), 1e-12))
    return np.array(found)


def thin_vessel_contrast(real: Cubes, reconstructed: Cubes, masks: Masks, wavelengths_nm: Sequence[float]) -> float:
    """Fraction of the thinnest vessels' contrast that is kept: 1 all of it, 0 none. NaN without such vessels.

    Thin are vessel pixels that an opening with a 2x2 square removes. Contrast is mean log-reflectance of the
    surroundings minus that of the vessel, over 540-585 nm, of each cube; the share is the slope of the reconstruction's
    contrasts over the real ones, through zero.
    """
    nm = np.asarray(wavelengths_nm)
    bands = np.flatnonzero((nm >= VESSEL_NM[0]) & (nm <= VESSEL_NM[1]))
    if not len(bands):
        return float("nan")
    pairs = []
    for k in range(len(real)):
        own = region_masks({name: mask[k] for name, mask in masks.items()}, real.shape[2:])
        vessels = own["artery"] | own["vein"]
        thin = vessels & np.logical_not(ndimage.binary_opening(vessels, np.ones((2, 2), bool)))
        around = ndimage.binary_dilation(thin, iterations=RING) & own["background"]
        if min(thin.sum(), around.sum()) >= LEAST:
            logs = (np.log(np.maximum(cube[k, bands], LOG_FLOOR)) for cube in (real, reconstructed))
            pairs.append([x[:, around].mean() - x[:, thin].mean() for x in logs])
    if not pairs:
        return float("nan")
    a, b = np.array(pairs).T
    return float(a @ b / (a @ a))


def oxygen_contrast(real: Cubes, reconstructed: Cubes, masks: Masks, wavelengths_nm: Sequence[float]) -> float:
    """Fraction of the artery-vein ratio 600/570 that is kept: 1 all of it, 0 none, negative reversed; `oxygen_pairs`.

    The mean of the reconstructions over that of the real cubes. NaN where the bands or the vessels are missing, and
    where the real mean is not sure to differ from 0 (by two standard errors): then there is nothing to keep.
    """
    a, b = oxygen_pairs(real, reconstructed, masks, wavelengths_nm).T
    sure = len(a) > 1 and abs(a.mean()) > 2 * a.std(ddof=1) / np.sqrt(len(a))
    return float(b.mean() / a.mean()) if sure or (len(a) == 1 and a[0]) else float("nan")


def oxygen_pairs(
    real: Cubes, reconstructed: Cubes, masks: Masks, wavelengths_nm: Sequence[float]
) -> NDArray[np.float64]:
    """ln(artery / vein) of the mean reflectance at 600 nm less that at 570 nm, of each cube that has both: real,
    reconstructed [n, 2]; n is 0 where the bands are missing.

    Spent blood is darker than oxygenated blood at 600 nm and as dark at 570 nm (Beach et al. 1999), so this grows as
    saturation falls, and whatever darkens both vessels or both bands alike drops out: nothing small is divided by.
    """
    nm = np.asarray(wavelengths_nm)
    bands = nearest_bands(nm, OXIMETRY_NM)
    pairs = []
    if len({*bands}) == 2 and max(abs(nm[b] - w) for b, w in zip(bands, OXIMETRY_NM, strict=True)) <= 15:
        for k in range(len(real)):
            own = region_masks({name: mask[k] for name, mask in masks.items()}, real.shape[2:])
            if min(own["artery"].sum(), own["vein"].sum()) < LEAST:
                continue
            logs = (np.log(np.maximum(cube[k, bands], LOG_FLOOR)) for cube in (real, reconstructed))
            ratios = [x[:, own["artery"]].mean(1) - x[:, own["vein"]].mean(1) for x in logs]
            pairs.append([at_600 - at_570 for at_600, at_570 in ratios])
    return np.array(pairs, dtype=np.float64).reshape(-1, 2)
