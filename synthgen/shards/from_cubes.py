"""Shards of cubes that no generator of this project made: a simulator's, say."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from synthgen.contracts import Manifest, Provenance, Status, Tokens, Verdict, content_hash
from synthgen.shards.manifest import write_manifest
from synthgen.shards.storage import place_of
from synthgen.shards.writer import Part, Range, _write_shard


def write_foreign_shards(
    out: str | os.PathLike,
    blocks: Iterable[Tensor],
    *,
    name: str,
    seed: int,
    wavelengths: Sequence[float],
    size: int,
    provenance: Provenance | None = None,
) -> Manifest:
    """Write blocks of reflectance float32 [n, C, size, size], a shard each, as float16 cubes without certificate.

    name, seed: of what made them; they stand for the generator's hash. provenance: whom the maker has seen.
    """
    made_by = content_hash("foreign", name, str(seed))
    place = place_of(out)
    place.make()
    manifest = Manifest(
        kind="cubes",
        dtype="float16",
        generator_hash=made_by,
        seed=seed,
        steps=0,
        sampler=name,
        wavelengths_nm=tuple(float(w) for w in wavelengths),
        size=size,
        verdict=Verdict(status=Status.UNCERTIFIED, generator_hash=made_by),
        provenance=provenance,
    )
    for number, cubes in enumerate(blocks):
        first = manifest.proposed
        ids = torch.arange(first, first + len(cubes))
        none = torch.zeros(len(cubes), 0)
        part = Part(Tokens(none, none, ids, made_by), cubes, {})
        entry = _write_shard(place, manifest, Range(number, first, first + len(cubes)), part, {})
        manifest = manifest.model_copy(update={"proposed": first + len(cubes), "shards": (*manifest.shards, entry)})
    write_manifest(place, manifest)
    return manifest
