"""Speed of the supply, as ratios between things timed in turn: sampling, decoding, gates, the loop with and without."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from benchmarks.common import in_turn, record
from synthgen.generator.generator import Generator
from synthgen.integration.options import Pretraining
from synthgen.integration.pretrain import pretrain
from synthgen.integration.supply import PACKAGED, default_cohort
from synthgen.quality.gates import load_gates
from synthgen.runs.device import set_threads
from synthgen.runs.folder import read_metrics

COUNT = 64  # cubes per measurement
TURNOVER = 0.6  # share of the steps after which the pool that was filled before the first step is used up


def supply(device: str = "cpu") -> None:
    """Sampling at several solvers, decoding, and the per-cube gates on the same cubes."""
    set_threads()
    generator, gates = Generator.load(PACKAGED, device), load_gates(PACKAGED)
    ids = range(COUNT)
    tokens = generator.sample(ids, 0, 8, "ab2")
    cubes = generator.decode(tokens)
    finish = torch.cuda.synchronize if device != "cpu" else lambda: None
    jobs = {
        f"sample {solver} {steps}": (lambda k=solver, n=steps: (generator.sample(ids, 0, n, k), finish()))
        for solver, steps in (("euler", 4), ("euler", 8), ("ab2", 8), ("heun", 8), ("euler", 16))
    }
    jobs["decode"] = lambda: (generator.decode(tokens), finish())
    jobs["gates"] = lambda: (gates(cubes), finish())
    seconds = in_turn(jobs)
    whole = seconds["sample ab2 8"] + seconds["decode"]
    record(
        "supply_speed",
        {
            "on": device,
            "cubes_per_second": {k: round(COUNT / s, 1) for k, s in seconds.items()},
            "sampled_and_decoded_per_second": round(COUNT / whole, 1),
            "decoder_share": round(seconds["decode"] / whole, 3),
            "gates_share_of_sampling": round(seconds["gates"] / whole, 3),
        },
    )


def loop(steps: int = 110, turns: int = 2, device_note: str = "cpu") -> None:
    """samples/s of the pretraining at ratio 0.5, with and without the decoded cache, over ratio 0; run in turn.

    Only steps after a full turnover of the pool count: what was admitted before the first step has been used up.
    """
    arms = {"0": {}, "0.5": {"pool_cache": "off"}, "0.5, decoded cache": {"pool_cache": "on"}}
    rates: dict[str, list[float]] = {arm: [] for arm in arms}
    pools: dict[str, dict] = {}
    with tempfile.TemporaryDirectory() as folder:
        cohort = default_cohort(folder)
        for turn in range(turns):
            for arm, more in arms.items():
                run = pretrain(
                    Pretraining(
                        data=str(cohort.path),
                        synthetic_ratio=arm.split(",")[0],
                        gates="report",
                        steps=steps,
                        certify_count=64,
                        log_every=1,
                        checkpoint_every=10**6,
                        out=str(Path(folder) / f"{arm}-{turn}"),
                        **more,
                    )
                )
                lines = [m for m in read_metrics(run) if "samples_seen" in m]
                first, last = lines[int(TURNOVER * steps)], lines[-1]
                seen = last["samples_seen"] - first["samples_seen"]
                rates[arm].append(seen / (last["time"] - first["time"]))
                if "pool/proposed" in last:
                    pools[arm] = {k: round(v, 3) for k, v in last.items() if k.startswith("pool/")}
                    pools[arm]["steps_of_a_turnover"] = pool_steps(lines)
    best = {arm: max(found) for arm, found in rates.items()}
    record(
        "loop_speed",
        {
            "on": device_note,
            "batch": 64,
            "reuse": 8,
            "steps": steps,
            "counted_from_step": int(TURNOVER * steps),
            "pools": pools,
            "samples_per_second": {k: round(v, 1) for k, v in best.items()},
            "ratio_half_over_none": round(best["0.5"] / best["0"], 3),
            "with_decoded_cache": round(best["0.5, decoded cache"] / best["0"], 3),
            "asked_at_least": [0.8, 0.85],
        },
    )


def pool_steps(lines: list[dict]) -> float:
    """Steps until as many cubes had been drawn as those admitted before the first step serve for, 8 draws each."""
    start = lines[0]["pool/accepted"]
    return next((m["step"] for m in lines if m["synthetic_seen"] >= 8 * start), float("inf"))
