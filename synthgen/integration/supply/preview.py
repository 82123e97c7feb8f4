"""Cubes of a generator to measure features on, beside those trained on."""

from __future__ import annotations

from synthgen.contracts import Tokens
from synthgen.generator.dataset import SyntheticRetinaDataset


def admitted_tokens(like: SyntheticRetinaDataset, count: int, seed: int) -> list[Tokens]:
    """Tokens of `count` admitted cubes of a stream with another seed; fewer when the gates reject most of them."""
    stream = SyntheticRetinaDataset(
        like.generator, device=like.device, seed=seed, steps=like.steps, sampler=like.sampler, gates=like.gates,
        count=4 * count, output="tokens", rank=0, world=1,
    )  # fmt: skip
    kept, have = [], 0
    for chunk in stream.chunks():
        tokens = chunk.tokens[: count - have]
        if len(tokens):
            kept.append(tokens)
            have += len(tokens)
        if have >= count:
            break
    return kept
