"""Plain reads of one cube out of an array that lies uncompressed in a file.

Not memory maps: a mapped file that somebody cuts short while it is read ends the process with SIGBUS, a plain read
comes back short and becomes an error.
"""

from __future__ import annotations

import zipfile
from math import prod
from pathlib import Path
from typing import IO

import numpy as np

from synthgen.cubes.readers.source import native
from synthgen.errors import InputError


def read_part(
    file: IO[bytes], path: Path, start: int, shape: tuple[int, ...], dtype: np.dtype, axis: int | None, index: int = 0
) -> np.ndarray:
    """Of an array in C order at byte `start` the part with `index` along `axis` (all of it when None), native bytes.

    Costs the memory of that part. InputError when the file ends before the array does.
    """
    if axis is None:
        outer, inner, rest = 1, prod(shape), shape
        stride = inner
        index = 0
    else:
        outer, inner = prod(shape[:axis]), prod(shape[axis + 1 :])
        stride = inner * shape[axis]
        rest = shape[:axis] + shape[axis + 1 :]
    out = np.empty((outer, inner), dtype)
    for k in range(outer):
        _go_to(file, start + (k * stride + index * inner) * dtype.itemsize)
        _fill(file, out[k], path)
    return native(out.reshape(rest))


def _go_to(file: IO[bytes], position: int) -> None:
    if isinstance(file, zipfile.ZipExtFile) and position >= file.tell():
        while (left := position - file.tell()) > 0 and file.read(min(left, 2**20)):
            pass  # its own `seek` unpacks 16 MB at a time, twice over
    else:
        file.seek(position)


def _fill(file: IO[bytes], row: np.ndarray, path: Path) -> None:
    view = row.view(np.uint8).data
    done = 0
    while done < len(view):
        got = file.readinto(view[done : done + 2**20])  # zip members are not bounded by their declared size
        if not got:
            raise InputError("is shorter than its header says", path=path, remedy="copy the file again")
        done += got
