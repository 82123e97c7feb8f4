"""`synthgen view`: one cube of any file that can be read, before or after ingest, as a picture."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import numpy as np

from synthgen.cubes.cohort.structures import STRUCTURES, region_masks
from synthgen.cubes.ingest.field_of_view import detect_fov
from synthgen.cubes.ingest.quality_control import broken_pixels
from synthgen.cubes.readers.open import open_source
from synthgen.cubes.readers.scaling import UNKNOWN, reflectance, scale_to_look_at
from synthgen.cubes.readers.source import Hints, Source
from synthgen.errors import ConfigError, InputError
from synthgen.report.cube_page import cube_page

FEWEST = 8  # pixels of a structure whose spectrum is drawn
Curve = tuple[np.ndarray, np.ndarray, np.ndarray]


def draw_cube(
    file: str | os.PathLike,
    out: str | os.PathLike,
    index: int,
    *,
    bands: Literal["all", "six"],
    hints: Hints,
    scale: float | None,
) -> Path:
    """Draw cube `index` of a cohort file or of any source (ENVI, TIFF, MATLAB, ...) as a PNG file, and return it.

    Args:
        bands: all, or six (wavelengths).
        hints, scale: as for ingest, where the file does not state it.

    ConfigError for an option that cannot be, InputError when the file cannot be read or has no such cube.
    """
    if bands not in ("all", "six"):
        raise ConfigError("'bands' must be all or six", found=bands)
    if Path(out).suffix.lower() != ".png":
        raise ConfigError("is no picture and no page", path=out, expected="a name that ends in .png or .html")
    source = open_source(Path(file), hints)
    count = source.layout.count
    if not 0 <= index < count:
        raise InputError("no cube of that index", path=file, found=index, expected=f"0 to {count - 1}")
    full, origin = scale_to_look_at(source, scale)
    cube = reflectance(source, index, full)
    broken = broken_pixels(cube)
    cube[broken] = 0
    masks = source.masks(index) if source.masks is not None else {}
    known = masks.get("fov")
    field = known if known is not None else detect_fov(cube)
    result, shaded = _curves(cube, masks, field)
    size = f"{source.layout.rows} x {source.layout.columns} pixels"
    nm = source.wavelengths
    note = f"{len(nm)} bands, {nm[0]:.0f}-{nm[-1]:.0f} nm;  {size};  1 is {full:g} ({origin})"
    note += "".join(f";  {done}" for done in source.declared.applied)
    note += f";  {int(broken.sum())} broken pixels" if broken.any() else ""
    cube_page(
        out,
        cube,
        nm,
        result,
        field,
        title=title_of(source, index),
        note=note,
        shaded=shaded,
        quantity="fraction of the largest value" if origin == UNKNOWN else "reflectance",
        six=bands == "six",
    )
    return Path(out)


def _curves(cube: np.ndarray, masks: dict[str, np.ndarray], field: np.ndarray | None) -> tuple[dict[str, Curve], str]:
    """Mean spectrum of each structure, or of the field of view where there are none; and what is shaded."""
    regions = region_masks(masks, cube.shape[1:])
    present = {name: regions[name] for name in STRUCTURES if regions[name].sum() >= FEWEST}
    if set(masks) - {"fov"} and set(present) - {"background"}:
        curves = {f"{name} ({mask.sum():,} pixels)": _curve(cube[:, mask], 16, 84) for name, mask in present.items()}
        return curves, "mean of each structure; shaded: the middle 68 % of its pixels"
    inside = np.ones(cube.shape[1:], dtype=bool) if field is None else field
    where = "whole frame" if field is None else "field of view"
    return {where: _curve(cube[:, inside], 5, 95)}, f"mean of the {where}; shaded: 5 to 95 % of its pixels"


def _curve(pixels: np.ndarray, low: float, high: float) -> Curve:
    return pixels.mean(axis=1), *np.percentile(pixels, [low, high], axis=1)


def title_of(source: Source, i: int) -> str:
    """Patient, eye and visit of cube `i`, as far as they are known, its file and place."""
    parts = []
    if source.patient_id is not None:
        parts.append(f"patient {source.patient_id[i]}")
    if source.eye is not None and str(source.eye[i]):
        parts.append(str(source.eye[i]))
    if source.visit is not None and source.visit.dtype.kind in "ui":
        parts.append(f"visit {source.visit[i]}")
    where = source.path.name + (f", cube {i}" if source.layout.count > 1 else "")
    return ", ".join([*parts, where])
