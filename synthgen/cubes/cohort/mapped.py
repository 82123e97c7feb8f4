"""The cubes of a cohort file mapped into memory: what is touched is read, and what memory is left keeps it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import h5py
import numpy as np

from synthgen.cubes.cohort.cohort import Cohort
from synthgen.cubes.cohort.hdf5 import dataset, open_hdf5
from synthgen.errors import InputError


class MappedCubes:
    """Cubes that lie in their file as they are: read past HDF5, by any number of threads, without its lock.

    Args:
        path: the file.
        offsets: int64 [N], the byte at which each cube begins.
        shape: [C, H, W] of a cube. dtype: of its stored values. divisor: stored value of reflectance 1.
    """

    def __init__(self, path: Path, offsets: np.ndarray, shape: tuple[int, ...], dtype: np.dtype, divisor: float):
        self.path, self.offsets, self.shape, self.dtype, self.divisor = path, offsets, shape, dtype, divisor
        self._file = open(path, "rb")  # noqa: SIM115 - a file renamed or removed under this name is read on from here
        self._bytes = np.memmap(self._file, mode="r")

    def read(self, index: Iterable[int], into: np.ndarray) -> None:
        """Reflectance of the cubes of `index` into float32 [n, C, H, W]: what `Cohort.cubes` gives, to the last bit.

        InputError when the file has been cut short: touching what is missing would end the process.
        """
        size = os.fstat(self._file.fileno()).st_size
        if size < len(self._bytes):
            found, expected = f"{size} bytes", f"{len(self._bytes)} bytes"
            raise InputError("the file has changed since it was opened", path=self.path, found=found, expected=expected)
        count = int(np.prod(self.shape))
        with np.errstate(over="ignore"):  # as in Cohort: `check_finite` refuses what becomes infinite
            for cube, i in zip(into, index, strict=True):
                stored = np.frombuffer(self._bytes, self.dtype, count, offset=int(self.offsets[i]))
                cube[...] = stored.reshape(self.shape)
                cube /= np.float32(self.divisor)


def map_cubes(cohort: Cohort) -> MappedCubes | None:
    """The cohort's cubes mapped; None where they are compressed or cut up, and only HDF5 can put them together."""
    with open_hdf5(cohort.path) as file:
        data = dataset(file, "cubes", cohort.path)
        assert data is not None, "the cohort is open"
        offsets, each = None if file.userblock_size else _offsets(data), data.dtype.itemsize * np.prod(data.shape[1:])
        if offsets is None or offsets.max() + each > cohort.path.stat().st_size:
            return None
        return MappedCubes(cohort.path, offsets, data.shape[1:], data.dtype, cohort.divisor)


def _offsets(data: h5py.Dataset) -> np.ndarray | None:
    """Where in the file each cube begins, where each lies in one piece and as it is."""
    each = data.dtype.itemsize * int(np.prod(data.shape[1:]))
    if data.chunks is None:
        first = data.id.get_offset()
        return None if first is None else first + each * np.arange(len(data), dtype=np.int64)
    if data.chunks[1:] != data.shape[1:] or data.id.get_create_plist().get_nfilters():
        return None
    many, found = data.chunks[0], np.full(len(data), -1, dtype=np.int64)

    def visit(chunk: h5py.h5d.StoreInfo) -> None:
        first = chunk.chunk_offset[0]
        here = np.arange(first, min(first + many, len(data)))
        found[here] = chunk.byte_offset + each * (here - first)

    data.id.chunk_iter(visit)
    return None if (found < 0).any() else found
