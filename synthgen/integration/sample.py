"""Sample a generator into shards, through the gates."""

from __future__ import annotations

import os
import sys
from typing import Literal

from synthgen.contracts import Manifest, Status
from synthgen.cubes.cohort import Cohort
from synthgen.errors import ConfigError
from synthgen.generator.generator import Generator
from synthgen.integration.supply import PACKAGED, certify, enforce, open_gates
from synthgen.shards.writer import write_shards

CERTIFY_COUNT = 500  # cubes proposed for the set certificate; fewer leave the check for copies undecided at 5 %


def sample_shards(
    out: str | os.PathLike,
    count: int,
    generator: str = PACKAGED,
    kind: Literal["tokens", "cubes"] = "tokens",
    gates: Literal["auto", "require", "report", "off"] = "auto",
    gates_folder: str | None = None,
    *,
    seed: int = 0,
    steps: int = 8,
    sampler: str = "ab2",
    device: str | None = None,
    cohort: Cohort | None = None,
) -> Manifest:
    """Write the accepted ones of `count` proposals as shards in `out`, with their verdict; resumable.

    Raises GateError or UndecidedError under `gates="require"` when the generator is not certified; nothing is written
    then. See `synthgen.shards.writer.write_shards` for the rest.
    """
    if gates not in ("auto", "require", "report", "off"):
        raise ConfigError("unknown policy for the gates", found=gates, expected="auto, require, report or off")
    if gates == "auto":  # nobody's study hangs on the packaged generator
        gates = "report" if generator == PACKAGED else "require"
    loaded = Generator.load(generator, device)
    judge = open_gates(gates, gates_folder, loaded, generator, cohort)
    verdict = None
    if judge is not None:
        verdict = certify(loaded, judge, count=CERTIFY_COUNT, seed=seed, steps=steps, sampler=sampler)
        if enforce(verdict, gates) != Status.PASS:
            print(f"gates: {verdict.status} ({verdict.reason}); the shards are stamped 'uncertified'", file=sys.stderr)
    return write_shards(
        loaded, out, count=count, seed=seed, steps=steps, sampler=sampler, kind=kind, gates=judge, verdict=verdict
    )
