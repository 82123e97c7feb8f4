"""Where a cube shows the eye: the bright round field that a fundus camera's aperture leaves in a dark frame."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.morphology import convex_hull_image

DARKER = 4.0  # the surround is at least so many times darker than the field: stray light, not a dark part of the eye
LEAST_OUTSIDE = 0.02  # fraction of the frame that a surround takes at least
BRIGHT = 0.995  # quantile that is the bright end of a band: glints are beyond, and a field of 1 % of the frame is not
SOLID = 0.9  # least fraction of its convex hull that a field of view fills; vessels at the rim cost a few percent
CORNER = 0.03  # fraction of the side that is looked at in each corner of the frame


def detect_fov(cube: np.ndarray) -> np.ndarray | None:
    """Bool mask [H, W] of the field of view of a cube [C, H, W] (any unit; NaN counts as dark); None without surround.

    Otsu's threshold on the logarithm of the mean over the bands, each in units of its bright end; of the pixels above
    it the largest connected region, its holes (vessels, the macula) filled, its convex hull. There is a surround when
    the corners of the frame are dark and it is at least `DARKER` times darker than the field. A round field that
    the frame cuts above and below is found as it is.
    """
    image = _brightness(cube)
    top = float(np.quantile(image, BRIGHT))
    if not top > 0:
        return None
    logs = np.log(np.maximum(image, 0) / top + 0.01)  # below a hundredth of the field all is equally dark
    if float(np.ptp(logs)) < np.log(DARKER):
        return None
    bright = ndimage.binary_opening(logs > threshold_otsu(logs), iterations=1)
    region = _largest_region(bright)
    if region is None:
        return None
    hull = convex_hull_image(region, offset_coordinates=False)  # else it grows by half a pixel
    if region.sum() < SOLID * hull.sum() or hull.mean() > 1 - LEAST_OUTSIDE or not _corners_outside(hull):
        return None
    edge = ndimage.binary_dilation(hull, iterations=2) & ~hull  # half-lit pixels are neither
    outside = image[~hull & ~edge]
    if outside.size and np.median(image[region]) < DARKER * max(float(np.median(outside)), 0.0):
        return None
    return hull


def field_amid(nothing: np.ndarray) -> np.ndarray | None:
    """The field of view in the middle of pixels without data, bool [H, W]: one region that leaves the corners out.

    None where the pixels without data are no surround; then they are holes or stripes, which are no one's field.
    """
    field = _largest_region(~nothing)
    if field is None or field.mean() > 1 - LEAST_OUTSIDE or not _corners_outside(field):
        return None
    return field if field.sum() >= SOLID * (~nothing).sum() else None


def _largest_region(mask: np.ndarray) -> np.ndarray | None:
    """The largest connected region of a bool mask [H, W] with its holes filled; None of an empty mask."""
    labels, count = ndimage.label(mask)  # pyright: ignore[reportGeneralTypeIssues]
    if count == 0:
        return None
    largest = 1 + int(np.argmax(ndimage.sum_labels(mask, labels, np.arange(1, count + 1))))
    return ndimage.binary_fill_holes(labels == largest)


def _brightness(cube: np.ndarray) -> np.ndarray:
    """Mean over the bands, each divided by its bright end, float32 [H, W]: every band counts."""
    total = np.zeros(cube.shape[1:], dtype=np.float32)
    for band in cube:
        values = np.nan_to_num(band.astype(np.float32), posinf=0, neginf=0)
        high = float(np.quantile(values[::2, ::2], BRIGHT))
        if high > 0:
            total += np.clip(values, 0, high) / high
    return total / len(cube)


def _corners_outside(field: np.ndarray) -> bool:
    height, width = (max(1, round(CORNER * n)) for n in field.shape)
    corners = field[:height, :width], field[:height, -width:], field[-height:, :width], field[-height:, -width:]
    return not any(corner.any() for corner in corners)
