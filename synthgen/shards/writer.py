"""Writing shards: whole or absent, the same bytes whenever they are written, with a manifest always true.

A shard covers a fixed range of proposals, so its content does not depend on when or in how many sittings it was made.
`manifest.json` is rewritten after every shard; what a killed run leaves beyond it is written again.
"""

from __future__ import annotations

import io
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import webdataset
from torch import Tensor

from synthgen.contracts import Gate, Manifest, Rejection, ShardEntry, Status, Tokens, Verdict
from synthgen.errors import InputError, MismatchError, Stopped, writing
from synthgen.generator.dataset import SyntheticRetinaDataset
from synthgen.generator.generator import Generator
from synthgen.runs.files import atomic, remove, sha256, write_json
from synthgen.runs.lock import one_at_a_time
from synthgen.runs.progress import progress
from synthgen.runs.signals import StopRequest
from synthgen.shards.packing import pack_block
from synthgen.shards.reader import MANIFEST, read_manifest

BLOCK = 250  # cubes per member of a token shard: tar spends 1.5 KB on a member, six bytes a cube at this size
TOKEN_SHARD = 2000  # proposals per token shard: about 3 MB at 224 pixels; more would be lost by an interruption
CUBE_SHARD_BYTES = 64 << 20  # a cube shard takes about this much
CUBE_SCALE = 65535  # cubes are stored as uint16: reflectance = value / 65535

Part = tuple[Tokens, Tensor | None]


