"""Which format a file has, told by its first bytes and never by its name."""

from __future__ import annotations

from pathlib import Path

import h5py

from synthgen.cubes.cohort.hdf5 import reading
from synthgen.cubes.readers.formats.matlab import is_matlab5

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the last two: BigTIFF
_PICTURES = (b"\x89PNG\r\n\x1a\n", b"BM", b"\xff\xd8\xff")  # PNG, BMP, JPEG
HEAD_BYTES = 128


def sniff(path: Path) -> str | None:
    """hdf5, matlab73, matlab5, npy, npz, envi (a header), tiff, picture, or None for what is none of them."""
    with reading(path), open(path, "rb") as file:
        head = file.read(HEAD_BYTES)
    if head.startswith(b"\x93NUMPY"):
        return "npy"
    if head.startswith(_TIFF):
        return "tiff"
    if is_envi_header(head):
        return "envi"
    if head.startswith(b"PK\3\4"):
        return "npz"
    if head.startswith(_PICTURES):
        return "picture"
    if h5py.is_hdf5(path):
        return "matlab73" if head.startswith(b"MATLAB") else "hdf5"
    return "matlab5" if is_matlab5(head) else None


def is_envi_header(head: bytes) -> bool:
    """Whether a file begins with the word ENVI on a line of its own."""
    lines = head.removeprefix(b"\xef\xbb\xbf").splitlines()
    return bool(lines) and lines[0].strip() == b"ENVI"
