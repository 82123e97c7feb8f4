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


def loop(steps: int = 40, device_note: str = "cpu") -> None:
    """samples/s of the pretraining at ratio 0.5 over ratio 0, the two run in turn, twice each."""
    rates: dict[str, list[float]] = {"0": [], "0.5": []}
    with tempfile.TemporaryDirectory() as folder:
        cohort = default_cohort(folder)
        for turn in range(2):
            for ratio in rates:
                run = pretrain(
                    Pretraining(
                        data=str(cohort.path),
                        synthetic_ratio=ratio,
                        gates="report",
                        steps=steps,
                        certify_count=64,
                        log_every=steps // 2,
                        checkpoint_every=10**6,
                        out=str(Path(folder) / f"{ratio}-{turn}"),
                    )
                )
                lines = [m for m in read_metrics(run) if "samples_seen" in m]
                first, last = lines[0], lines[-1]  # the second half: the pool is warm
                seen = last["samples_seen"] - first["samples_seen"]
                rates[ratio].append(seen / (last["time"] - first["time"]))
    best = {ratio: max(found) for ratio, found in rates.items()}
    record(
        "loop_speed",
        {
            "on": device_note,
            "batch": 64,
            "reuse": 8,
            "steps": steps,
            "pool": last,
            "samples_per_second": {k: round(v, 1) for k, v in best.items()},
            "ratio_half_over_none": round(best["0.5"] / best["0"], 3),
        },
    )
