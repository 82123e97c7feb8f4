"""The element headers of a MATLAB v5-v7 file, checked before scipy reads it.

scipy takes the type of an array's data from the file as an index into a table; a damaged one ends the process. So every
numeric variable is walked here first, headers only (MAT-File Format, MathWorks, chapter 1): before each of the flags,
the dimensions, the name and the data there is a tag (type u4, bytes u4; or both in one word for up to four bytes).
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import IO

import numpy as np

from synthgen.errors import InputError

_MATRIX, _COMPRESSED, _INT8, _INT32, _UINT32, _UTF8 = 14, 15, 1, 5, 6, 16
# Stored types of numbers; a double that is whole is stored as a smaller integer.
STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_NUMERIC = range(6, 16)  # array classes double, single and the integers
_COMPLEX = 0x800  # flag
_HEAD = 4096  # bytes of a variable that hold all its headers; names have up to 63 characters, dimensions up to 32


@dataclass(frozen=True)
class Element:
    """A numeric variable: its values of `stored` type begin at byte `data` of what lies at byte `at` of the file."""

    name: str
    is_complex: bool
    stored: np.dtype
    data: int
    at: int = 0
    packed: bool = False


def check_elements(path: Path) -> dict[str, Element]:
    """The numeric variables by name; InputError when the headers of one do not fit the file."""
    size = path.stat().st_size
    found: dict[str, Element] = {}
    with open(path, "rb") as file:
        file.seek(126)
        order = "<" if file.read(2) == b"IM" else ">"
        at = 128
        while at + 8 <= size:
            file.seek(at)
            kind, count = struct.unpack(f"{order}II", file.read(8))
            after = at + 8 + count
            if kind not in (_MATRIX, _COMPRESSED) or after > size:
                shown = f"element {kind} of {count} bytes at byte {at} of {size}"
                raise InputError("MATLAB file is damaged or truncated", path=path, found=shown)
            head = file.read(min(count, _HEAD))
            packed = kind == _COMPRESSED
            if packed:
                head = zlib.decompressobj().decompress(head, _HEAD)
                kind = struct.unpack_from(f"{order}I", head)[0]
                head = head[8:]
            fits, element = _element(head, order) if kind == _MATRIX else (False, None)
            if not fits:
                contradiction = f"a variable at byte {at} that contradicts itself"
                raise InputError("MATLAB file is damaged", path=path, found=contradiction)
            if element is not None:
                # The tag of the matrix is packed with it.
                place = {"data": element.data + 8 * packed, "at": at + 8, "packed": packed}
                found[element.name] = replace(element, **place)
            at = after
    return found


def _element(head: bytes, order: str) -> tuple[bool, Element | None]:
    """From the headers of a matrix: whether they agree with each other, and the variable where it is of numbers.

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
        return False, None
    flags = struct.unpack_from(f"{order}I", head, data)[0]
    if flags & 0xFF not in _NUMERIC:
        return True, None
    kind, length, data, after = tag(after)
    if kind != _INT32 or length % 4 or not 8 <= length <= 4 * 32:
        return False, None
    shape = struct.unpack_from(f"{order}{length // 4}i", head, data)
    kind, length, data, after = tag(after)
    if kind not in (_INT8, _UTF8) or min(shape) < 0:
        return False, None
    name = head[data : data + length].decode(errors="replace")
    kind, length, values, _ = tag(after)
    if kind not in STORED or length != prod(shape) * np.dtype(STORED[kind]).itemsize:
        return False, None
    return True, Element(name, bool(flags & _COMPLEX), np.dtype(order + STORED[kind]), values)


def read_cube(path: Path, element: Element, shape: tuple[int, ...], axis: int, index: int) -> np.ndarray:
    """Of a variable of this MATLAB `shape` the part with `index` along `axis`, its first or last; as it is stored.

    MATLAB's first index varies fastest. Costs the memory of that part, packed or not.
    """
    rest = shape[:axis] + shape[axis + 1 :]
    count, step = prod(rest), element.stored.itemsize
    out = np.empty(count, element.stored)
    with open(path, "rb") as file:
        stream = Packed(file, element.at) if element.packed else file
        start = element.data if element.packed else element.at + element.data
        last = axis == len(shape) - 1
        stream.seek(start + index * count * step if last else start)
        stride, offset = (1, 0) if last else (shape[0], index)
        at_once = max(1, _AT_ONCE // (stride * step))
        for first in range(0, count, at_once):
            many = min(at_once, count - first)
            block = np.frombuffer(_exactly(stream, many * stride * step, path), element.stored)
            out[first : first + many] = block[offset::stride]
    return out.reshape(rest, order="F")


_AT_ONCE = 2**20  # bytes


def _exactly(stream: IO[bytes] | Packed, count: int, path: Path) -> bytes:
    data = stream.read(count)
    if len(data) != count:
        raise InputError("MATLAB file is damaged or truncated", path=path, remedy="copy the file again")
    return data


class Packed:
    """Forward reading of a deflated element."""

    def __init__(self, file: IO[bytes], at: int):
        self.file, self.inflate = file, zlib.decompressobj()
        file.seek(at)

    def seek(self, position: int) -> None:
        """From the start, once; past the end stays there."""
        while position > 0 and (some := self._some(min(position, _AT_ONCE))):
            position -= len(some)

    def read(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count and (some := self._some(count - len(data))):
            data += some
        return bytes(data)

    def _some(self, most: int) -> bytes:
        while not self.inflate.eof:
            packed = self.inflate.unconsumed_tail or self.file.read(2**16)
            if data := self.inflate.decompress(packed, most):
                return data
            if not packed:
                break
        return b""
