"""Bit packing is exact, and the ten lines in the documentation read a block."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from synthgen.contracts import Tokens
from synthgen.errors import InputError
from synthgen.shards import packing


@pytest.mark.parametrize("bits", [1, 3, 8, 10, 13, 16, 17])
def test_bits_round_trip(bits: int) -> None:
    codes = np.random.default_rng(bits).integers(0, 1 << bits, (7, 61))
    packed = packing.pack_bits(codes, bits)
    assert packed.shape == (7, -(-61 * bits // 8))
    assert np.array_equal(packing.unpack_bits(packed, bits, 61), codes)


def test_codes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="codes must lie"):
        packing.pack_bits(np.array([[1024]]), 10)


def _tokens(n: int = 5, base: int = 4) -> Tokens:
    draw = torch.Generator().manual_seed(0)
    indices = torch.randint(1024, (n, 2, 6, 6), generator=draw, dtype=torch.int32)
    return Tokens(indices, torch.randn(n, 16, base, base, generator=draw).half(), torch.arange(n) * 3, "abc")


@pytest.mark.parametrize("base", [4, 0])
def test_block_round_trip(base: int) -> None:
    tokens = _tokens(base=base)
    back = packing.unpack_block(*packing.pack_block(tokens, seed=1))
    assert back.generator_hash == "abc"
    for one, other in ((tokens.indices, back.indices), (tokens.base, back.base), (tokens.id, back.id)):
        assert one.dtype == other.dtype and torch.equal(one, other)


def test_the_documented_unpacker_reads_a_block() -> None:
    text = re.search(r"    def unpack\(.*?return ids, indices, base[^\n]*\n?", packing.__doc__ or "", re.S)
    assert text is not None
    space: dict = {"np": np}
    exec("\n".join(line[4:] for line in text[0].splitlines()), space)
    tokens = _tokens()
    measured = {"b": torch.arange(len(tokens)) / 4, "a": -torch.arange(len(tokens)) * 1e6}
    ids, indices, base, scores = space["unpack"](*packing.pack_block(tokens, seed=1, scores=measured))
    assert np.array_equal(ids, tokens.id) and np.array_equal(indices, tokens.indices)
    assert np.array_equal(base, tokens.base)
    assert np.array_equal(scores[:, 1], measured["b"]) and scores[1, 0] == -65504, "too large: the largest float16"


def test_bytes_per_cube_of_the_main_recipe() -> None:
    """28 x 28 codes of 1024 and a 4 x 4 base of 16 bands: 980 + 512 bytes and the id."""
    indices = torch.full((250, 1, 28, 28), 1023, dtype=torch.int32)
    tokens = Tokens(indices, torch.zeros(250, 16, 4, 4).half(), torch.arange(250), "abc")
    header, data = packing.pack_block(tokens, 0)
    assert header["bits"] == 10
    assert len(data) == 250 * (980 + 512 + 8)


def test_a_block_cut_short_is_an_input_error() -> None:
    header, data = packing.pack_block(_tokens(), 0)
    with pytest.raises(InputError, match="header"):
        packing.unpack_block(header, data[:-5])
