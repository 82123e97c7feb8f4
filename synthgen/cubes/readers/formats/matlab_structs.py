"""Structs and texts in a MATLAB v5-v7 file: their numeric fields by name ('scan.cube'), read without scipy.

scipy would build the whole struct, and takes the types inside from the file unchecked (see `matlab_elements`). Here the
elements are walked by their headers (MAT-File Format, MathWorks, chapter 1): a struct is its flags, dimensions, name,
the length of its field names, these names, and then one matrix after the other.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import IO

import numpy as np

from synthgen.cubes.cohort.hdf5 import MAX_PACKING
from synthgen.cubes.readers.formats.matlab_elements import STORED, Element, Packed, read_cube
from synthgen.errors import InputError

_MATRIX, _COMPRESSED, _UTF8, _UTF16, _UINT16 = 14, 15, 16, 17, 4
_STRUCT, _CHAR = 2, 4
CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
_COMPLEX = 0x800
_DEEPEST, _MOST_FIELDS, _LONGEST_TEXT = 8, 1000, 4096


@dataclass(frozen=True)
class Field:
    """A numeric field of a struct: its shape and MATLAB's type, and where its values are."""

    shape: tuple[int, ...]
    dtype: np.dtype
    element: Element


@dataclass(frozen=True)
class Contents:
    """Numeric fields and short texts of a file, by name; texts at the top of the file, too."""

    fields: dict[str, Field]
    texts: dict[str, str]


def contents_of(path: Path) -> Contents:
    """What the structs of the file hold; InputError where an element contradicts itself."""
    stat = path.stat()
    return _contents(path, stat.st_size, stat.st_mtime_ns)


def read_field(path: Path, field: Field, axis: int | None = None, index: int = 0) -> np.ndarray:
    """The values of a field, or the part with `index` along its first or last axis."""
    shape, inner = field.shape, axis is not None and axis not in (0, len(field.shape) - 1)
    if axis is None or inner:
        whole = read_cube(path, field.element, (1, *shape), 0, 0).astype(field.dtype, copy=False)
        return whole if axis is None else whole.take(index, axis)
    return read_cube(path, field.element, shape, axis, index).astype(field.dtype, copy=False)


@lru_cache(maxsize=4)
def _contents(path: Path, size: int, mtime_ns: int) -> Contents:
    found = Contents({}, {})
    with open(path, "rb") as file:
        file.seek(126)
        order = "<" if file.read(2) == b"IM" else ">"
        at = 128
        while at + 8 <= size:
            file.seek(at)
            kind, count = struct.unpack(f"{order}II", file.read(8))
            if kind == _MATRIX:
                _Walk(file, order, at + 8, False, path, count, found).matrix(0, count, "", 0)
            elif kind == _COMPRESSED:
                walk = _Walk(Packed(file, at + 8), order, at + 8, True, path, count * MAX_PACKING, found)
                inner, length = struct.unpack(f"{order}II", walk.take(0, 8))
                if inner == _MATRIX:
                    walk.matrix(8, length, "", 0)
            at += 8 + count
    return found


