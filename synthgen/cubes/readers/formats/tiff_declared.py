"""What a TIFF file declares of its numbers: GDAL's tags, a description in JSON, ImageJ's calibration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from synthgen.cubes.readers.declarations import ROLES, Statement, named, parse, plain_name
from synthgen.cubes.readers.formats.tiff_metadata import description_tables, parse_xml
from synthgen.errors import InputError

_METADATA, _NODATA = 42112, 42113  # GDAL_METADATA, GDAL_NODATA
_MOST_PAGES = 5000  # looked at; beyond, the first speak for all
_GDAL_ROLES = {"scale": "gain", "offset": "offset"}
_USUAL = {"gain": 1.0, "offset": 0.0, "scale": 1.0, "factor": 1.0}  # of a band that states none beside others that do


def tiff_statements(file: tifffile.TiffFile, bands: int, path: Path) -> list[Statement]:
    """The statements of a file of `bands` bands: pages that speak each for their own give one value per band."""
    found = [s for table in description_tables(file) for s in named(table, "TIFF description", level=1)]
    found += _imagej(file, path)
    pages = [page for page in file.pages[:_MOST_PAGES] if isinstance(page, tifffile.TiffPage)]
    speaking = [page for page in pages if _METADATA in page.tags or _NODATA in page.tags]
    if len(speaking) < 2:
        return found + [s for page in speaking for s in _of_page(page, bands, path)]
    by_page = [_of_page(page, int(page.samplesperpixel), path) if page in speaking else [] for page in pages]
    if len(pages) == bands:
        return found + joined(by_page, path)
    texts = sorted({", ".join(s.text() for s in page) for page in by_page if page})
    if len(texts) > 1:
        expected = f"{bands} pages, one per band, or the same in all"
        raise InputError("pages declare different numbers", path=path, found="; ".join(texts[:3]), expected=expected)
    return found + next(page for page in by_page if page) if texts else found


def _of_page(page: tifffile.TiffPage, bands: int, path: Path) -> list[Statement]:
    return [*_nodata(page), *_metadata(page, bands, path)]


def joined(by_band: Sequence[Sequence[Statement]], path: Path) -> list[Statement]:
    """Statements of single bands as statements of all: one number where they agree, else one per band."""
    kinds: dict[tuple[str, str], dict[int, Statement]] = {}
    for band, statements in enumerate(by_band):
        for s in statements:
            kinds.setdefault((s.name, s.role), {})[band] = s
    found = []
    for (name, role), by_number in kinds.items():
        first = next(iter(by_number.values()))
        values = [
            parse(by_number[k].value) if k in by_number else np.array([_missing(first)]) for k in range(len(by_band))
        ]
        if any(v is None or v.size != 1 for v in values):
            text = next(s.text() for s in by_number.values())
            raise InputError(f"'{name}' is no number", path=path, found=text, expected="a number")
        numbers = np.concatenate([v for v in values if v is not None])
        same = len(by_number) == len(by_band) and (numbers == numbers[0]).all()
        found.append(Statement(name, numbers[:1] if same else numbers, first.where, first.level, role))
    return found


def _missing(s: Statement) -> float:
    """What a band that does not state it has: no gain, no offset, no number for no data but NaN."""
    return _USUAL.get(s.meaning, np.nan)


def _nodata(page: tifffile.TiffPage) -> list[Statement]:
    tag = page.tags.get(_NODATA)
    return [] if tag is None else [Statement("GDAL_NODATA", str(tag.value).strip("\0 "), "tag 42113")]


def _metadata(page: tifffile.TiffPage, bands: int, path: Path) -> list[Statement]:
    """The items of GDAL's metadata that declare something, of all bands or of each."""
    tag = page.tags.get(_METADATA)
    text = str(tag.value).strip("\0 \n") if tag is not None else ""
    if not text:
        return []
    try:
        root = parse_xml(text, path, "GDAL metadata")
    except InputError:
        if "scale" in text.lower() or "offset" in text.lower():
            raise
        return []  # nothing in them is of the numbers
    of_all: list[Statement] = []
    of_band: dict[tuple[str, str], dict[int, Any]] = {}
    for item in root.iter("Item"):
        name, value = item.get("name", "").rpartition("#")[2], (item.text or "").strip()
        role = _GDAL_ROLES.get(item.get("role", ""), "")
        if not role and plain_name(name) not in ROLES:
            continue
        sample = item.get("sample", "")
        if not sample.isdecimal():
            of_all.append(Statement(name, value, "GDAL metadata", role=role))
            continue
        if int(sample) >= bands:
            found, expected = f"{name} of band {int(sample) + 1}", f"at most {bands} bands"
            raise InputError("GDAL metadata do not belong to the pages", path=path, found=found, expected=expected)
        of_band.setdefault((name, role), {})[int(sample)] = value
    for (name, role), values in of_band.items():
        if (len(values) == bands and ROLES.get(plain_name(name)) != "unit") or role:
            of_one = {k: [Statement(name, value, "GDAL metadata", role=role)] for k, value in values.items()}
            of_all += joined([of_one.get(k, []) for k in range(bands)], path)
        else:
            of_all.append(Statement(name, values[min(values)], f"GDAL metadata of band {min(values) + 1}", role=role))
    return of_all


def _imagej(file: tifffile.TiffFile, path: Path) -> list[Statement]:
    """ImageJ's calibration of grey values: c0 + c1 * stored where `cf` is 0, a straight line."""
    about = dict(file.imagej_metadata or {}) if file.is_imagej else {}
    kind = about.get("cf")
    if kind is None:
        return []
    if kind != 0:
        if kind == 20:  # none
            return []
        found, expected = f"function {kind}", "0, a straight line"
        raise InputError("ImageJ's calibration cannot be applied", path=path, found=found, expected=expected)
    gain = Statement("ImageJ c1", about.get("c1", 1.0), "ImageJ description", role="gain")
    return [gain, Statement("ImageJ c0", about.get("c0", 0.0), "ImageJ description", role="offset")]
