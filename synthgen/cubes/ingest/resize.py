"""Bringing a cube and its masks to the size of the cohort: resizing with antialiasing, or cutting patches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

Masks = dict[str, np.ndarray]


def resize(cube: np.ndarray, size: int) -> np.ndarray:
    """Central square of `cube` float32 [C, H, W], resized to [C, size, size].

    Bilinear with an antialiasing filter as wide as the reduction (the mean of the pixels at whole reductions nearly),
    so that fine vessels fade instead of breaking up.
    """
    square = central_square(cube)
    if square.shape[-1] == size:
        return square
    import torch  # here: an ingest without resizing does not need it in every worker
    import torch.nn.functional as F

    image = torch.from_numpy(np.ascontiguousarray(square, dtype=np.float32))[None]
    return F.interpolate(image, size=(size, size), mode="bilinear", antialias=True, align_corners=False)[0].numpy()


def resize_in_field(cube: np.ndarray, fov: np.ndarray | None, size: int) -> np.ndarray:
    """`resize` that leaves the dark surround out: a pixel at the rim is the mean of what lies in `fov` [H, W].

    Zero where less than half of a pixel lies in the field.
    """
    small = resize(cube, size)
    if fov is None or fov.all():
        return small
    cover = resize(fov[None].astype(np.float32), size)[0]
    return np.where(cover >= 0.5, small / np.maximum(cover, 0.5), 0).astype(np.float32)


def resize_masks(masks: Mapping[str, np.ndarray], size: int) -> Masks:
    """Bool masks [H, W] to [size, size]; a pixel belongs to a mask when at least half of it is covered."""
    return {name: resize(mask[None].astype(np.float32), size)[0] >= 0.5 for name, mask in masks.items()}


def central_square(image: np.ndarray) -> np.ndarray:
    """The largest central square of [..., H, W]."""
    height, width = image.shape[-2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return image[..., top : top + side, left : left + side]


def patch_corners(height: int, width: int, size: int, stride: int) -> list[tuple[int, int]]:
    """Top left corners of the windows of a regular grid, centred in the image; none when the image is smaller."""

    def starts(length: int) -> list[int]:
        count = (length - size) // stride + 1 if length >= size else 0
        rest = length - ((count - 1) * stride + size)
        return [rest // 2 + k * stride for k in range(count)]

    return [(top, left) for top in starts(height) for left in starts(width)]


def patches(
    cube: np.ndarray, masks: Mapping[str, np.ndarray], size: int, stride: int, min_fov: float
) -> Iterator[tuple[np.ndarray, Masks] | None]:
    """Windows of `cube` [C, H, W] with their masks; None for a window that is outside the field of view by too much.

    The field of view is the mask `fov`, or, without one, the pixels that are not zero in every band.
    """
    fov = masks["fov"] if "fov" in masks else (cube != 0).any(axis=0)
    height, width = cube.shape[-2:]
    for top, left in patch_corners(height, width, size, stride):
        window = (slice(top, top + size), slice(left, left + size))
        if fov[window].mean() < min_fov:
            yield None
        else:
            yield cube[(slice(None), *window)], {name: mask[window] for name, mask in masks.items()}