class _Walk:
    """Over the elements of one variable, forwards; positions count from byte `at` of the file, packed or not."""

    def __init__(
        self, stream: IO[bytes] | Packed, order: str, at: int, packed: bool, path: Path, size: int, to: Contents
    ):
        self.stream, self.order, self.at, self.packed, self.path, self.size, self.to = (
            stream, order, at, packed, path, size, to,
        )  # fmt: skip
        self.place = 0 if packed else None

    def take(self, position: int, count: int) -> bytes:
        if position + count > self.size:
            raise self._damaged()
        if self.place is None:
            self.stream.seek(self.at + position)
        else:
            self.stream.seek(position - self.place)  # forwards by so many bytes
            self.place = position + count
        data = self.stream.read(count)
        if len(data) != count:
            raise self._damaged()
        return data

    def tag(self, position: int) -> tuple[int, int, int, int]:
        """Type, bytes, where the data begins and where the next element does."""
        raw = self.take(position, 8)
        word, length = struct.unpack(f"{self.order}II", raw)
        if word >> 16:
            if word >> 16 > 4:
                raise self._damaged()
            self._small = raw[4 : 4 + (word >> 16)]
            return word & 0xFFFF, word >> 16, position + 4, position + 8
        self._small = None
        return word, length, position + 8, position + 8 + (length + 7) // 8 * 8

    def data(self, tag: tuple[int, int, int, int], most: int) -> bytes:
        if tag[1] > most:
            raise self._damaged()
        return self._small if self._small is not None else self.take(tag[2], tag[1])

    def matrix(self, start: int, length: int, name: str, depth: int) -> None:
        """A matrix of `length` bytes at `start`: of a struct the fields, of numbers their place, of a text the text."""
        end = start + length
        if length == 0:
            return  # an empty field
        tag = self.tag(start)
        flags = struct.unpack(f"{self.order}I", self.data(tag, 8)[:4])[0]
        kind = flags & 0xFF
        if kind not in CLASSES and kind not in (_STRUCT, _CHAR):
            return
        tag = self.tag(tag[3])
        raw = self.data(tag, 4 * 32)
        shape = struct.unpack(f"{self.order}{len(raw) // 4}i", raw)
        tag = self.tag(tag[3])
        own = self.data(tag, 64).decode(errors="replace")
        name = name or own
        if len(shape) < 2 or min(shape) < 0:
            raise self._damaged()
        if kind == _STRUCT:
            self._struct(tag[3], end, shape, name, depth)
        elif depth > 0 and kind in CLASSES and not flags & _COMPLEX:
            self._numbers(tag[3], end, shape, name, kind)
        elif kind == _CHAR and prod(shape) <= _LONGEST_TEXT:
            self._text(tag[3], name)

    def _struct(self, at: int, end: int, shape: tuple[int, ...], name: str, depth: int) -> None:
        tag = self.tag(at)
        width = struct.unpack(f"{self.order}i", self.data(tag, 4))[0]
        tag = self.tag(tag[3])
        names = self.data(tag, 64 * _MOST_FIELDS)
        if not 0 < width <= 64 or depth >= _DEEPEST:
            raise self._damaged()
        fields = [names[k : k + width].split(b"\0")[0].decode(errors="replace") for k in range(0, len(names), width)]
        at, count = tag[3], prod(shape)
        for number, field in _in_order(count, fields):
            if at + 8 > end or len(self.to.fields) > _MOST_FIELDS:
                return
            kind, length, data, after = self.tag(at)
            if kind != _MATRIX or data + length > end:
                raise self._damaged()
            self.matrix(data, length, f"{name}({number}).{field}" if count > 1 else f"{name}.{field}", depth + 1)
            at = after

    def _numbers(self, at: int, end: int, shape: tuple[int, ...], name: str, kind: int) -> None:
        stored, length, data, _ = self.tag(at)
        fits = stored in STORED and length == prod(shape) * np.dtype(STORED[stored]).itemsize
        if not fits or data + length > min(end, self.size):
            raise self._damaged()
        element = Element(name, False, np.dtype(self.order + STORED[stored]), data, self.at, self.packed)
        self.to.fields[name] = Field(shape, np.dtype(CLASSES[kind]), element)

    def _text(self, at: int, name: str) -> None:
        tag = self.tag(at)
        raw = self.data(tag, 4 * _LONGEST_TEXT)
        wide = "utf-16-le" if self.order == "<" else "utf-16-be"
        coding = {_UINT16: wide, _UTF16: wide, _UTF8: "utf-8"}.get(tag[0], "latin-1")
        self.to.texts[name] = raw.decode(coding, errors="replace")

    def _damaged(self) -> InputError:
        found = f"a struct at byte {self.at - 8} that contradicts itself"
        return InputError("MATLAB file is damaged", path=self.path, found=found, remedy="copy the file again")


def _in_order(count: int, fields: list[str]) -> Iterator[tuple[int, str]]:
    for number in range(1, count + 1):
        for field in fields:
            yield number, field
