"""The cube viewer: cubes, their spectra, structures and gate scores on one page of HTML that loads nothing."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from synthgen.report.cube_page import COLOUR_NM
from synthgen.runs.files import json_text, write_text

PAGES = Path(__file__).parent / "pages"
BUDGET = 4 * 2**20  # bytes of cubes on a page before base64, which adds a third: a page that can be sent by mail
LEAST_SIDE = 32


@dataclass(frozen=True)
class Score:
    """What a gate measured of a cube; ok: None where there is no limit to hold it against."""

    label: str
    value: str
    limit: str = ""
    ok: bool | None = None


@dataclass(frozen=True)
class ViewerCube:
    """A cube to look at.

    cube: float [C, H, W] reflectance. kind: real, synthetic, training ... masks: bool [H, W] by structure. found: where
    the masks are from. status, accepted: by the gates. partner: place of the cube shown beside it, with a note.
    """

    name: str
    kind: str
    cube: np.ndarray
    masks: Mapping[str, np.ndarray] = field(default_factory=dict)
    found: str = ""
    status: str = ""
    accepted: bool | None = None
    scores: Sequence[Score] = ()
    partner: int | None = None
    partner_note: str = ""


def viewer_page(
    path: str | os.PathLike,
    cubes: Sequence[ViewerCube],
    wavelengths: Sequence[float],
    *,
    title: str,
    note: str = "",
    listed: int | None = None,
    budget: int = BUDGET,
) -> None:
    """Write the page, whole or not at all.

    Args:
        path: HTML file to write.
        cubes: all of one shape. wavelengths: their bands in nm.
        title, note: at the top of the page.
        listed: how many of the cubes, the first ones, stand in the list; the others are shown beside these only.
        budget: bytes of cubes on the page. Beyond it they are stored with 8 bits instead of 16, then averaged down to
            no less than LEAST_SIDE pixels; the page states what was done.
    """
    write_text(path, render(cubes, wavelengths, title=title, note=note, listed=listed, budget=budget))


def render(
    cubes: Sequence[ViewerCube],
    wavelengths: Sequence[float],
    *,
    title: str,
    note: str = "",
    listed: int | None = None,
    budget: int = BUDGET,
) -> str:
    """The page as text."""
    arrays = [np.nan_to_num(np.maximum(c.cube, 0).astype(np.float32), posinf=0.0) for c in cubes]
    bits, factor = _fitting(arrays[0].shape, len(arrays), budget)
    small = [averaged(a, factor) for a in arrays]
    tops = [max(float(max(a[b].max() for a in small)), 1e-6) for b in range(len(wavelengths))]
    whites = [max(float(np.percentile(np.stack([a[b] for a in small]), 99)), 1e-6) for b in range(len(wavelengths))]
    data = {
        "wavelengths": [round(float(w), 3) for w in wavelengths],
        "size": list(small[0].shape[1:]),
        "bits": bits,
        "tops": tops,
        "whites": whites,
        "colour_nm": list(COLOUR_NM),
        "listed": len(cubes) if listed is None else listed,
        "cubes": [_entry(c, a, tops, bits, factor) for c, a in zip(cubes, small, strict=True)],
    }
    fine = "Grey: black at 0, white at the 99th percentile of all cubes on the page, the same for both pictures. "
    fine += f"Values are stored with {bits} bits along a square root"
    fine += f", and means of {factor} x {factor} pixels are shown." if factor > 1 else "."
    return Template((PAGES / "viewer.html").read_text(encoding="utf-8")).substitute(
        title=escape(title),
        note=escape(note),
        fine=escape(fine),
        style=(PAGES / "viewer.css").read_text(encoding="utf-8"),
        script=(PAGES / "viewer.js").read_text(encoding="utf-8"),
        data=json_text(data, separators=(",", ":")).replace("<", "\\u003c"),
    )


def averaged(array: np.ndarray, factor: int) -> np.ndarray:
    """Means [..., H // f, W // f] of blocks of f x f pixels; what is left over at the rim is cut off."""
    if factor == 1:
        return array
    *rest, height, width = array.shape
    cut = array[..., : height // factor * factor, : width // factor * factor]
    return cut.reshape(*rest, height // factor, factor, width // factor, factor).mean((-3, -1))


def coded(cube: np.ndarray, tops: Sequence[float], bits: int) -> np.ndarray:
    """Cube [C, H, W] in 0..tops as whole numbers along a square root, so that dark bands and pixels keep their share
    of the steps: uint16 or uint8."""
    most = 2**bits - 1
    fraction = np.clip(cube / np.asarray(tops, dtype=np.float32)[:, None, None], 0, 1)
    return np.round(np.sqrt(fraction) * most).astype("<u2" if bits == 16 else np.uint8)


def _fitting(shape: tuple[int, ...], count: int, budget: int) -> tuple[int, int]:
    """Bits and factor of averaging with which `count` cubes of `shape` come near the budget."""
    bands, height, width = shape
    for factor in range(1, max(min(height, width) // LEAST_SIDE, 1) + 1):
        values = count * bands * (height // factor) * (width // factor)
        for bits in (16, 8):
            if values * bits // 8 <= budget:
                return bits, factor
    return 8, max(min(height, width) // LEAST_SIDE, 1)


def _entry(cube: ViewerCube, array: np.ndarray, tops: Sequence[float], bits: int, factor: int) -> dict[str, Any]:
    masks = {
        name: _text(np.packbits(averaged(np.asarray(m, np.float32), factor) >= 0.5))
        for name, m in cube.masks.items()
        if name != "fov" and np.any(m)
    }
    return {
        "name": cube.name,
        "kind": cube.kind,
        "data": _text(coded(array, tops, bits)),
        "masks": masks,
        "found": cube.found if masks else "",
        "status": cube.status,
        "accepted": cube.accepted,
        "scores": [{"label": s.label, "value": s.value, "limit": s.limit, "ok": s.ok} for s in cube.scores],
        "partner": cube.partner,
        "partner_note": cube.partner_note,
    }


def _text(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
