"""What the texts in a TIFF file say: OME-XML made safe, and the wavelengths of the bands."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile

from synthgen.cubes.cohort.hdf5 import in_one_line
from synthgen.cubes.readers.source import WAVELENGTH_NAMES
from synthgen.errors import InputError

_MAX_TEXT = 16 * 2**20
_TO_NM = {"nm": 1.0, "\u00b5m": 1e3, "\u03bcm": 1e3, "um": 1e3, "mm": 1e6, "m": 1e9, "\u00c5": 0.1}
_NUMBER = re.compile(r"(\d+(?:\.\d+)?)")
_LIKELY_NM = (200, 3000)


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
            raise InputError("OME-XML says more planes than there are", path=path, found=planes, expected=pages)
        for data in (e for e in pixels if e.tag.endswith("TiffData")):
            for key, value in data.attrib.items():
                if _whole(value, path) > pages:
                    found = in_one_line(f"{key} {value} of {pages} pages")
                    raise InputError("OME-XML says more planes than there are", path=path, found=found)
            names |= {str(e.get("FileName", "")) for e in data if e.tag.endswith("UUID")}
    if len(names) > 1:
        raise InputError("holds only some planes of its image", path=path, found=f"{len(names)} files", remedy=_ONE)
    return ElementTree.tostring(root, encoding="unicode")


_ONE = "save the image as one file"


def tiff_wavelengths(file: tifffile.TiffFile) -> tuple[str, np.ndarray | None]:
    """Where a TIFF file gives wavelengths and what they are in nm; None where it does not."""
    if file.is_ome:
        return _ome_wavelengths(ElementTree.fromstring(file.ome_metadata or "<OME/>"))
    for entry in description_tables(file):
        for key, value in entry.items():
            if str(key).lower() in WAVELENGTH_NAMES and (values := _numbers(value)) is not None:
                return f"TIFF description '{key}'", values
    labels = (file.imagej_metadata or {}).get("Labels") if file.is_imagej else None
    if isinstance(labels, list | tuple) and (values := _in_texts([str(text) for text in labels])) is not None:
        return "ImageJ labels", values
    if 1 < len(file.pages) < 5000:
        tags = [page.tags.get("PageName") if isinstance(page, tifffile.TiffPage) else None for page in file.pages]
        names = [str(tag.value) if tag is not None else "" for tag in tags]
        if all(names) and (values := _in_texts(names)) is not None:
            return "page names", values
    return "", None


def description_tables(file: tifffile.TiffFile) -> list[dict]:
    """What the descriptions of the first pages say with keys: JSON, or ImageJ's."""
    texts: list[Any] = []
    if file.is_shaped:
        texts += [dict(entry) for entry in file.shaped_metadata or ()]
    if file.is_imagej:
        texts.append(dict(file.imagej_metadata or {}))
    texts.append(_json(file.pages.first.description))
    return [entry for entry in texts if isinstance(entry, dict)]


def _ome_wavelengths(root: ElementTree.Element) -> tuple[str, np.ndarray | None]:
    """Of the channels of the first image: emission, else excitation wavelength, else the number in the name."""
    pixels = next((e for e in root.iter() if e.tag.endswith("Pixels")), None)
    channels = [] if pixels is None else [e for e in pixels if e.tag.endswith("Channel")]
    for key in ("EmissionWavelength", "ExcitationWavelength"):
        found = [_length(c.get(key), c.get(f"{key}Unit", "nm")) for c in channels]
        if channels and None not in found:
            return f"OME-XML {key}", np.array(found, float)
    named = _in_texts([c.get("Name", "") for c in channels]) if channels else None
    return ("OME-XML channel names", named) if named is not None else ("", None)


def _length(text: str | None, unit: str) -> float | None:
    try:
        return float(text) * _TO_NM[unit] if text is not None else None
    except (KeyError, ValueError):
        return None


def _in_texts(texts: list[str]) -> np.ndarray | None:
    """The one likely wavelength in each text, all different; None where a text has none."""
    found = [[float(n) for n in _NUMBER.findall(text) if _LIKELY_NM[0] <= float(n) <= _LIKELY_NM[1]] for text in texts]
    values = [numbers[0] for numbers in found if len(numbers) == 1]
    return np.array(values) if len(values) == len(texts) == len(set(values)) else None


def _numbers(value: Any) -> np.ndarray | None:
    if isinstance(value, str):
        value = _json(value)
    if isinstance(value, list | tuple | np.ndarray):
        try:
            array = np.asarray(value, dtype=np.float64).ravel()
        except (TypeError, ValueError):
            return None
        return array if array.size else None
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
