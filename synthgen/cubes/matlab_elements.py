"""The element headers of a MATLAB v5-v7 file, checked before scipy reads it.

scipy takes the type of an array's data from the file as an index into a table; a damaged one ends the process. So every
numeric variable is walked here first, headers only (MAT-File Format, MathWorks, chapter 1): before each of the flags,
the dimensions, the name and the data there is a tag (type u4, bytes u4; or both in one word for up to four bytes).
"""

from __future__ import annotations

import struct
import zlib
from math import prod
from pathlib import Path

from synthgen.errors import InputError

_MATRIX, _COMPRESSED, _INT8, _INT32, _UINT32, _UTF8 = 14, 15, 1, 5, 6, 16
_ITEM_BYTES = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8, 12: 8, 13: 8}  # stored types of numbers
_NUMERIC = range(6, 16)  # array classes double, single and the integers
_COMPLEX = 0x800  # flag
_HEAD = 4096  # bytes of a variable that hold all its headers; names have up to 63 characters, dimensions up to 32


def check_elements(path: Path) -> frozenset[str]:
    """Names of the complex variables; InputError when the headers of a numeric one do not fit the file."""
    size = path.stat().st_size
    complex_ones = set()
    with open(path, "rb") as file:
        file.seek(126)
        order = "<" if file.read(2) == b"IM" else ">"
        at = 128
        while at + 8 <= size:
            file.seek(at)
            kind, count = struct.unpack(f"{order}II", file.read(8))
            after = at + 8 + count
            if kind not in (_MATRIX, _COMPRESSED) or after > size:
                found = f"element {kind} of {count} bytes at byte {at} of {size}"
                raise InputError("MATLAB file is damaged or truncated", path=path, found=found)
            head = file.read(min(count, _HEAD))
            if kind == _COMPRESSED:
                head = zlib.decompressobj().decompress(head, _HEAD)
                kind = struct.unpack_from(f"{order}I", head)[0]
                head = head[8:]
            name = _complex_name(head, order) if kind == _MATRIX else None
            if name is None:
                found = f"a variable at byte {at} that contradicts itself"
                raise InputError("MATLAB file is damaged", path=path, found=found)
            complex_ones.add(name)
            at = after
    return frozenset(complex_ones - {""})


def _complex_name(head: bytes, order: str) -> str | None:
    """From the headers of a matrix: its name if it is complex, "" if not, None if the headers contradict each other.

    Classes other than numbers are left to scipy, which reads no more than their names here.
    """

    def tag(at: int) -> tuple[int, int, int, int]:
        """Type, bytes, where the data starts and where the next element does."""
        word, length = struct.unpack_from(f"{order}II", head, at)
        if word >> 16:  # small element: type and length share a word, the data is the next
            return word & 0xFFFF, word >> 16, at + 4, at + 8
        return word, length, at + 8, at + 8 + (length + 7) // 8 * 8

    kind, length, data, after = tag(0)
    if kind != _UINT32 or length != 8:
        return None
    flags = struct.unpack_from(f"{order}I", head, data)[0]
    if flags & 0xFF not in _NUMERIC:
        return ""
    kind, length, data, after = tag(after)
    if kind != _INT32 or length % 4 or not 8 <= length <= 4 * 32:
        return None
    shape = struct.unpack_from(f"{order}{length // 4}i", head, data)
    kind, length, data, after = tag(after)
    if kind not in (_INT8, _UTF8) or min(shape) < 0:
        return None
    name = head[data : data + length].decode(errors="replace")
    kind, length, _, _ = tag(after)
    if kind not in _ITEM_BYTES or length != prod(shape) * _ITEM_BYTES[kind]:
        return None
    return name if flags & _COMPLEX else ""
