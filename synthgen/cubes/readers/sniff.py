"""Which format a file has, detected from its first bytes and never from its name."""

from __future__ import annotations

from pathlib import Path

import h5py

from synthgen.cubes.cohort.hdf5 import reading
from synthgen.cubes.readers.formats.esri import is_esri_header
from synthgen.cubes.readers.formats.matlab import is_matlab5

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the last two: BigTIFF
_PICTURES = (b"\x89PNG\r\n\x1a\n", b"BM", b"\xff\xd8\xff")  # PNG, BMP, JPEG
HEAD_BYTES = 128


def sniff(path: Path) -> str | None:
    """hdf5, matlab73, matlab5, npy, npz, envi (the header of a raw file), tiff, picture, or None for anything else.

    Whatever has a kind here is a source in every folder: no mark may fit a file of another kind, nor our own .json.
    """
    with reading(path), open(path, "rb") as file:
        head = file.read(HEAD_BYTES)
    if head.startswith(b"\x93NUMPY"):
        return "npy"
    if head.startswith(_TIFF):
        return "tiff"
    if is_raw_header(head):
        return "envi"
    if head.startswith(b"PK\3\4"):
        return "npz"
    if head.startswith(_PICTURES):
        return "picture"
    if h5py.is_hdf5(path):
        return "matlab73" if head.startswith(b"MATLAB") else "hdf5"
    return "matlab5" if is_matlab5(head) else None


def is_raw_header(head: bytes) -> bool:
    """Whether a file begins as the header of a raw image: with the word ENVI on a line of its own, or as ESRI's do."""
    text = header_text(head)
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith(";")]
    return bool(lines) and (lines[0].lower() == "envi" or is_esri_header(text))


def header_text(data: bytes) -> str:
    """The text of a header, in UTF-8 or UTF-16 by its mark, else as Latin-1, which takes every byte."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", errors="replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")
