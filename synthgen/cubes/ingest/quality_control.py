"""What is wrong with a cube: broken pixels, saturation, empty bands, a small field of view. Kept, repaired or refused.

Each check either passes, or leaves a `Finding`, or raises `Refused`. Nothing is invented: single broken pixels take the
median of their neighbours in the same band, a whole band never comes from the bands beside it, because a later step
would take the made-up spectrum for a measured one.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from synthgen.config import Config
from synthgen.cubes.readers.scaling import USUAL
from synthgen.errors import InputError

Check = Literal[
    "file", "patient", "bands", "size", "scale", "references", "broken pixels", "empty bands", "saturation",
    "registration", "field of view", "patches",
]  # fmt: skip
ABSURD = 1e4  # times full reflectance: a broken number, not a glint
ABSURDLY_DARK = -100.0  # no noise of a corrected cube reaches it, but -9999 that nobody has declared does
NOTED_SATURATION = 0.001  # fraction of a band; below, glints from the vessel walls
PILED_UP = 4  # a smooth maximum has at most about 2.5 times as many in its last step as in the one before
_REACH = 3  # pixels: half the widest window that a broken pixel is repaired from


class Finding(Config):
    """Something that a check noticed in a cube that was kept."""

    path: str
    cube: int
    check: Check
    outcome: Literal["noted", "repaired"]
    reason: str


class Refused(InputError):
    """A check that a cube did not pass."""

    def __init__(self, check: Check, what: str, **parts):
        super().__init__(what, **parts)
        self.check: Check = check


def broken_pixels(cube: np.ndarray) -> np.ndarray:
    """Bool [C, H, W]: NaN, infinite or beyond any reflectance."""
    with np.errstate(invalid="ignore"):
        return ~((cube > ABSURDLY_DARK) & (cube < ABSURD))


def repair(
    cube: np.ndarray, broken: np.ndarray, fov: np.ndarray, most: float, wavelengths: tuple[float, ...]
) -> tuple[np.ndarray, str]:
    """Cube [C, H, W] with its broken pixels at the median of the sound ones around them in the same band.

    Args:
        broken: bool [C, H, W], the pixels to repair, all within the field of view.
        fov: bool [H, W]; what lies outside is no neighbour, or the rim would be repaired with the dark surround.
        most: largest fraction of a band that is repaired.

    Returns the cube and what was done, in words. Refused when a band has more, or a hole is too wide.
    """
    shares = broken.mean(axis=(1, 2))
    worst = int(np.argmax(shares))
    if shares[worst] > most:
        raise Refused(
            "broken pixels",
            "holds missing, NaN, infinite or absurd values",
            found=f"{shares[worst]:.1%} of the band at {wavelengths[worst]:g} nm, {int((shares > 0).sum())} bands",
            expected=f"at most {most:.1%}",
        )
    cube = cube.copy()
    for band in np.flatnonzero(shares):
        sound = np.where(broken[band] | ~fov, np.nan, cube[band])
        for row, column in np.argwhere(broken[band]):
            cube[band, row, column] = _median_around(sound, row, column, wavelengths[band])
    bands = np.flatnonzero(shares)
    first = f"{wavelengths[bands[0]]:g} nm"
    return cube, f"{int(broken.sum())} broken pixels in {len(bands)} bands (first at {first}) from their neighbours"


def check_bands(cube: np.ndarray, fov: np.ndarray, wavelengths: tuple[float, ...]) -> None:
    """Refused when a band of the cube [C, H, W] has one value only within the field of view."""
    inside = cube[:, fov]
    empty = inside.min(axis=1) == inside.max(axis=1)
    if empty.any():
        at = ", ".join(f"{wavelengths[b]:g}" for b in np.flatnonzero(empty)[:4])
        raise Refused(
            "empty bands",
            "has empty bands (one value only)",
            found=f"{int(empty.sum())}, at {at} nm",
            remedy="leave the band out with --bands, or repair the file: a band is never made up",
        )


def check_saturation(raw: np.ndarray, sound: np.ndarray, most: float, wavelengths: tuple[float, ...]) -> str | None:
    """What to note of pixels at the upper end of the raw cube [C, H, W]; Refused above the share `most` in a band.

    Only the pixels of the bool mask `sound` count, [H, W] or one for each band [C, H, W]: those of the field of view
    that are not broken. None where there are none.

    A pixel is saturated when it has the largest value in the whole cube and that is a usual full scale of a camera
    (255, 4095, 65535, ...), or at least four times as many pixels have it as lie just below: they were cut off there.
    """
    sound = np.broadcast_to(sound, raw.shape)
    if not sound.any():
        return None
    top = max(float(band[chosen].max()) for band, chosen in zip(raw, sound, strict=True) if chosen.any())
    lowest = top - max(1.0, 0.01 * top) if raw.dtype.kind in "ui" else 0.99 * top
    at_top = (raw == top) & sound
    just_below = (raw >= lowest) & sound & ~at_top
    if top not in USUAL and at_top.sum() < PILED_UP * just_below.sum():
        return None
    shares = at_top.sum(axis=(1, 2)) / np.maximum(sound.sum(axis=(1, 2)), 1)
    worst = int(np.argmax(shares))
    where = f"{shares[worst]:.1%} of the field of view at {wavelengths[worst]:g} nm"
    if shares[worst] > most:
        raise Refused("saturation", "is saturated", found=where, expected=f"at most {most:.1%} of any band")
    return f"saturated in {where}" if shares[worst] > NOTED_SATURATION else None


def check_field(fov: np.ndarray, least: float) -> None:
    """Refused when the field of view, bool [H, W], is empty or too small a fraction of the frame."""
    if fov.mean() < least or not fov.any():
        raise Refused(
            "field of view",
            "field of view is too small",
            found=f"{fov.mean():.1%} of the frame",
            expected=f"{least:.0%}",
        )


def _median_around(sound: np.ndarray, row: int, column: int, nm: float) -> float:
    for reach in range(1, _REACH + 1):
        window = sound[max(0, row - reach) : row + reach + 1, max(0, column - reach) : column + reach + 1]
        values = window[np.isfinite(window)]
        if values.size >= 3:
            return float(np.median(values))
    raise Refused(
        "broken pixels",
        "holds a hole of broken pixels that is too wide to repair",
        found=f"around row {row}, column {column} at {nm:g} nm",
        expected=f"sound pixels within {_REACH}",
    )
