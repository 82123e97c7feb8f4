"""Careful reading of HDF5 files that others made: no links out of the file, no absurd sizes, one-line errors."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from synthgen.cubes.cohort.hdf5_heaps import check_references
from synthgen.errors import InputError, SynthgenError, must_exist

MAX_CUBE_VALUES = 2**30  # one cube is held in memory as float32: 4 GiB
MAX_SMALL_VALUES = 2**24  # wavelengths, patients, labels
# No HDF5 filter in use packs tighter than deflate does for zeros (1032 to 1): more than this was declared, not stored.
MAX_PACKING = 1100


@contextmanager
def open_hdf5(path: str | os.PathLike) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading; every failure of the library, here or in the body, becomes an InputError."""
    path = must_exist(path)
    with reading(path):
        size = path.stat().st_size
        if size == 0:
            raise InputError("is empty", path=path, expected="an HDF5 file")
        if not h5py.is_hdf5(path):
            raise InputError("is not an HDF5 file", path=path, found=f"{size} bytes of something else")
        try:
            file = h5py.File(path, "r", locking=False)
        except OSError as error:
            if "truncated" in str(error):
                raise InputError(
                    "HDF5 file is truncated", path=path, found=f"{size} bytes", remedy="copy or download it again"
                ) from error
            raise
        with file:
            yield file


@contextmanager
def reading(path: str | os.PathLike) -> Iterator[None]:
    """Turn what HDF5 and NumPy raise on a damaged file into one InputError that names it."""
    try:
        yield
    except SynthgenError:
        raise
    except PermissionError as error:
        raise InputError("no permission to read", path=path) from error
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.errno in _WRITER_ERRNO:
            raise
        reason = in_one_line(error)
        raise InputError(
            "cannot be read; the file is damaged", path=path, found=reason, remedy="copy or make the file again"
        ) from error


def in_one_line(found: object) -> str:
    """The first line of a text or of an error's message, fit to be shown: a file may have put anything into it."""
    text = (str(found).splitlines() or [""])[0] or type(found).__name__
    return "".join(c if c.isprintable() else "?" for c in text[:200])


_DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, OverflowError, MemoryError)
_WRITER_ERRNO = (28, 122)  # no space, quota: raised by a writer inside the body, not by this file


def dataset(file: h5py.File | h5py.Group, name: str, path: Path) -> h5py.Dataset | None:
    """The dataset `name` of the file, or None when there is none.

    InputError for a link (soft or external), for external raw storage and for a virtual dataset, since each of them
    reads other files than the one that was named; and for a group where a dataset should be.
    """
    group = file
    *parents, leaf = name.split("/")
    for part in [*parents, leaf]:
        if part not in group.keys():  # noqa: SIM118 - `in group` would follow a link
            return None
        if not isinstance(group.get(part, getlink=True), h5py.HardLink):
            raise InputError(f"'{name}' is a link", path=path, expected="data inside the file", remedy=_COPY)
        item = group[part]
        if part is not leaf and not isinstance(item, h5py.Group):
            return None
        group = item
    if not isinstance(group, h5py.Dataset):
        raise InputError(f"'{name}' is a group", path=path, expected="a dataset")
    if group.is_virtual or group.external:
        raise InputError(f"'{name}' lies in other files", path=path, expected="data inside the file", remedy=_COPY)
    return group


_COPY = "copy the data into one file (h5repack, or read and write it)"


def check_stored(data: h5py.Dataset, path: Path) -> None:
    """InputError when a dataset declares far more data than the file holds: reading it would fill the memory."""
    declared = data.size * data.dtype.itemsize
    stored = data.id.get_storage_size()
    if declared > max(stored, 1024) * MAX_PACKING:
        raise InputError(
            f"'{(data.name or '').lstrip('/')}' declares more data than the file holds",
            path=path,
            found=f"shape {data.shape} with {stored} bytes stored",
        )


def small(file: h5py.File, name: str, path: Path) -> np.ndarray | None:
    """All values of a small dataset (None when it is absent), texts decoded to str."""
    data = dataset(file, name, path)
    if data is None:
        return None
    if data.shape is None or data.size is None or data.size > MAX_SMALL_VALUES:
        raise InputError(f"'{name}' has an absurd size", path=path, found=f"shape {data.shape}")
    check_stored(data, path)
    if data.dtype.kind == "O":
        check_references(data, path)
    if h5py.check_string_dtype(data.dtype) is not None:
        values = np.atleast_1d(data.asstr(errors="replace")[()])
        return values.astype(str)
    if data.dtype.kind not in "uifb":
        raise InputError(f"'{name}' has an unusable type", path=path, found=data.dtype, expected="numbers or text")
    return np.atleast_1d(data[()])


def attribute(data: h5py.Dataset | h5py.File, name: str) -> float | None:
    """A number kept as attribute, or None when it is absent or is no single finite number."""
    if name not in data.attrs or data.attrs.get_id(name).dtype.kind not in "uif":
        return None
    value = np.asarray(data.attrs[name]).ravel()
    return float(value[0]) if value.size == 1 and np.isfinite(value[0]) else None


def attributes(item: h5py.Dataset | h5py.File) -> dict[str, Any]:
    """Every attribute: a number, a text, or for what cannot be shown in a line what it is.

    Texts of variable length are not read: nothing tells beforehand whether a damaged one asks for gigabytes.
    """
    found: dict[str, Any] = {}
    for name in item.attrs:
        header = item.attrs.get_id(name)
        if header.dtype.kind not in "uifbS" or int(np.prod(header.shape)) != 1:
            found[name] = "text of variable length" if header.dtype.kind == "O" else f"{header.dtype} {header.shape}"
            continue
        value = np.asarray(item.attrs[name]).ravel()[0]
        found[name] = value.decode(errors="replace") if isinstance(value, bytes) else value.item()
    return found
