"""Speed of the supply, as ratios between things timed in turn: sampling, decoding, gates."""

from __future__ import annotations

import torch

from benchmarks.common import in_turn, record
from synthgen.generator.generator import Generator
from synthgen.integration.artifacts import PACKAGED
from synthgen.quality.gates import load_gates
from synthgen.runs.processes.device import set_threads

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
