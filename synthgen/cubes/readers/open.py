"""Opening a user's file or folder as a source of raw cubes.

Cohort files and other HDF5, MATLAB v5 and v7.3, NumPy, ENVI, TIFF and OME-TIFF, a folder of one picture per band. The
format is detected from the first bytes of the file, not its name. Nothing in a file is executed: no pickle, no link to
another file, and no size is believed that the file cannot hold.
"""

from __future__ import annotations

import os

from synthgen.cubes.cohort.hdf5 import reading
from synthgen.cubes.readers.folders import SUFFIXES, find_sources
from synthgen.cubes.readers.formats.envi import open_envi
from synthgen.cubes.readers.formats.envi_files import header_of
from synthgen.cubes.readers.formats.hdf5_cubes import open_hdf5_cubes
from synthgen.cubes.readers.formats.matlab import open_matlab5
from synthgen.cubes.readers.formats.numpy_files import open_npy, open_npz
from synthgen.cubes.readers.formats.pictures import open_pictures
from synthgen.cubes.readers.formats.tiff import open_tiff
from synthgen.cubes.readers.sniff import HEAD_BYTES, sniff
from synthgen.cubes.readers.source import Hints, Source
from synthgen.errors import InputError, must_exist

FORMATS = (
    "a cohort file or other HDF5, MATLAB (.mat v5 or v7.3), NumPy (.npy, .npz), ENVI (.hdr and its raw file), TIFF or "
    "OME-TIFF, or a folder of one picture per band"
)

__all__ = ["FORMATS", "NO_HINTS", "SUFFIXES", "Hints", "find_sources", "open_source"]

NO_HINTS = Hints()


def open_source(path: str | os.PathLike, hints: Hints = NO_HINTS) -> Source:
    """Open a file of any known format, or a folder of one picture per band; InputError names what is wrong with it.

    An ENVI file may be named by its header or by its raw file.
    """
    path = must_exist(path, "any")
    with reading(path):
        if path.is_dir():
            return open_pictures(path, hints)
        if path.stat().st_size == 0:
            raise InputError("is empty", path=path, expected=FORMATS)
        kind = sniff(path)
        if kind == "npy":
            return open_npy(path, hints)
        if kind == "npz":
            return open_npz(path, hints)
        if kind in ("hdf5", "matlab73"):
            return open_hdf5_cubes(path, hints, matlab=kind == "matlab73")
        if kind == "matlab5":
            return open_matlab5(path, hints)
        if kind == "tiff":
            return open_tiff(path, hints)
        if kind == "envi":
            return open_envi(path, hints)
        if kind is None and (header := header_of(path)) is not None:
            return open_envi(header, hints, raw=path)
        with open(path, "rb") as file:
            head = file.read(HEAD_BYTES)
    if kind == "picture":
        remedy = "name the folder that holds one picture per band"
        raise InputError("is a single picture", path=path, expected=FORMATS, remedy=remedy)
    raise InputError("is of no format that can be read", path=path, found=f"first bytes {head[:8]!r}", expected=FORMATS)
