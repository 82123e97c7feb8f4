"""Seeds and numpy streams keyed by what they are for, and hashes of contents.

Nothing here imports torch, so worker processes start quickly.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np


def key(*parts: int | str) -> int:
    """A 63-bit seed from any sequence of integers and words; the same on every machine."""
    text = "/".join(f"{type(p).__name__[0]}{p}" for p in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def numpy_stream(*parts: int | str) -> np.random.Generator:
    """A numpy generator of its own, keyed by `parts`."""
    return np.random.Generator(np.random.PCG64(key(*parts)))


def content_hash(*parts: Any) -> str:
    """Hash of arrays, tensors, strings, bytes and plain values, independent of how they are stored (32 hex digits)."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        if hasattr(part, "detach"):
            part = part.detach().cpu().contiguous().numpy()
        if isinstance(part, np.ndarray):
            if part.dtype.kind in "OUS":
                data = "\0".join(str(x) for x in part.ravel()).encode()
                digest.update(f"text{part.shape}".encode())
            else:
                little = part.astype(part.dtype.newbyteorder("<"), copy=False)
                digest.update(f"{little.dtype.str}{little.shape}".encode())
                data = np.ascontiguousarray(little).tobytes()
            digest.update(data)
        else:
            data = part if isinstance(part, bytes) else repr(part).encode()
            digest.update(f"{type(part).__name__}{len(data)}".encode())
            digest.update(data)
    return digest.hexdigest()
