"""Writing shards: whole or absent, the same bytes whoever writes them and whenever, with a manifest always true.

A shard covers a fixed range of proposals, so its content depends neither on sittings nor on how many processes share
the work. Process r of W writes every W-th shard, each with its entry in a file of its own beside it; the first process
moves the entries into `manifest.json` as far as they follow one another. A later call takes over complete shards
that a killed one left, and writes the others again.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import webdataset
import xxhash
from torch import Tensor

from synthgen.contracts import Admission, Gate, Manifest, ShardEntry, Tokens, Verdict
from synthgen.errors import InputError, Stopped
from synthgen.generator.dataset import SyntheticRetinaDataset
from synthgen.generator.generator import Generator
from synthgen.runs.files import json_text
from synthgen.runs.progress import progress
from synthgen.runs.signals import StopRequest
from synthgen.shards.manifest import manifest_of, read_sheet, stamp, write_manifest
from synthgen.shards.packing import pack_block
from synthgen.shards.resume import begin, fresh_manifest
from synthgen.shards.storage import Place, Where, place_of

BLOCK = 250  # cubes per member of a token shard: tar spends 1.5 KB on a member, six bytes a cube at this size
TOKEN_SHARD = 2000  # proposals per token shard: about 3 MB at 224 pixels; more would be lost by an interruption
CUBE_SHARD_BYTES = 64 << 20  # a cube shard takes about this much
CUBE_SCALE = 65535  # uint16 cubes: reflectance = value / 65535


class Range(NamedTuple):
    """Proposals first ... end - 1, and the number of their shard."""

    number: int
    first: int
    end: int

    @property
    def shard(self) -> str:
        return f"shard-{self.number:05d}.tar"

    @property
    def sheet(self) -> str:
        """The file that holds the shard's entry until the manifest does."""
        return f"shard-{self.number:05d}.json"


