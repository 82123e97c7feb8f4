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


def text_attribute(item: h5py.HLObject, name: str, path: Path) -> str | None:
    """A short text kept as attribute, of fixed or of variable length; None for anything else and for a damaged one.

    HDF5 does not read the one of variable length before its reference has been found in the file and its heap walked.
    """
    header = item.attrs.get_id(name)
    kind, count = header.dtype, int(np.prod(header.shape, dtype=np.int64))
    if count != 1 or kind.itemsize > _LONGEST:
        return None
    if kind.kind == "O" and (h5py.check_string_dtype(kind) is None or not _is_sound(item, name, path)):
        return None
    value = np.asarray(item.attrs[name]).ravel()[0] if kind.kind in "OSU" else None
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value) if kind.kind in "OU" else None


_LONGEST, _NEAR = (
    4096,
    2**16,
)  # bytes of a text that is read; behind an object's header, where its attributes mostly lie


def _is_sound(item: h5py.HLObject, name: str, path: Path) -> bool:
    """Whether references of attributes of this name can be followed: those near the object's header, else all."""
    key, size = name.encode() + b"\0", path.stat().st_size
    base = item.file.userblock_size  # addresses count from behind it
    first = int(h5py.h5o.get_info(item.id).addr) + base
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for start, end in ((first, min(first + _NEAR, size)), (0, size)):
            found = _references(data, key, start, end)
            if found:
                return all(length <= _LONGEST and _one_heap(data, heap + base, size) for length, heap in found)
    return False


def _references(data: mmap.mmap, key: bytes, start: int, end: int) -> list[tuple[int, int]]:
    """Length and heap of what attribute messages named `key` refer to (IV.A.2.m: version, flags, three sizes, name)."""
    found, at = [], data.find(key, start, end)
    while at >= 0:
        for version, before, padded in ((1, 8, True), (2, 8, False), (3, 9, False)):
            head = data[max(0, at - before) : at]
            if len(head) < before or head[0] != version or int.from_bytes(head[2:4], "little") != len(key):
                continue
            sizes = [int.from_bytes(head[k : k + 2], "little") for k in (2, 4, 6)]
            values = at + sum((n + 7) // 8 * 8 if padded else n for n in sizes)
            raw = data[values : values + _REFERENCE.itemsize]
            if len(raw) == _REFERENCE.itemsize:
                length, heap, _ = np.frombuffer(raw, _REFERENCE)[0].tolist()
                found.append((length, heap))
        at = data.find(key, at + 1, end)
    return found


def _one_heap(data: mmap.mmap, heap: int, size: int) -> bool:
    """Whether there is a heap at this byte whose objects can be walked."""
    return data[heap : heap + len(_HEAP)] == _HEAP and _walk(data, heap, size) is None


@lru_cache(maxsize=64)
def _heap_fault(path: Path, size: int, mtime_ns: int) -> str | None:
    """What is wrong with a heap of the file, or None.

    A heap is a row of objects: index u2, references u2, four bytes, size u8, then the data padded to 8 bytes. Object 0
    is the free rest, its size counted with its header.
    """
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        heap = data.find(_HEAP)
        while heap >= 0:
            if (fault := _walk(data, heap, size)) is not None:
                return fault
            heap = data.find(_HEAP, heap + 8)
    return None


def _walk(data: mmap.mmap, heap: int, size: int) -> str | None:
    """What is wrong with the heap at this byte, or None."""
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
    return None
