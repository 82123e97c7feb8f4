"""Blocks of tokens as bytes: codebook indices bit-packed, base spectra as float16; exact both ways, numpy alone.

A block of n cubes is one tar member `<key>.tokens` beside `<key>.json`. All numbers are little-endian; in this order:

    ids      int64    [n]
    indices  uint8    [n, ceil(L*h*w*bits / 8)]   each cube's codes, `bits` bits each, lowest bit first
    base     float16  [n, C, G, G]                mean log-reflectance per band and cell (nothing where G = 0)
    scores   float16  [n, k]                      what the per-cube gates measured (nothing without gates)

and the JSON holds `count`, `indices` ([L, h, w]), `bits`, `base` ([C, G, G]), `scores` (k names), `generator_hash`,
`seed`. Reading it anywhere takes numpy and these lines:

    def unpack(header, data):
        n, bits, shape = header["count"], header["bits"], header["indices"]
        codes = int(np.prod(shape))
        row = -(-codes * bits // 8)
        ids = np.frombuffer(data, "<i8", n)
        packed = np.frombuffer(data, "u1", n * row, offset=8 * n).reshape(n, row)
        ones = np.unpackbits(packed, axis=1, count=codes * bits, bitorder="little").reshape(n, codes, bits)
        indices = (ones.astype(np.int32) << np.arange(bits, dtype=np.int32)).sum(-1).reshape(n, *shape)
        base, scores = np.split(np.frombuffer(data, "<f2", offset=(8 + row) * n), [n * int(np.prod(header["base"]))])
        return ids, indices, base.reshape(n, *header["base"]), scores.reshape(n, len(header["scores"]))
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from synthgen.contracts import Tokens
from synthgen.errors import InputError

MAX_BITS = 17  # a code shifted by up to 7 bits still fits into the three bytes that `unpack_bits` looks at


def pack_bits(codes: np.ndarray, bits: int) -> np.ndarray:
    """Codes [n, k] in [0, 2^bits) -> uint8 [n, ceil(k*bits/8)], lowest bit first, every row padded to whole bytes."""
    if not 1 <= bits <= MAX_BITS:
        raise ValueError(f"bits must be 1 to {MAX_BITS}, not {bits}")
    if codes.size and (codes.min() < 0 or codes.max() >= 1 << bits):
        raise ValueError(f"codes must lie in [0, {1 << bits}), found [{codes.min()}, {codes.max()}]")
    ones = (codes[:, :, None].astype(np.int32) >> np.arange(bits, dtype=np.int32)) & 1
    return np.packbits(ones.astype(np.uint8).reshape(len(codes), -1), axis=1, bitorder="little")


def unpack_bits(packed: np.ndarray, bits: int, count: int) -> np.ndarray:
    """The inverse of `pack_bits`: uint8 [n, row] -> int32 [n, count].

    Eight codes fill `bits` whole bytes, so code j of every group of eight starts at the same byte and bit: eight
    strided passes, several times faster than numpy's one byte per bit.
    """
    groups = -(-count // 8)
    padded = np.zeros((len(packed), groups * bits + 2), np.uint8)
    padded[:, : packed.shape[1]] = packed
    codes = np.empty((len(packed), groups, 8), np.int32)
    for j in range(8):
        first, shift = divmod(j * bits, 8)
        three = (padded[:, first + k :: bits][:, :groups].astype(np.int32) << 8 * k for k in range(3))
        codes[:, :, j] = (sum(three) >> shift) & ((1 << bits) - 1)
    return codes.reshape(len(packed), -1)[:, :count]


def pack_block(tokens: Tokens, seed: int, scores: Mapping[str, Tensor] | None = None) -> tuple[dict[str, Any], bytes]:
    """A block's JSON header and its bytes; `bits` is what the largest code of the block needs. scores: [n] by name."""
    indices, scores = tokens.indices.cpu().numpy(), scores or {}
    table = np.stack([scores[k].cpu().numpy() for k in sorted(scores)], 1) if scores else np.zeros((len(tokens), 0))
    bits = max(1, int(indices.max(initial=0)).bit_length())
    header = {
        "count": len(tokens),
        "indices": list(indices.shape[1:]),
        "bits": bits,
        "base": list(tokens.base.shape[1:]),
        "scores": sorted(scores),
        "generator_hash": tokens.generator_hash,
        "seed": seed,
        "is_synthetic": True,
    }
    parts = (
        tokens.id.cpu().numpy().astype("<i8"),
        pack_bits(indices.reshape(len(tokens), -1), bits),
        tokens.base.cpu().numpy().astype("<f2"),
        table.clip(-65504, 65504).astype("<f2"),
    )
    return header, b"".join(part.tobytes() for part in parts)


def unpack_block(header: dict[str, Any], data: bytes) -> Tokens:
    """The inverse of `pack_block`; InputError when header and bytes do not belong together."""
    try:
        n, bits, shape, base_shape = header["count"], header["bits"], header["indices"], header["base"]
        codes, row = int(np.prod(shape)), -(-int(np.prod(shape)) * bits // 8)
        ids = np.frombuffer(data, "<i8", n)
        packed = np.frombuffer(data, "u1", n * row, offset=8 * n).reshape(n, row)
        base = np.frombuffer(data, "<f2", n * int(np.prod(base_shape)), offset=(8 + row) * n).reshape(n, *base_shape)
        generator_hash = header["generator_hash"]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError("a block of tokens does not match its header", found=str(error)) from None
    return Tokens(
        torch.from_numpy(unpack_bits(packed, bits, codes).reshape(n, *shape)),
        torch.from_numpy(base.astype(np.float16)),
        torch.from_numpy(ids.astype(np.int64)),
        generator_hash,
    )


def scores_of(header: Mapping[str, Any], data: bytes) -> dict[str, np.ndarray]:
    """What the per-cube gates measured of a block's cubes: float32 [n] by name, to three digits; {} without gates."""
    n, names = header["count"], header.get("scores", [])
    if not names:
        return {}
    table = np.frombuffer(data, "<f2", offset=len(data) - 2 * n * len(names))
    return dict(zip(names, table.reshape(n, len(names)).astype(np.float32).T, strict=True))
