"""What the texts in a TIFF file state: OME-XML made safe, and the wavelengths of the bands."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile

from synthgen.cubes.cohort.hdf5 import in_one_line
from synthgen.cubes.readers.source import wavelength_rank
from synthgen.cubes.units import (
    UNIT_NAMES,
    UNITS,
    Listed,
    in_texts,
    per_band,
    read_list,
    stated_list,
    texts_of,
    unit_of,
)
from synthgen.errors import InputError

_MAX_TEXT = 16 * 2**20
_GDAL = "GDAL_METADATA"  # tag 42112


def clean_ome(text: str, pages: int, path: Path) -> str:
    """OME-XML that tifffile may be trusted with: no entities, no annotations, no more planes than there are pages.

    InputError where it is damaged, or where planes of the image lie in other files, which are never opened.
    """
    root = parse_xml(text, path)
    for child in list(root):
        if child.tag.endswith(("StructuredAnnotations", "BinaryOnly")):
            if child.tag.endswith("BinaryOnly"):
                raise InputError("OME-XML lies in another file", path=path, remedy="name that file")
            root.remove(child)
    names: set[str] = set()
    for pixels in (e for e in root.iter() if e.tag.endswith("}Pixels") or e.tag == "Pixels"):
        planes = 1
        for axis in "ZCT":
            planes *= _whole(pixels.get(f"Size{axis}"), path)
        samples = max([1, *(_whole(c.get("SamplesPerPixel", "1"), path) for c in pixels if c.tag.endswith("Channel"))])
        if planes > pages * samples:
            raise InputError("OME-XML states more planes than there are", path=path, found=planes, expected=pages)
        for data in (e for e in pixels if e.tag.endswith("TiffData")):
            for key, value in data.attrib.items():
                if _whole(value, path) > pages:
                    found = in_one_line(f"{key} {value} of {pages} pages")
                    raise InputError("OME-XML states more planes than there are", path=path, found=found)
            names |= {str(e.get("FileName", "")) for e in data if e.tag.endswith("UUID")}
    if len(names) > 1:
        raise InputError("holds only some planes of its image", path=path, found=f"{len(names)} files", remedy=_ONE)
    return ElementTree.tostring(root, encoding="unicode")


_ONE = "save the image as one file"


def tiff_wavelengths(file: tifffile.TiffFile, path: Path) -> Listed | None:
    """The wavelengths that a TIFF file gives, as they are; None where it gives none."""
    if file.is_ome:
        return _ome_wavelengths(ElementTree.fromstring(file.ome_metadata or "<OME/>"))
    for entry in description_tables(file):
        if (found := _in_table(entry, path)) is not None:
            return found
    if (found := _gdal_wavelengths(file, path)) is not None:
        return found
    labels = (file.imagej_metadata or {}).get("Labels") if file.is_imagej else None
    if isinstance(labels, list | tuple) and (found := in_texts([str(t) for t in labels], "ImageJ labels")) is not None:
        return found
    if 1 < len(file.pages) < 5000:
        tags = [page.tags.get("PageName") if isinstance(page, tifffile.TiffPage) else None for page in file.pages]
        names = [str(tag.value) if tag is not None else "" for tag in tags]
        if all(names):
            return in_texts(names, "page names")
    return None


def description_tables(file: tifffile.TiffFile) -> list[dict]:
    """What the descriptions of the first pages state with keys: JSON, or ImageJ's."""
    texts: list[Any] = []
    if file.is_shaped:
        texts += [dict(entry) for entry in file.shaped_metadata or ()]
    if file.is_imagej:
        texts.append(dict(file.imagej_metadata or {}))
    texts.append(_json(file.pages.first.description))
    return [entry for entry in texts if isinstance(entry, dict)]


def _in_table(entry: dict, path: Path) -> Listed | None:
    """Of a description with keys: the list under such a name, its unit under another."""
    lowered = {str(key).lower().replace(" ", "_"): value for key, value in entry.items()}
    for _, key in sorted((rank[0], str(k)) for k in entry if (rank := wavelength_rank(str(k)))):
        values = _numbers(next(v for k, v in entry.items() if str(k) == key))
        if values is not None:
            beside = {name: texts_of(lowered[name]) for name in UNIT_NAMES if name in lowered}
            # A plain `unit` is that of the pixels in ImageJ.
            stated = next((text for name, text in beside.items() if text and "_" in name), "")
            rank = wavelength_rank(key)
            words = (stated, values[1], rank[1] if rank else "")
            if not any(words):
                words = (next((text for text in beside.values() if unit_of(text) in UNITS), ""), "", "")
            return stated_list(values[0], f"TIFF description '{key}'", words, path)
    return None


