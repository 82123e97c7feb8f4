"""Raw files packed by gzip, as ENVI's `file compression` says: whether one is, how long it is unpacked, opening it."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from synthgen.cubes.cohort.hdf5 import MAX_PACKING
from synthgen.errors import InputError


def is_packed(raw: Path, image: int, declared: bool) -> bool:
    """Whether the raw file of an image of so many bytes is packed: stated so, or of another size and with gzip's mark.

    InputError where the header states it, and the file is neither gzip's nor of the plain size.
    """
    fits = raw.stat().st_size == image
    with open(raw, "rb") as file:
        marked = file.read(2) == b"\x1f\x8b"
    if declared and not marked and not fits:
        expected, remedy = "a raw file packed by gzip, or not packed", "unpack it"
        raise InputError("file compression cannot be read", path=raw, expected=expected, remedy=remedy)
    return marked and (declared or not fits)


def unpacked_size(raw: Path, image: int, line: int) -> int:
    """Bytes of a packed raw file once it is unpacked, counted up to a little more than the image and a line."""
    size, most = raw.stat().st_size, image + line
    if image > size * MAX_PACKING:
        return 0
    with open(raw, "rb") as file:
        file.seek(max(0, size - 4))
        stated = int.from_bytes(file.read(4), "little")  # of the last part, modulo 2**32
    if image <= stated < most:
        return stated
    done = 0
    try:
        with gzip.open(raw, "rb") as packed:
            while done <= most and (some := packed.read(2**20)):
                done += len(some)
    except (EOFError, OSError, zlib.error):
        return done
    return done


@contextmanager
def opened(raw: Path, packed: bool) -> Iterator[IO[bytes]]:
    """The raw file for reading, unpacked on the way; InputError where it is damaged."""
    try:
        with cast(IO[bytes], gzip.open(raw, "rb")) if packed else open(raw, "rb") as file:
            yield file
    except (EOFError, zlib.error) as error:
        raise InputError("packed raw file is damaged", path=raw, remedy="copy the file again") from error
