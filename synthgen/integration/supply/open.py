"""Open the synthetic half of the batches: load the generator, let the gates judge it, fill the pool; or read shards."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor

from synthgen.contracts import Check, Status, Tokens
from synthgen.cubes.cohort.cohort import Cohort
from synthgen.cubes.cohort.splits import Split
from synthgen.errors import InputError
from synthgen.generator.dataset import SyntheticRetinaDataset
from synthgen.generator.generator import Generator
from synthgen.integration.artifacts import (
    PACKAGED,
    check_belongs,
    check_no_leak,
    find_generator,
    memorization_unseen,
    open_gates,
)
from synthgen.integration.judging.judge import certify
from synthgen.integration.judging.verdict import enforce
from synthgen.integration.mix import Mix, as_ratio
from synthgen.integration.options import GateOptions, SupplyOptions
from synthgen.integration.supply.pool import CACHE_BYTES, SyntheticPool
from synthgen.integration.supply.pool_state import reshard
from synthgen.integration.supply.real import room
from synthgen.integration.supply.rolling_window import Window
from synthgen.integration.supply.shard_cubes import ShardCubes
from synthgen.integration.supply.signature_check import CUBES, tilt_checks
from synthgen.integration.supply.source import Supply
from synthgen.integration.supply.variants import Variants
from synthgen.quality.gates import Gates, load_gates
from synthgen.runs.checkpoint import Restored
from synthgen.runs.files import write_json
from synthgen.runs.folder import RunFolder
from synthgen.shards.reader import ShardFolder

VERDICT_SEED = 1_000_003  # added to the run's seed: the cubes judged are not the cubes trained on


def open_supply(
    config: SupplyOptions,
    judged: GateOptions,
    seed: int,
    mix: Mix,
    cohort: Cohort,
    split: Split,
    accelerator: Accelerator,
    run: RunFolder,
    restored: Restored | None,
) -> Supply:
    """Open the generator (or the shards), let the gates judge it, and fill the pool.

    At ratio 0 without cross-source views nothing of this is touched: the run equals a real-only one bit for bit.
    """
    cross = as_ratio(config.cross_views)
    if mix.ratio == 0 and cross == 0:
        return Supply(None, None)
    rank, world = accelerator.process_index, accelerator.num_processes
    if config.shards is not None:
        return _open_shards(config, judged, seed, cohort, split.test, accelerator, run, restored)
    name = config.generator or PACKAGED
    generator = Generator.load(name, accelerator.device)
    check_belongs(cohort, generator.wavelengths, generator.size, "generator", name)
    check_no_leak(generator.provenance, split.test, "generator")
    gates = open_gates(judged.gates, judged.gates_folder, generator, name, cohort)
    run.made_from(generator=generator.hash, gates_folder=None if gates is None else gates.hash)
    stamp = Status.UNCERTIFIED
    if gates is not None:
        check_no_leak(gates.provenance, split.test, "gates")
        result: list = [None]
        if accelerator.is_main_process:
            verdict = certify(
                generator,
                gates,
                count=judged.certify_count,
                seed=seed + VERDICT_SEED,
                steps=config.sampler_steps,
                sampler=config.sampler,
                more=_tilt_checks(generator, cohort, split),
            )
            write_json(run.path / "verdict.json", verdict.model_dump(mode="json"))
            result = [verdict]
        stamp = enforce(broadcast_object_list(result)[0], judged.gates)
        if accelerator.is_main_process:
            print(f"gates: {result[0].status} ({result[0].reason}); the run is stamped '{stamp}'", file=sys.stderr)
            if unseen := memorization_unseen(generator.provenance, gates.provenance):
                print(f"gates: {unseen}", file=sys.stderr)
    supply = Supply(None, stamp, generator.hash)
    supply.provenance = (generator.provenance, *([gates.provenance] if gates is not None else []))
    if mix.ratio > 0:
        window = _window(judged, gates, generator, world)
        supply.source = _open_pool(config, seed, mix, generator, gates, window, accelerator, restored)
        if restored is not None:
            supply.news()  # reported before the run was stopped
    if cross > 0:
        supply.variants = Variants(
            generator,
            len(cohort),
            noise=config.cross_noise,
            reuse=config.reuse,
            seed=seed,
            steps=config.sampler_steps,
            sampler=config.sampler,
            gates=gates,
            rank=rank,
            world=world,
        )
        if restored is not None:
            if len(restored.own) != world and accelerator.is_main_process:
                print(f"counts of variants of {len(restored.own)} processes go to {world}", file=sys.stderr)
            supply.variants.load_state_dict(restored.own[rank % len(restored.own)]["variants"])
    return supply


def _open_pool(
    config: SupplyOptions,
    seed: int,
    mix: Mix,
    generator: Generator,
    gates: Gates | None,
    window: Window | None,
    accelerator: Accelerator,
    restored: Restored | None,
) -> SyntheticPool:
    rank, world = accelerator.process_index, accelerator.num_processes
    dataset = SyntheticRetinaDataset(
        generator,
        seed=seed,
        steps=config.sampler_steps,
        sampler=config.sampler,
        gates=gates,
        output="tokens",
        rank=rank,
        world=world,
    )
    mean = lambda x: accelerator.reduce(torch.tensor(x, device=accelerator.device), "mean").item()
    least = lambda x: accelerator.gather(torch.tensor([float(x)], device=accelerator.device)).min().item()
    pool = SyntheticPool(
        dataset,
        mix.most,
        reuse=config.reuse,
        seed=seed,
        rank=rank,
        max_age=config.max_age,
        cache=config.pool_cache,
        mean=mean,
        least=least,
        window=window,
    )
    if restored is None:
        pool.fill()
        if accelerator.is_main_process:
            print(pool.plan(float(mix.batch * mix.ratio)), file=sys.stderr)
    else:
        states = [own["source"] for own in restored.own]
        if len(states) != world and accelerator.is_main_process:
            print(f"the pool of {len(states)} processes is resharded to {world}", file=sys.stderr)
        pool.load_state_dict(states[rank] if len(states) == world else reshard(states, rank, world))
        if len(states) != world:
            pool.settle()
    return pool


def _tilt_checks(generator: Generator, cohort: Cohort, split: Split) -> list[Check]:
    """What encoding leaves of a weak blue tilt, on cubes that the generator was not trained on."""
    index = cohort.index_of(split.calibration or split.train)[:CUBES]
    cubes = torch.from_numpy(cohort.cubes(index))
    return tilt_checks(generator, cubes, cohort.wavelengths, cohort.patient_id[index])


def _window(judged: GateOptions, gates: Gates | None, generator: Generator, world: int) -> Window | None:
    """The window that watches the pool; none without gates, or where they were calibrated on too few patients."""
    if gates is None or not gates.limits.sets:
        return None
    return Window(
        gates,
        generator.decode,
        size=judged.gate_window,
        every=judged.gate_every,
        world=world,
        closes=judged.gates == "require",
    )


def _open_shards(
    config: SupplyOptions,
    judged: GateOptions,
    seed: int,
    cohort: Cohort,
    test_patients: Sequence[str],
    accelerator: Accelerator,
    run: RunFolder,
    restored: Restored | None,
) -> Supply:
    assert config.shards is not None
    gates_hash = load_gates(judged.gates_folder).hash if judged.gates_folder is not None else None
    folder = ShardFolder.open(
        config.shards,
        accepted_only=judged.gates == "require",
        skip_rejected=judged.gates != "off",
        gates_hash=gates_hash,
    )
    manifest, rank, world = folder.manifest, accelerator.process_index, accelerator.num_processes
    check_belongs(cohort, manifest.wavelengths_nm, manifest.size, "shard folder", config.shards)
    check_no_leak(manifest.provenance, test_patients, "shards' generator")
    if len(folder) == 0:
        raise InputError("holds no cubes", path=config.shards, remedy="write shards with `synthgen sample`")
    run.made_from(shards=folder.content_hash, generator=manifest.generator_hash, gates_folder=gates_hash)
    ids, cubes_at = _shares(folder, config, accelerator)
    source = ShardCubes(ids, cubes_at, accelerator.device, seed, rank)
    if restored is not None:
        if len(restored.own) != world and accelerator.is_main_process:
            print(f"the shards' cubes of {len(restored.own)} processes are resharded to {world}", file=sys.stderr)
        source.load_state_dict(restored.own[rank % len(restored.own)]["source"])
    supply = Supply(source, _stamp(folder, judged), manifest.generator_hash)
    supply.provenance = (manifest.provenance,) if manifest.provenance is not None else ()
    return supply


def _stamp(folder: ShardFolder, judged: GateOptions) -> Status:
    """What training on these shards is stamped with: pass when the set passed, and all that is read of it."""
    verdict = folder.manifest.verdict
    passed = verdict is not None and verdict.status == Status.PASS and judged.gates != "off"
    return Status.PASS if passed and all(e.status == Status.PASS for e in folder.entries) else Status.UNCERTIFIED


def _shares(
    folder: ShardFolder, config: SupplyOptions, accelerator: Accelerator
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Ids int64 [N] of this rank's share, and what gives cubes float32 [n, C, H, W] for rows of it.

    Tokens are held as tokens, and decoded when they are drawn unless the decoded ones take little room.
    """
    manifest, rank, world = folder.manifest, accelerator.process_index, accelerator.num_processes
    mine = lambda ids: (ids % world) == rank
    size = 4 * len(manifest.wavelengths_nm) * manifest.size**2 * len(folder) // world
    if manifest.kind == "cubes":
        free = room()
        if size > free:
            raise InputError(
                "the cube shards do not fit into memory",
                path=config.shards,
                found=f"{size / 1e9:.1f} GB for each process",
                expected=f"at most {free / 1e9:.1f} GB",
                remedy="write token shards, which are held as tokens, or spread the run over more machines",
            )
        blocks = [(cubes[mine(ids)], ids[mine(ids)]) for cubes, ids in folder.cubes()]
        cubes = torch.cat([c for c, _ in blocks])
        return torch.cat([i for _, i in blocks]), lambda rows: cubes[rows]
    generator = find_generator(manifest, str(config.shards), accelerator.device, config.generator)
    tokens = Tokens.cat([block[mine(block.id)] for block in folder.tokens()]).to(accelerator.device)
    decode = lambda rows: generator.decode(tokens[rows])
    if config.pool_cache == "off" or (config.pool_cache == "auto" and size > CACHE_BYTES):
        return tokens.id.cpu(), decode
    cubes = decode(torch.arange(len(tokens)))
    return tokens.id.cpu(), lambda rows: cubes[rows]
