"""Seeds and numpy streams keyed by what they are for. Nothing here imports torch, so worker processes start quickly."""

from __future__ import annotations

import hashlib

import numpy as np


def key(*parts: int | str) -> int:
    """A 63-bit seed from any sequence of integers and words; the same on every machine."""
    text = "/".join(f"{type(p).__name__[0]}{p}" for p in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def numpy_stream(*parts: int | str) -> np.random.Generator:
    """A numpy generator of its own, keyed by `parts`."""
    return np.random.Generator(np.random.PCG64(key(*parts)))
