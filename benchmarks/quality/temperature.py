"""How much noise a generator should start from: `python -m benchmarks.quality.temperature`.

The same ids at several temperatures of the latent's noise: variance of the sampled latents over that of real ones, the
share that the gates accept, and the Frechet distance from real eyes over that between two sets of real ones.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks.common import record
from benchmarks.quality.sharpness import coordinates
from synthgen.cubes.cohort.cohort import Cohort
from synthgen.cubes.phantom.cohort import simulate_cohort
from synthgen.generator.generator import Generator
from synthgen.quality.gates import load_gates
from synthgen.quality.sets.moments import frechet, moments
from synthgen.runs.processes.device import pick_device, set_threads

TEMPERATURES = (0.95, 1.0, 1.05, 1.1, 1.15, 1.2)
SPACES = ("joint", "encoder", "structures", "spectra")
SEED, CHUNK = 9_373, 64


def measure(generator_name: str = "phantom64", gates_name: str = "phantom64", count: int = 400, device=None) -> None:
    """`count` cubes at each temperature, and at that of the generator; two sets of as many real eyes, never seen."""
    set_threads()
    gates, generator = load_gates(gates_name), Generator.load(generator_name, pick_device(device))
    with tempfile.TemporaryDirectory() as folder:
        cohort = simulate_cohort(Path(folder) / "eyes.h5", patients=count, size=generator.size, seed=SEED)
        real, other = (_real(cohort, half) for half in np.split(np.arange(2 * count), 2))
    accepted = gates(other).accept.float().mean()
    reference, null = coordinates(gates, real.split(CHUNK)), coordinates(gates, other.split(CHUNK))
    null = {space: _distance(reference[space], null[space]) for space in SPACES}
    variance = _latents(generator, generator.encode(real.to(generator.device))).var(0).mean((1, 2))
    found, own = {}, generator.temperature
    for temperature in sorted({*TEMPERATURES, own}):
        generator.temperature = temperature
        tokens = generator.sample(range(count), 0)
        cubes = torch.cat([generator.decode(tokens[i : i + CHUNK]).cpu() for i in range(0, count, CHUNK)])
        accept = torch.cat([gates(block).accept for block in cubes.split(CHUNK)])
        made = coordinates(gates, cubes.split(CHUNK))
        found[f"{temperature:g}"] = {
            "variance_over_real": round(float((_latents(generator, tokens).var(0).mean((1, 2)) / variance).mean()), 3),
            "accepted": round(float(accept.float().mean()), 3),
            **{f"{s}_over_real": round(_distance(reference[s], made[s]) / null[s], 2) for s in SPACES},
        }
        print(temperature, found[f"{temperature:g}"], flush=True)
    record(
        "temperature",
        {
            "generator": generator.hash,
            "gates": gates.hash,
            "cubes": count,
            "its_own": own,
            "real_accepted": round(float(accepted), 3),
            "real_against_real": {space: round(value, 4) for space, value in null.items()},
            "temperatures": found,
        },
    )


def _real(cohort: Cohort, index: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(cohort.cubes(index))


@torch.no_grad()
def _latents(generator: Generator, tokens) -> torch.Tensor:
    """What the codes stand for, [N, D, h, w]."""
    return torch.cat([generator.autoencoder.quantiser.decode(part).cpu() for part in tokens.indices.split(CHUNK)])


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(frechet(moments(a), moments(b))[0])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--generator", default="phantom64")
    parser.add_argument("--gates", default="phantom64")
    parser.add_argument("--count", type=int, default=400)
    args = parser.parse_args()
    measure(args.generator, args.gates, args.count)
