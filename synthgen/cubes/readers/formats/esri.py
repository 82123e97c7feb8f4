"""Headers of raw images in words without `=`: ESRI's (.bil, .bip, .bsq) and that of Photon Systems Instruments (PSI).

Both are a keyword and a value per line; PSI's cameras add wavelengths between WAVELENGTHS and WAVELENGTHS_END. What
they say is handed on in ENVI's terms. (ESRI, Extendable Image Formats, 1998; `PIXELTYPE` is GDAL's addition.)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from synthgen.cubes.cohort.hdf5 import in_one_line
from synthgen.errors import InputError

_LAYOUT = ("nbands", "nbits", "layout", "byteorder", "bandrowbytes", "totalrowbytes", "pixeltype", "skipbytes")
_KEYS = (*_LAYOUT, "nrows", "ncols", "bandgapbytes", "nodata", "wavelengths", "ulxmap", "ulymap", "xdim", "ydim")
_TYPES = {
    ("u", 8): 1, ("i", 16): 2, ("i", 32): 3, ("f", 32): 4, ("f", 64): 5, ("u", 16): 12, ("u", 32): 13, ("i", 64): 14,
    ("u", 64): 15,
}  # fmt: skip
_ORDERS = {
    "i": "0",
    "intel": "0",
    "lsbfirst": "0",
    "little": "0",
    "m": "1",
    "motorola": "1",
    "msbfirst": "1",
    "big": "1",
}
_KINDS = {"": "u", "unsignedint": "u", "signedint": "i", "float": "f"}


def is_esri_header(text: str) -> bool:
    """Whether the first lines are keywords of such a header, one of them about the layout of bytes."""
    keys = [line.split()[0].lower() for line in text.splitlines()[:-1] if line.split()]
    return len(keys) > 1 and all(key in _KEYS for key in keys[:2]) and any(key in _LAYOUT for key in keys)


def esri_fields(text: str, path: Path) -> dict[str, Any]:
    """The header in ENVI's terms, `notes` among them; InputError for a layout that ENVI's terms cannot express."""
    words, listed = _lines(text)

    def whole(name: str, default: int | None = None) -> int:
        try:
            return int(float(words.get(name, default)))  # pyright: ignore[reportArgumentType]
        except (TypeError, ValueError, OverflowError):
            found = in_one_line(words.get(name, "absent"))
            raise InputError(f"header: '{name.upper()}' is no whole number", path=path, found=found) from None

    rows, columns, bands = whole("nrows"), whole("ncols"), whole("nbands", 1)
    bits, layout = whole("nbits", 8), words.get("layout", "bil").lower()
    kind = _KINDS.get(words.get("pixeltype", "").lower())
    stored = 16 if kind == "u" and 8 < bits < 16 else bits  # PSI names the depth of the sensor, 12 bits in two bytes
    if kind is None or (kind, stored) not in _TYPES:
        found = f"NBITS {bits}, PIXELTYPE {in_one_line(words.get('pixeltype', 'absent'))}"
        raise InputError("header: type of numbers cannot be read", path=path, found=found, expected="8 to 64 bits")
    row = columns * stored // 8
    wanted = {"bandrowbytes": row, "totalrowbytes": row * bands if layout in ("bil", "bip") else row, "bandgapbytes": 0}
    if layout == "bip":
        del wanted["bandrowbytes"]
    for name, value in wanted.items():
        if name in words and whole(name) != value:
            expected, remedy = f"{value}, nothing between the lines", "save the image again without gaps"
            raise InputError(
                f"header: '{name.upper()}'", path=path, found=words[name], expected=expected, remedy=remedy
            )
    order = _ORDERS.get(words.get("byteorder", "").lower(), words.get("byteorder"))
    fields: dict[str, Any] = {
        "samples": columns, "lines": rows, "bands": bands, "header offset": whole("skipbytes", 0),
        "data type": _TYPES[kind, stored], "interleave": layout,
    }  # fmt: skip
    fields |= {"byte order": order} if order is not None else {}
    no_data = words.get("nodata", words.get("nodata_value"))
    fields |= {"data ignore value": no_data} if no_data is not None else {}
    if listed:
        fields["wavelength"] = listed
    fields["dialect"] = "PSI" if listed else "ESRI"
    if stored != bits:
        fields["notes"] = (f"the header says {bits} bits per value, read as two bytes each",)
    return fields


def _lines(text: str) -> tuple[dict[str, str], list[str]]:
    """Values by keyword in lower case, and what stands in the block of wavelengths."""
    words: dict[str, str] = {}
    listed: list[str] = []
    inside = False
    for line in text.splitlines():
        key, _, value = line.strip().replace("\t", " ").partition(" ")
        if key.lower() in ("wavelengths", "wavelengths_end"):
            inside = key.lower() == "wavelengths"
            listed += [value.strip()] if inside and value.strip() else []
        elif inside:
            listed += [line.strip()] if line.strip() else []
        elif key and not key.startswith("#"):
            words[key.lower()] = value.strip()
    return words, listed
