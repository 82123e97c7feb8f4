"""Structures of the fundus: the codes of cohort files, their masks, and the mean spectrum of each structure."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from synthgen.cubes.floor import LOG_FLOOR

STRUCTURES = ("artery", "vein", "disc", "macula", "background")
CODES = {"artery": 1, "vein": 2, "disc": 3, "crossing": 4}  # dataset `structures`; 0 is background
OUTSIDE = 255  # code of a pixel outside the field of view
MASK_NAMES = ("artery", "vein", "disc", "cup", "macula", "fov", "crossing")


def masks_from_codes(codes: np.ndarray) -> dict[str, np.ndarray]:
    """Bool masks, of the shape of the uint8 `codes`: artery, vein, disc, crossing and fov."""
    return {name: codes == code for name, code in CODES.items()} | {"fov": codes != OUTSIDE}


def region_masks(masks: Mapping[str, np.ndarray], shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """The pixels, bool `shape`, that stand for each of STRUCTURES; a structure without mask has none.

    Crossings count neither as artery nor as vein; disc and macula are taken without the vessels over them; background
    is the field of view minus every structure. Without a `fov` mask the whole frame is the field of view.
    """
    none = np.zeros(shape, dtype=bool)

    def mask(name: str) -> np.ndarray:
        return np.asarray(masks.get(name, none), dtype=bool)

    fov = np.asarray(masks["fov"], dtype=bool) if "fov" in masks else ~none
    artery, vein = mask("artery"), mask("vein")
    crossing = mask("crossing") | (artery & vein)
    vessels = artery | vein | crossing
    return {
        "artery": artery & ~crossing & fov,
        "vein": vein & ~crossing & fov,
        "disc": mask("disc") & ~vessels & fov,
        "macula": mask("macula") & ~vessels & fov,
        "background": fov & ~(vessels | mask("disc") | mask("cup") | mask("macula")),
    }


def region_spectra(cubes: np.ndarray, masks: Mapping[str, np.ndarray], min_pixels: int = 8) -> dict[str, np.ndarray]:
    """Mean log-reflectance of each structure in each cube.

    Args:
        cubes: float32 [N, C, H, W], reflectance in [0, 1].
        masks: bool [N, H, W] by name (see MASK_NAMES); any may be missing.
        min_pixels: a structure with fewer pixels in a cube counts as absent there. Eight pixels bring the noise of a
            vessel's mean to about a third of one pixel's, and leave a thin vessel of a 64-pixel patch in.

    Returns: for each of STRUCTURES float64 [N, C]; a row of NaN where the structure is absent.
    """
    n, bands, height, width = cubes.shape
    regions = region_masks(masks, (n, height, width))
    spectra = {name: np.full((n, bands), np.nan) for name in STRUCTURES}
    for i, cube in enumerate(cubes):
        logs = np.log(np.maximum(cube, 0).astype(np.float64) + LOG_FLOOR).reshape(bands, -1)
        for name in STRUCTURES:
            inside = regions[name][i].ravel()
            if inside.sum() >= min_pixels:
                spectra[name][i] = logs[:, inside].mean(axis=1)
    return spectra