def write_shards(
    generator: Generator,
    out: str | os.PathLike,
    *,
    count: int,
    seed: int = 0,
    steps: int = 8,
    sampler: str = "heun",
    kind: Literal["tokens", "cubes"] = "tokens",
    gates: Gate | None = None,
    verdict: Verdict | None = None,
    shard_size: int | None = None,
) -> Manifest:
    """Write the proposals 0 ... count-1 of (generator, seed), less those that the gates reject, and the manifest.

    A second call with the same settings goes on after the last complete shard; with a larger `count` it adds shards.

    Args:
        kind: "tokens" (blocks of codes, see `packing`) or "cubes" (`<id>.npy` uint16 [C, H, W] beside `<id>.json`).
        gates: per-cube gates; rejected ids are left out, and counted as proposed.
        verdict: what the set gates said of the accepted cubes of this generator; stamped into every shard.
        shard_size: proposals per shard.

    Raises:
        MismatchError: the folder holds shards of other settings. InputError: it holds shards without a manifest.
        StorageError: the disk is full. Stopped: Ctrl-C or SIGTERM. Complete shards are kept in every case.
    """
    if kind not in ("tokens", "cubes"):
        raise InputError("unknown kind of shard", found=kind, expected="tokens or cubes")
    out = Path(out)
    cube_bytes = 2 * generator.bands * generator.size**2
    shard_size = shard_size or (TOKEN_SHARD if kind == "tokens" else max(1, CUBE_SHARD_BYTES // cube_bytes))
    fresh = _fresh(generator, kind, seed, steps, sampler, gates, verdict)
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    with one_at_a_time(out):
        return _write(generator, out, _begin(out, fresh), count, gates, shard_size)


def _write(
    generator: Generator, out: Path, manifest: Manifest, count: int, gates: Gate | None, shard_size: int
) -> Manifest:
    """Go on from `manifest` until `count` proposals are written."""
    kind = "tokens" if manifest.kind == "tokens" else "cubes"
    dataset = SyntheticRetinaDataset(
        generator,
        seed=manifest.seed,
        steps=manifest.steps,
        sampler=manifest.sampler,
        gates=gates,
        output=kind,
        rank=0,
        world=1,
        start=manifest.proposed,
        count=max(count - manifest.proposed, 0),
    )
    chunks, seen, held = dataset.chunks(), manifest.proposed, []
    rejected: list[tuple[int, str]] = []
    with StopRequest() as stop, progress("shards", count, "cube", done=min(seen, count)) as bar:
        while manifest.proposed < count:
            end = min(manifest.proposed + shard_size, count)
            while seen < end:
                chunk = next(chunks)
                bar.advance(chunk.proposed, shards=len(manifest.shards))
                seen += chunk.proposed
                held.append((chunk.tokens, chunk.cubes if kind == "cubes" else None))
                rejected += chunk.rejected
                if stop:
                    raise Stopped(
                        f"stopped; complete shards hold {manifest.proposed} of {count} proposals",
                        path=out,
                        remedy="the same command goes on from there",
                        exit_code=stop.exit_code,
                    )
            inside, rest = _split(held, end)
            held = [rest]
            lost = Counter(reason for sample_id, reason in rejected if sample_id < end)
            rejected = [(sample_id, reason) for sample_id, reason in rejected if sample_id >= end]
            if len(inside[0]):
                entry = _write_shard(out, manifest, inside, end).model_copy(update={"lost": dict(lost)})
                manifest = manifest.model_copy(update={"shards": (*manifest.shards, entry)})
            manifest = manifest.model_copy(update={"proposed": end, "lost": dict(lost + Counter(manifest.lost))})
            write_manifest(out, manifest)
    return manifest


def record_verdict(folder: str | os.PathLike, verdict: Verdict) -> Manifest:
    """Stamp what the set gates said of the cubes in a shard folder into its manifest and every shard's entry."""
    old = read_manifest(folder)
    manifest = _stamped(old, verdict)
    write_manifest(folder, manifest)
    return manifest


def gated(manifest: Manifest, verdict: Verdict, shards: Mapping[str, tuple[Verdict, Sequence[Rejection]]]) -> Manifest:
    """The manifest with what `synthgen gate` found: the verdict of the set, and by the name of each shard its own
    verdict and the cubes that were rejected. The tar files stay as they are; readers skip what was rejected.

    MismatchError when the verdict is of another generator's cubes.
    """
    if verdict.generator_hash not in (None, manifest.generator_hash):
        raise MismatchError(
            "the verdict is of another generator's cubes",
            found=verdict.generator_hash,
            expected=manifest.generator_hash,
            remedy="judge these shards themselves with `synthgen gate`",
        )
    entries = tuple(
        s.model_copy(update={"verdict": shards[s.name][0], "rejected": tuple(shards[s.name][1])})
        for s in manifest.shards
    )
    return _stamped(manifest.model_copy(update={"shards": entries}), verdict)


def write_manifest(folder: str | os.PathLike, manifest: Manifest) -> None:
    write_json(Path(folder) / MANIFEST, manifest.model_dump(mode="json"))


def _fresh(
    generator: Generator, kind: str, seed: int, steps: int, sampler: str, gates: Gate | None, verdict: Verdict | None
) -> Manifest:
    gates_hash = getattr(gates, "hash", None)
    if verdict is None:
        verdict = Verdict(status=Status.UNCERTIFIED, generator_hash=generator.hash)
    provenance = generator.provenance
    seen_by_gates = getattr(gates, "provenance", None)
    if seen_by_gates is not None:
        provenance = provenance.model_copy(update={"also": (*provenance.also, seen_by_gates)})
    return Manifest(
        kind=kind,
        generator_hash=generator.hash,
        generator=generator.source,
        seed=seed,
        steps=steps,
        sampler=sampler,
        wavelengths_nm=generator.wavelengths,
        size=generator.size,
        verdict=verdict.model_copy(update={"gates_hash": gates_hash}),
        provenance=provenance,
    )


def _begin(out: Path, fresh: Manifest) -> Manifest:
    """The manifest to go on from: that of the folder when it fits, else `fresh`, written before any shard."""
    if not (out / MANIFEST).exists():
        if any(out.glob("*.tar")):
            raise InputError(
                "holds tar files but no manifest", path=out, expected=MANIFEST, remedy="choose another folder"
            )
        write_manifest(out, fresh)
        return fresh
    old = read_manifest(out)
    for name, was, wanted in _settings(old, fresh):
        if was != wanted:
            raise MismatchError(
                f"holds shards of another {name}",
                path=out,
                found=was,
                expected=wanted,
                remedy="choose another folder, or remove this one",
            )
    for leftover in out.glob(".*.partial"):
        remove(leftover)
    assert fresh.verdict is not None
    return _stamped(old, fresh.verdict)


def _settings(old: Manifest, fresh: Manifest) -> list[tuple[str, Any, Any]]:
    names = ("kind", "generator_hash", "seed", "steps", "sampler", "wavelengths_nm", "size")
    pairs = [(name.replace("_", " "), getattr(old, name), getattr(fresh, name)) for name in names]
    was, wanted = (m.verdict.gates_hash if m.verdict is not None else None for m in (old, fresh))
    return [*pairs, ("gates hash", was, wanted)]


def _stamped(manifest: Manifest, verdict: Verdict) -> Manifest:
    """The manifest with `verdict`, and its status on every shard; what is neither pass nor fail is 'uncertified'.

    A shard whose own cubes failed stays failed.
    """
    shards = tuple(s.model_copy(update={"status": _stamp(verdict, s.verdict)}) for s in manifest.shards)
    return manifest.model_copy(update={"verdict": verdict, "shards": shards})


def _stamp(verdict: Verdict | None, own: Verdict | None = None) -> Status:
    if own is not None and own.status == Status.FAIL:
        return Status.FAIL
    sure = verdict is not None and verdict.status in (Status.PASS, Status.FAIL)
    return verdict.status if verdict is not None and sure else Status.UNCERTIFIED


def _split(parts: Sequence[Part], end: int) -> tuple[Part, Part]:
    """Join the parts and divide them into ids below `end` and the rest."""
    tokens = Tokens.cat([t for t, _ in parts])
    cubes = [c for _, c in parts if c is not None]
    joined = torch.cat(cubes) if cubes else None
    below = tokens.id < end
    return tuple((tokens[w], None if joined is None else joined[w]) for w in (below, ~below))  # type: ignore[return-value]


def _write_shard(out: Path, manifest: Manifest, part: Part, end: int) -> ShardEntry:
    """One tar of deterministic bytes, written aside and renamed."""
    tokens, cubes = part
    path = out / f"shard-{len(manifest.shards):05d}.tar"
    with atomic(path) as temporary, temporary.open("wb") as file:
        with webdataset.TarWriter(file, encoder=False, mtime=0, user="synthgen", group="synthgen", mode=0o644) as tar:
            for member in _token_members(tokens, manifest.seed) if cubes is None else _cube_members(part, manifest):
                tar.write(member)
        file.flush()
        size = temporary.stat().st_size
        digest = sha256(temporary)
    return ShardEntry(
        name=path.name,
        sha256=digest,
        bytes=size,
        count=len(tokens),
        first_id=manifest.proposed,
        last_id=end - 1,
        status=_stamp(manifest.verdict),
    )


def _token_members(tokens: Tokens, seed: int):
    for first in range(0, len(tokens), BLOCK):
        block = tokens[first : first + BLOCK]
        header, data = pack_block(block, seed)
        yield {"__key__": f"{int(block.id[0]):012d}", "json": json.dumps(header).encode(), "tokens": data}


def _cube_members(part: Part, manifest: Manifest):
    tokens, cubes = part
    assert cubes is not None
    for sample_id, cube in zip(tokens.id.tolist(), cubes, strict=True):
        stored = (cube.clamp(0, 1) * CUBE_SCALE).round().cpu().numpy().astype("<u2")
        about = {
            "id": sample_id,
            "seed": manifest.seed,
            "generator_hash": manifest.generator_hash,
            "is_synthetic": True,
            "scale": 1 / CUBE_SCALE,
            "wavelengths_nm": list(manifest.wavelengths_nm),
        }
        buffer = io.BytesIO()
        np.save(buffer, stored, allow_pickle=False)
        yield {"__key__": f"{sample_id:012d}", "json": json.dumps(about).encode(), "npy": buffer.getvalue()}