def _gdal_wavelengths(file: tifffile.TiffFile, path: Path) -> Listed | None:
    """GDAL's metadata of the bands: `wavelength` with `wavelength_units`, `CENTRAL_WAVELENGTH_UM`, or descriptions."""
    tag = file.pages.first.tags.get(_GDAL)
    text = str(tag.value) if tag is not None else ""
    if not text.strip():
        return None
    try:
        root = parse_xml(text, path, "GDAL metadata")
    except InputError:
        return None  # they tell nothing then; the pages may
    items: dict[int, dict[str, str]] = {}
    for item in root.iter("Item"):
        sample, name = item.get("sample", ""), item.get("name", "").lower().replace(" ", "_")
        if sample.isdecimal():
            items.setdefault(int(sample), {})[item.get("role") or name] = (item.text or "").strip()
    bands = [items[k] for k in sorted(items)]
    if not bands or list(sorted(items)) != list(range(len(bands))):
        return None
    keys = sorted((rank[0], key) for key in bands[0] if (rank := wavelength_rank(key)))
    for _, key in keys:
        found = [read_list(band.get(key, "")) for band in bands]
        if all(f is not None and f[0].size == 1 for f in found):
            named = wavelength_rank(key)
            words = [
                f[1] or next((band[n] for n in UNIT_NAMES if n in band), "") or (named[1] if named else "")
                for f, band in zip(found, bands, strict=True)
                if f is not None
            ]
            return per_band([float(f[0][0]) for f in found if f is not None], words, f"GDAL metadata '{key}'")
    return in_texts([band.get("description", "") for band in bands], "GDAL band descriptions")


def _ome_wavelengths(root: ElementTree.Element) -> Listed | None:
    """Of the channels of the first image: emission, else excitation wavelength, else the number in the name.

    A key that has the same wavelength in every channel tells the bands nothing and is passed over for one that differs.
    """
    pixels = next((e for e in root.iter() if e.tag.endswith("Pixels")), None)
    channels = [] if pixels is None else [e for e in pixels if e.tag.endswith("Channel")]
    found: list[Listed] = []
    for key in ("EmissionWavelength", "ExcitationWavelength"):
        read = [read_list(c.get(key, "")) for c in channels]
        if channels and all(r is not None and r[0].size == 1 for r in read):
            values = [float(r[0][0]) for r in read if r is not None]
            found.append(per_band(values, [c.get(f"{key}Unit", "") for c in channels], f"OME-XML {key}"))
    if (named := in_texts([c.get("Name", "") for c in channels], "OME-XML channel names")) is not None:
        found.append(named)
    differing = [listed for listed in found if len(np.unique(listed.values)) == listed.size]
    return (differing or found or [None])[0]


def _numbers(value: Any) -> tuple[np.ndarray, str] | None:
    if isinstance(value, str):
        return _numbers(_json(value)) if value.lstrip().startswith("[") else read_list(value)
    if isinstance(value, list | tuple | np.ndarray):
        if len(value) and all(isinstance(v, str) for v in value):
            return read_list(list(value))
        try:
            array = np.asarray(value, dtype=np.float64).ravel()
        except (TypeError, ValueError):
            return None
        return (array, "") if array.size else None
    return None


def _json(text: str) -> Any:
    if len(text) > _MAX_TEXT or not text.lstrip().startswith(("{", "[")):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def parse_xml(text: str, path: Path, what: str = "OME-XML") -> ElementTree.Element:
    """The root of XML without entities; InputError for any that is damaged or has them."""
    if len(text) > _MAX_TEXT or "<!" in re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL):
        raise InputError(f"{what} holds what no image needs", path=path, found="a document type or entities")
    try:
        return ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError, RecursionError) as error:
        raise InputError(f"{what} is damaged", path=path, found=in_one_line(error)) from None


def _whole(text: str | None, path: Path) -> int:
    try:
        value = int(str(text))
    except ValueError:
        value = -1
    if value < 0:
        raise InputError("OME-XML is damaged", path=path, found=in_one_line(text)[:40], expected="a whole number")
    return value
