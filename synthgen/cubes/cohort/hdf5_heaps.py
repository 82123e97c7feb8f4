"""The heaps of an HDF5 file, where texts of variable length lie, checked before HDF5 reads them.

HDF5 believes two things there that a damaged file can turn against it: it walks the objects of a heap by their sizes,
without end when a size is zero, and it reserves as many bytes as a reference asks for. Layouts: HDF5 File Format
Specification, III.E (global heap) and IV.A.2.d, variable-length data.
"""

from __future__ import annotations

import mmap
from functools import lru_cache
from pathlib import Path

import h5py
import numpy as np

from synthgen.errors import InputError

_HEAP = b"GCOL\1\0\0\0"  # signature, version 1, three zero bytes; the size of the heap follows
_REFERENCE = np.dtype([("bytes", "<u4"), ("heap", "<u8"), ("object", "<u4")])


def check_references(data: h5py.Dataset, path: Path) -> None:
    """Before a dataset of variable length is read: InputError when its references or a heap of the file are damaged."""
    stat = path.stat()
    fault = _heap_fault(path, stat.st_size, stat.st_mtime_ns)
    if fault is None:
        for raw in _stored(data, path):
            longest = int(np.frombuffer(raw, _REFERENCE, len(raw) // _REFERENCE.itemsize)["bytes"].max(initial=0))
            if longest > stat.st_size:
                fault = f"a text of {longest} bytes"
    if fault is not None:
        raise InputError(
            "HDF5 texts are damaged", path=path, found=fault, remedy="make the file again, or copy it with h5repack"
        )


def _stored(data: h5py.Dataset, path: Path) -> list[bytes]:
    """The dataset as it is stored; nothing where a filter packs it, whose own checks find damage."""
    if data.chunks is None:
        offset = data.id.get_offset()
        if offset is None:
            return []
        with open(path, "rb") as file:
            file.seek(offset)
            return [file.read(int(np.prod(data.shape)) * _REFERENCE.itemsize)]
    if data.id.get_create_plist().get_nfilters():
        return []
    chunks = [data.id.get_chunk_info(i).chunk_offset for i in range(data.id.get_num_chunks())]
    return [data.id.read_direct_chunk(offset)[1] for offset in chunks]


@lru_cache(maxsize=64)
def _heap_fault(path: Path, size: int, mtime_ns: int) -> str | None:
    """What is wrong with a heap of the file, or None.

    A heap is a row of objects: index u2, references u2, four bytes, size u8, then the data padded to 8 bytes. Object 0
    is the free rest, its size counted with its header.
    """
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        heap = data.find(_HEAP)
        while heap >= 0:
            end = heap + int.from_bytes(data[heap + 8 : heap + 16], "little")
            if end > size:
                return f"a heap of {end - heap} bytes at byte {heap} of {size}"
            at = heap + 16
            while at + 16 <= end:
                index = int.from_bytes(data[at : at + 2], "little")
                length = int.from_bytes(data[at + 8 : at + 16], "little")
                step = length if index == 0 else 16 + (length + 7) // 8 * 8
                if step < 16 or at + step > end:
                    return f"an object of {length} bytes in the heap at byte {heap}"
                at += step
            heap = data.find(_HEAP, heap + 8)
    return None
