"""Sample a generator into shards, through the gates."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from typing import Annotated, Any, Literal

from accelerate.utils import broadcast_object_list
from pydantic import Field

from synthgen.contracts import Manifest, Status, Verdict
from synthgen.cubes.cohort.cohort import Cohort
from synthgen.errors import ConfigError, StorageError, SynthgenError
from synthgen.generator.generator import Generator
from synthgen.generator.samplers import SamplerName, SamplerSteps, Seed
from synthgen.integration.artifacts import PACKAGED, GeneratorName, memorization_unseen, open_gates
from synthgen.integration.judging.judge import certify
from synthgen.integration.judging.verdict import enforce
from synthgen.quality.gates import Gates
from synthgen.runs.processes.device import Device, make_accelerator
from synthgen.runs.processes.ranks import any_rank
from synthgen.shards.resume import check_destination, fresh_manifest
from synthgen.shards.storage import Where, place_of
from synthgen.shards.writer import write_shards

CERTIFY_COUNT = 500  # cubes proposed for the set certificate; fewer leave the check for copies undecided at 5 %


def sample_shards(
    out: Annotated[Where, Field(description="folder for the shards, or its URL in an object store (s3://bucket/x)")],
    count: Annotated[int, Field(ge=1, description="cubes to propose")] = 64,
    generator: GeneratorName = PACKAGED,
    kind: Annotated[
        Literal["tokens", "cubes"], Field(description="tokens (small, exact) or cubes (for other programs)")
    ] = "tokens",
    gates: Annotated[
        Literal["auto", "require", "report", "off"],
        Field(description="what a gate that does not pass does; auto: require, but report for the packaged generator"),
    ] = "auto",
    gates_folder: Annotated[str | None, Field(description="folder written by `synthgen calibrate`")] = None,
    *,
    seed: Seed = 0,
    steps: SamplerSteps = 8,
    sampler: SamplerName = "ab2",
    dtype: Annotated[
        Literal["uint16", "float16"], Field(description="of cubes: uint16 (reflectance x 65535) or float16")
    ] = "uint16",
    shard_size: Annotated[int | None, Field(ge=1, description="proposals per shard; default 2000, or 64 MB")] = None,
    device: Device = None,
    cohort: Cohort | None = None,
) -> Manifest:
    """Write the accepted ones of `count` proposals as shards in `out`, with their verdict; resumable.

    Several processes share the work: each shard is written by one of them, with the bytes that a single process would
    have written.

    Raises GateError or UndecidedError under `gates="require"` when the generator is not certified; nothing is written
    then. See `synthgen.shards.writer.write_shards` for the rest.
    """
    if gates not in ("auto", "require", "report", "off"):
        raise ConfigError("unknown policy for the gates", found=gates, expected="auto, require, report or off")
    if gates == "auto":  # the packaged generator is for trials
        gates = "report" if generator == PACKAGED else "require"
    ranks = make_accelerator(cpu=device == "cpu") if int(os.environ.get("WORLD_SIZE", "1")) > 1 else None
    rank, world = (ranks.process_index, ranks.num_processes) if ranks is not None else (0, 1)
    loaded = Generator.load(generator, device or (ranks.device if ranks is not None else None))
    judge = open_gates(gates, gates_folder, loaded, generator, cohort)
    how: dict[str, Any] = {"seed": seed, "steps": steps, "sampler": sampler, "kind": kind, "dtype": dtype}
    with ExitStack() as stack:
        refused = None
        if rank == 0:  # now: the certificate takes minutes
            try:
                check_destination(out, fresh_manifest(loaded, gates=judge, **how))
                stack.enter_context(place_of(out).alone())
            except SynthgenError as error:
                refused = error
        if any_rank(refused is not None):
            raise refused or StorageError("the main process cannot write there", path=str(out))
        return write_shards(
            loaded,
            out,
            count=count,
            **how,
            gates=judge,
            verdict=None if judge is None else _verdict(loaded, judge, gates, rank, world, seed, steps, sampler),
            shard_size=shard_size,
            rank=rank,
            world=world,
            barrier=ranks.wait_for_everyone if ranks is not None else lambda: None,
            alone=False,
        )


def _verdict(
    loaded: Generator, judge: Gates, policy: str, rank: int, world: int, seed: int, steps: int, sampler: str
) -> Verdict:
    """The set gates' verdict on the generator; GateError or UndecidedError where `policy` does not let it pass."""
    result: list = [None]
    if rank == 0:
        result = [certify(loaded, judge, count=CERTIFY_COUNT, seed=seed, steps=steps, sampler=sampler)]
    verdict = broadcast_object_list(result)[0] if world > 1 else result[0]
    if enforce(verdict, policy) != Status.PASS and rank == 0:
        print(f"gates: {verdict.status} ({verdict.reason}); the shards are stamped 'uncertified'", file=sys.stderr)
    if rank == 0 and (unseen := memorization_unseen(loaded.provenance, judge.provenance)):
        print(f"gates: {unseen}", file=sys.stderr)
    return verdict
