"""What a reconstruction keeps of what matters: every band, the thinnest vessels, the oxygen in the blood.

All functions are pure and compare real cubes with their reconstructions pixel by pixel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from synthgen.cubes.floor import LOG_FLOOR
from synthgen.cubes.structures import region_masks

Cubes = NDArray[np.float32]  # reflectance [N, C, H, W]
Masks = Mapping[str, NDArray[np.bool_]]  # by name, each [N, H, W]

VESSEL_NM = (540.0, 585.0)  # where blood absorbs most and every vessel is darker than its surroundings
OXIMETRY_NM = (600.0, 570.0)  # the oximeter's pair: apart for oxygenated and spent blood, and (nearly) alike
RING = 2  # pixels around a vessel that are its surroundings
LEAST = 12  # pixels of a cube below which a mean is left out


def fidelity(real: Cubes, remade: Cubes, masks: Masks, wavelengths_nm: Sequence[float]) -> dict[str, float]:
    """The figures below by name; those that cannot be measured on these cubes are left out."""
    found = {
        "worst_band_error": float(band_errors(real, remade, masks).max()),
        "thin_vessels_kept": thin_vessel_contrast(real, remade, masks, wavelengths_nm),
        "oxygen_contrast_kept": oxygen_contrast(real, remade, masks, wavelengths_nm),
    }
    return {name: value for name, value in found.items() if np.isfinite(value)}


def band_errors(real: Cubes, remade: Cubes, masks: Masks | None = None) -> NDArray[np.float64]:
    """Root mean square error of each band over that band's own standard deviation, [C]; 0 is perfect, 1 a flat grey.

    Over the pixels of the field of view where `masks` has one; a dark band counts as much as a bright one.
    """
    inside = np.asarray((masks or {}).get("fov", np.ones(real.shape[:1] + real.shape[2:], bool)))
    found = []
    for band in range(real.shape[1]):
        a, b = real[:, band][inside].astype(np.float64), remade[:, band][inside]
        found.append(np.sqrt(np.square(b - a).mean()) / max(a.std(), 1e-12))
    return np.array(found)


def thin_vessel_contrast(real: Cubes, remade: Cubes, masks: Masks, wavelengths_nm: Sequence[float]) -> float:
    """Share of the thinnest vessels' contrast that is kept: 1 all of it, 0 none. NaN without such vessels.

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
            logs = (np.log(np.maximum(cube[k, bands], LOG_FLOOR)) for cube in (real, remade))
            pairs.append([x[:, around].mean() - x[:, thin].mean() for x in logs])
    if not pairs:
        return float("nan")
    a, b = np.array(pairs).T
    return float(a @ b / (a @ a))


def oxygen_contrast(real: Cubes, remade: Cubes, masks: Masks, wavelengths_nm: Sequence[float]) -> float:
    """Share of the difference of veins from arteries in the optical density ratio 600/570 that is kept.

    Optical density: log-reflectance of a vessel's surroundings minus the vessel's (Beach et al. 1999). Densities are
    averaged over all cubes before the ratio is taken: a single cube's are too noisy to divide. NaN where the bands or
    the vessels are missing.
    """
    nm = np.asarray(wavelengths_nm)
    bands = [int(np.abs(nm - wanted).argmin()) for wanted in OXIMETRY_NM]
    if len({*bands}) < 2 or max(abs(nm[b] - w) for b, w in zip(bands, OXIMETRY_NM, strict=True)) > 15:
        return float("nan")
    ratios = []
    for cubes in (real, remade):
        density = {"artery": [], "vein": []}
        for k in range(len(cubes)):
            own = region_masks({name: mask[k] for name, mask in masks.items()}, cubes.shape[2:])
            x = np.log(np.maximum(cubes[k, bands], LOG_FLOOR))
            for name, found in density.items():
                around = ndimage.binary_dilation(own[name], iterations=RING) & own["background"]
                if min(own[name].sum(), around.sum()) >= LEAST:
                    found.append(x[:, around].mean(1) - x[:, own[name]].mean(1))
        if not all(density.values()):
            return float("nan")
        means = {name: np.mean(found, axis=0) for name, found in density.items()}
        ratios.append(means["vein"][0] / means["vein"][1] - means["artery"][0] / means["artery"][1])
    return float(ratios[1] / ratios[0])
