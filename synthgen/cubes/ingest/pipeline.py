"""One cube on its way through an ingest: from a camera's numbers to the reflectance that is written, or a refusal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from synthgen.cubes.ingest.field_of_view import detect_fov, field_amid
from synthgen.cubes.ingest.options import Ingestion
from synthgen.cubes.ingest.plan import refusing
from synthgen.cubes.ingest.quality_control import (
    Check,
    Refused,
    broken_pixels,
    check_bands,
    check_field,
    check_saturation,
    repair,
)
from synthgen.cubes.ingest.radiometric import Correction
from synthgen.cubes.ingest.registration import measure_shifts, shift_back
from synthgen.cubes.ingest.resize import Masks, patches, resize_in_field, resize_masks
from synthgen.cubes.readers.scaling import check_brightness, scaled
from synthgen.cubes.readers.source import Source

NOTED_SHIFT = 1.0  # pixels; below, optics that focus colours differently, or the error of the measurement
EVERY = slice(None)
Step = tuple[Check, Literal["noted", "repaired"], str]


@dataclass
class Passage:
    """What happened to one cube on its way."""

    events: list[Step] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    dropped: int = 0  # patches with too little field of view
    no_data: int = 0  # pixels in the field that the file marks as missing in all bands


def reflectance_cube(
    source: Source,
    i: int,
    options: Ingestion,
    correction: Correction | None,
    full_scale: float,
    scale_from: str,
    passage: Passage,
    bands: np.ndarray | slice = EVERY,
) -> tuple[np.ndarray, Masks]:
    """Cube `i` of a source as float32 reflectance [C, H, W] with its masks: corrected, checked, zero outside the field.

    `bands` chooses those bands that are needed; the others are not looked at, whatever is wrong with them. A pixel that
    the file marks as missing in all of them lies outside the field; one missing in some is a broken one.

    Raises `Refused` (or another InputError of the reader) with the reason when it cannot be used.
    """
    raw, nm = source.read(i), tuple(np.asarray(source.wavelengths)[bands].tolist())
    masks = source.masks(i) if source.masks is not None else {}
    with np.errstate(over="ignore", invalid="ignore"):
        values = source.declared.values(raw)
        missing = np.isnan(values[bands]).all(axis=0) if source.declared.marks_missing else None
        cube = scaled(values[bands], full_scale) if correction is None else correction.reflectance(values)[bands]
        raw = raw[bands]
    broken = broken_pixels(cube)
    dim = None if correction is None else np.broadcast_to(correction.dim(bands), cube.shape[1:])
    fov = _field(cube, masks, options, broken, dim)
    inside = fov if fov is not None else np.ones(cube.shape[1:], dtype=bool)
    if missing is not None:
        passage.no_data += int((inside & missing).sum())
        inside = inside & ~missing
    check_field(inside, options.min_field)
    if correction is None:
        with refusing("scale"):
            check_brightness(source, cube, inside, full_scale, scale_from)
    broken &= inside
    if broken.any():
        cube, done = repair(cube, broken, inside, options.max_broken, nm)
        passage.events.append(("broken pixels", "repaired", done))
    cube[:, ~inside] = 0
    check_bands(cube, inside, nm)
    saturated = check_saturation(raw, inside & ~broken, options.max_saturation, nm)
    if saturated:
        passage.events.append(("saturation", "noted", saturated))
    if options.registration != "off":
        cube, inside = _registered(cube, inside, options, nm, passage)
    if fov is None and inside.all():
        return cube, {name: mask for name, mask in masks.items() if name != "fov"}
    return cube * inside, masks | {"fov": inside}


def shaped(cube: np.ndarray, masks: Masks, options: Ingestion, passage: Passage) -> Iterator[tuple[np.ndarray, Masks]]:
    """The cube at the size of the cohort, or its patches."""
    size = options.size
    if size is None:
        yield cube, masks
    elif options.patches:
        for patch in patches(cube, masks, size, options.stride or size, options.min_fov):
            if patch is None:
                passage.dropped += 1
            else:
                yield patch
    else:
        if cube.shape[1] != cube.shape[2]:
            passage.notes.append(f"images of {cube.shape[1]}x{cube.shape[2]}: only the central square was kept")
        yield resize_in_field(cube, masks.get("fov"), size), resize_masks(masks, size)


def _field(
    cube: np.ndarray, masks: Masks, options: Ingestion, broken: np.ndarray, dim: np.ndarray | None
) -> np.ndarray | None:
    """Bool mask [H, W] of the field of view; None for the whole frame."""
    mode = options.fov
    if mode == "full":
        return None
    if mode in ("file", "auto") and "fov" in masks:
        return masks["fov"].astype(bool)
    if mode == "file":
        raise Refused("field of view", "has no mask 'fov'", remedy="use --fov detect, or --fov full")
    found = detect_fov(np.where(broken, 0, cube))
    if found is not None:
        return found
    if mode == "detect":
        raise Refused("field of view", "no field of view in a dark surround was found", remedy="use --fov full")
    # A surround without data (NaN in every band), or one that the white reference does not light.
    lost = np.asarray(broken.all(axis=0))
    return field_amid(lost if dim is None else dim | lost)


def _registered(
    cube: np.ndarray, fov: np.ndarray, options: Ingestion, nm: tuple[float, ...], passage: Passage
) -> tuple[np.ndarray, np.ndarray]:
    found = measure_shifts(cube, fov)
    if not found.measured.any():
        passage.notes.append("shifts between bands were not measured: too small an image or too little texture")
        return cube, fov
    sizes = found.sizes
    worst = int(np.argmax(sizes))
    row, column = found.shifts[worst]
    where = f"the band at {nm[worst]:g} nm is off by {sizes[worst]:.1f} pixels ({row:+.1f} rows, {column:+.1f} columns)"
    if sizes[worst] > options.max_shift:
        raise Refused("registration", where, expected=f"at most {options.max_shift:g} pixels")
    if not found.measured.all():
        blind = np.flatnonzero(~found.measured)
        listed = ", ".join(f"{nm[b]:g}" for b in blind[:4]) + ", ..." * (len(blind) > 4)
        passage.events.append(("registration", "noted", f"shift not measurable in {len(blind)} bands, at {listed} nm"))
    if options.registration == "correct":
        moved, fov = shift_back(cube, fov, found.shifts)
        if moved is not cube:
            passage.events.append(("registration", "repaired", f"{where}, moved back"))
        return moved, fov
    if sizes[worst] > NOTED_SHIFT:
        passage.events.append(("registration", "noted", where))
    return cube, fov