def write_shards(
    generator: Generator,
    out: Where,
    *,
    count: int,
    seed: int = 0,
    steps: int = 8,
    sampler: str = "ab2",
    kind: Literal["tokens", "cubes"] = "tokens",
    dtype: Literal["uint16", "float16"] = "uint16",
    gates: Gate | None = None,
    verdict: Verdict | None = None,
    shard_size: int | None = None,
    rank: int = 0,
    world: int = 1,
    barrier: Callable[[], None] = lambda: None,
    alone: bool = True,
) -> Manifest:
    """Write the proposals 0 ... count-1 of (generator, seed), less those that the gates reject, and the manifest.

    A second call with the same settings goes on after the last complete shard; with a larger `count` it adds shards.

    Args:
        out: a folder, or the URL of one in an object store that fsspec reaches.
        kind: "tokens" (blocks of codes, see `packing`) or "cubes" (`<id>.npy` [C, H, W] beside `<id>.json`).
        dtype: of cubes: reflectance x 65535 as uint16, or reflectance as float16.
        gates: per-cube gates; rejected ids are left out, and counted as proposed.
        verdict: of the set gates on the accepted cubes of this generator; stamped into every shard.
        shard_size: proposals per shard.
        rank, world: of this process; all call with the same arguments. barrier: waits for all of them.
        alone: hold the folder meanwhile; False where the caller does.

    Raises:
        MismatchError: the folder holds shards of other settings. InputError: it holds shards without a manifest.
        StorageError: the disk is full, another command is at work there. Stopped: Ctrl-C or SIGTERM. Complete shards
        are kept in every case.
    """
    if kind not in ("tokens", "cubes"):
        raise InputError("unknown kind of shard", found=kind, expected="tokens or cubes")
    if dtype not in ("uint16", "float16"):
        raise InputError("unknown dtype of cubes", found=dtype, expected="uint16 or float16")
    if count < 1 or (shard_size is not None and shard_size < 1):
        wrong = ("shard_size", shard_size) if count >= 1 else ("count", count)
        raise InputError(f"{wrong[0]} is not a number of proposals", found=wrong[1], expected="1 or more")
    place = place_of(out)
    cube_bytes = 2 * generator.bands * generator.size**2
    shard_size = shard_size or (TOKEN_SHARD if kind == "tokens" else max(1, CUBE_SHARD_BYTES // cube_bytes))
    how = {"kind": kind, "dtype": dtype, "seed": seed, "steps": steps, "sampler": sampler}
    fresh = fresh_manifest(generator, gates=gates, verdict=verdict, **how)
    place.make()
    with place.alone() if alone and rank == 0 else nullcontext():
        if rank == 0:
            manifest = begin(place, fresh)
            write_manifest(place, manifest)
        barrier()
        manifest = manifest_of(place)
        plan = _plan(manifest, count, shard_size)
        done = _left_behind(place, manifest, plan) if rank == 0 else set()
        barrier()  # what does not fit the plan is gone
        done = done if rank == 0 else _left_behind(place, manifest, plan)
        barrier()
        manifest = _write(generator, place, manifest, plan, done, gates, rank, world)
        barrier()
        if rank == 0:
            manifest = _take_over(place, manifest, plan)
        barrier()
        return manifest_of(place)


def _plan(manifest: Manifest, count: int, shard_size: int) -> list[Range]:
    """The shards that are still to be written. A range of which the gates took nothing keeps its number."""
    start = manifest.proposed
    number = max(-(-start // shard_size), *(1 + int(s.name[6:11]) for s in manifest.shards), 0)
    firsts = range(start, count, shard_size)
    return [Range(number + k, first, min(first + shard_size, count)) for k, first in enumerate(firsts)]


def _left_behind(place: Place, manifest: Manifest, plan: list[Range]) -> set[int]:
    """Numbers of planned shards that are complete already; remains of other plans are removed.

    A writer killed between the manifest and the removal of a sheet leaves the sheet of a shard that is listed: the
    sheet goes, the shard stays.
    """
    planned, listed, done = {r.sheet: r for r in plan}, {s.name for s in manifest.shards}, set()
    for name in place.names():
        if name.startswith("shard-") and name.endswith(".json"):
            sheet, wanted = read_sheet(place, name), planned.get(name)
            if wanted is not None and sheet["range"] == list(wanted):
                done.add(wanted.number)
            else:
                shard = name.removesuffix(".json") + ".tar"
                if shard not in listed:
                    place.remove(shard)
                place.remove(name)
    return done


def _write(
    generator: Generator,
    place: Place,
    manifest: Manifest,
    plan: list[Range],
    done: set[int],
    gates: Gate | None,
    rank: int,
    world: int,
) -> Manifest:
    """Write this process's share of the plan."""
    mine = [r for k, r in enumerate(plan) if k % world == rank]
    total, before = sum(r.end - r.first for r in mine), sum(r.end - r.first for r in mine if r.number in done)
    with StopRequest() as stop, progress("shards", total, "cube", done=before, show=rank == 0) as bar:
        for part in mine:
            if part.number not in done:
                parts, lost = _propose(generator, manifest, part, gates, stop, place, bar)
                entry = _write_shard(place, manifest, part, parts, lost) if len(parts.tokens) else None
                _write_sheet(place, part, entry, lost)
            if rank == 0:
                manifest = _take_over(place, manifest, plan)
    return manifest


class Part(NamedTuple):
    """Accepted cubes of a range: tokens, for cube shards the cubes as well; what the gates measured, [n] by name."""

    tokens: Tokens
    cubes: Tensor | None
    scores: dict[str, Tensor] = {}  # noqa: RUF012 (never changed)


def _propose(
    generator: Generator, manifest: Manifest, part: Range, gates: Gate | None, stop: StopRequest, place: Place, bar: Any
) -> tuple[Part, Counter[str]]:
    """Sample the proposals of a range: the accepted ones, and how many were lost for which reason."""
    dataset = SyntheticRetinaDataset(
        generator,
        seed=manifest.seed,
        steps=manifest.steps,
        sampler=manifest.sampler,
        gates=gates,
        output="tokens" if manifest.kind == "tokens" else "cubes",
        rank=0,
        world=1,
        start=part.first,
        count=part.end - part.first,
    )
    tokens, cubes, scores, lost = [], [], [], Counter[str]()
    for chunk in dataset.chunks():
        bar.advance(chunk.proposed)
        tokens.append(chunk.tokens)
        if manifest.kind == "cubes" and chunk.cubes is not None:
            cubes.append(chunk.cubes)
        if chunk.admission is not None:
            scores.append(_kept_scores(chunk.admission))
        lost.update(reason for _, reason in chunk.rejected)
        if stop:
            raise Stopped(
                f"stopped; complete shards hold {manifest.proposed} proposals",
                path=str(place),
                remedy="the same command goes on from there",
                exit_code=stop.exit_code,
            )
    columns = {name: torch.cat([part[name] for part in scores]) for name in (scores[0] if scores else {})}
    return Part(Tokens.cat(tokens), torch.cat(cubes) if cubes else None, columns), lost


def _kept_scores(admission: Admission) -> dict[str, Tensor]:
    """The numbers that the gates measured of each admitted cube."""
    return {
        name: values[admission.accept.to(values.device)].float().cpu()
        for name, values in admission.scores.items()
        if values.ndim == 1 and values.is_floating_point()
    }


def _write_sheet(place: Place, part: Range, entry: ShardEntry | None, lost: Mapping[str, int]) -> None:
    value = {"range": list(part), "lost": dict(lost), "entry": entry and entry.model_dump(mode="json")}
    place.write(part.sheet, lambda file: file.write(json_text(value).encode()))


def _take_over(place: Place, manifest: Manifest, plan: list[Range]) -> Manifest:
    """Move the entries of complete shards into the manifest, as far as no range before them is missing."""
    taken = []
    for part in plan:
        if part.first < manifest.proposed:
            continue
        if place.size(part.sheet) is None:
            break
        sheet = read_sheet(place, part.sheet)
        more = (ShardEntry.model_validate(sheet["entry"]),) if sheet["entry"] is not None else ()
        lost = Counter(sheet["lost"]) + Counter(manifest.lost)
        entries = (*manifest.shards, *more)
        manifest = manifest.model_copy(update={"proposed": part.end, "lost": dict(lost), "shards": entries})
        taken.append(part.sheet)
    if taken:
        write_manifest(place, manifest)
    for name in taken:
        place.remove(name)
    return manifest


def _write_shard(place: Place, manifest: Manifest, part: Range, held: Part, lost: Mapping[str, int]) -> ShardEntry:
    """One tar of deterministic bytes, made in memory and written at once."""
    buffer = io.BytesIO()
    members = _token_members(held, manifest.seed) if held.cubes is None else _cube_members(held, manifest)
    with webdataset.TarWriter(buffer, encoder=False, mtime=0, user="synthgen", group="synthgen", mode=0o644) as tar:
        for member in members:
            tar.write(member)
    data = buffer.getvalue()
    place.write(part.shard, lambda file: file.write(data))
    return ShardEntry(
        name=part.shard,
        xxh128=xxhash.xxh3_128_hexdigest(data),
        bytes=len(data),
        count=len(held.tokens),
        first_id=part.first,
        last_id=part.end - 1,
        status=stamp(manifest.verdict),
        lost=dict(lost),
    )


def _token_members(held: Part, seed: int):
    for first in range(0, len(held.tokens), BLOCK):
        rows = slice(first, first + BLOCK)
        block = held.tokens[rows]
        header, data = pack_block(block, seed, {name: values[rows] for name, values in held.scores.items()})
        yield {"__key__": f"{int(block.id[0]):012d}", "json": json_text(header).encode(), "tokens": data}


def _cube_members(held: Part, manifest: Manifest):
    assert held.cubes is not None
    half = manifest.dtype == "float16"
    for row, (sample_id, cube) in enumerate(zip(held.tokens.id.tolist(), held.cubes, strict=True)):
        x = cube.clamp(0, 1).cpu()
        stored = x.half().numpy().astype("<f2") if half else (x * CUBE_SCALE).round().numpy().astype("<u2")
        about = {
            "id": sample_id,
            "seed": manifest.seed,
            "generator_hash": manifest.generator_hash,
            "is_synthetic": True,
            "scale": 1.0 if half else 1 / CUBE_SCALE,
            "wavelengths_nm": list(manifest.wavelengths_nm),
            "scores": {name: float(f"{float(values[row]):.4g}") for name, values in held.scores.items()},
        }
        buffer = io.BytesIO()
        np.save(buffer, stored, allow_pickle=False)
        yield {"__key__": f"{sample_id:012d}", "json": json_text(about).encode(), "npy": buffer.getvalue()}
