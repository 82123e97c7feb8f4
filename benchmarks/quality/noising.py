"""At which noise a generator goes wrong: `python -m benchmarks.quality.noising`.

Real cubes of patients never seen are encoded, noised to a time t and sampled back. What their Frechet distance gains
from one t to the next is lost by the flow between them: near t = 1 the layout of the eye, near 0 its texture; what is
there at t = 0 is the autoencoder's.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.common import record
from benchmarks.quality.sharpness import coordinates
from synthgen.cubes.phantom.cohort import simulate_cohort
from synthgen.generator.generator import Generator
from synthgen.generator.networks.autoencoder import base_field
from synthgen.generator.samplers import heun
from synthgen.quality.gates import load_gates
from synthgen.quality.sets.moments import frechet, moments
from synthgen.runs.processes.device import pick_device, set_threads

TIMES = (0.0, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 1.0)
STEPS = 24  # of heun from t = 1; fewer from less
SPACES = ("joint", "encoder", "structures", "spectra")
SEED, _BATCH = 9_272, 64


@torch.no_grad()
def measure(generator_name: str = "phantom64", gates_name: str = "phantom64", count: int = 1000, device=None) -> dict:
    """FD(real, real noised and sampled back) over FD(real, other real), by time, sets of `count` cubes."""
    set_threads()
    gates, generator = load_gates(gates_name), Generator.load(generator_name, pick_device(device))
    with tempfile.TemporaryDirectory() as folder:
        cohort = simulate_cohort(Path(folder) / "eyes.h5", patients=count, size=generator.size, seed=SEED)
        halves = np.split(np.arange(2 * count), 2)
        real, other = (
            [torch.from_numpy(cohort.cubes(part)) for part in np.split(half, range(_BATCH, count, _BATCH))]
            for half in halves
        )
    space = {k: moments(v) for k, v in coordinates(gates, real).items() if k in SPACES}
    null = {k: float(frechet(space[k], moments(v))[0]) for k, v in coordinates(gates, other).items() if k in SPACES}
    found = {}
    for time in TIMES:
        torch.manual_seed(0)
        made = coordinates(gates, (sample_back(generator, part, time).cpu() for part in other))
        ratios = {k: float(frechet(space[k], moments(made[k]))[0]) / null[k] for k in SPACES}
        found[f"{time:g}"] = {k: float(f"{v:.3g}") for k, v in ratios.items()}
        print(time, found[f"{time:g}"], flush=True)
    value = {"generator": generator.hash, "gates": gates.hash, "cubes": count, "ratio_by_time": found}
    record("noising", value)
    return value


def sample_back(generator: Generator, cubes: Tensor, time: float) -> Tensor:
    """Cubes [N, C, H, W] -> the same, noised to `time` in the latent, integrated to 0, quantised and decoded."""
    coder, flow, side = generator.autoencoder, generator.flow, (generator.size, generator.size)
    x = coder.normalise(cubes.to(generator.device))
    base = coder.base(x)
    state = flow.statistics.whiten(coder.code_vectors(x - base_field(base, side)), base)
    state = (1 - time) * state + time * torch.randn(state.shape).to(state)
    steps = round(STEPS * time)
    times = [time * (1 - k / steps) for k in range(steps + 1)] if steps else [0.0]
    sigma = (time**2 + ((1 - time) * flow.sigma_data()) ** 2).sqrt()
    motion = lambda y, t: flow.motion(y, torch.full((1,), t, device=y.device))
    state = heun(motion, state / sigma, times, flow.angle) * flow.sigma_data()
    latents, base = flow.statistics.colour(*flow.split(state))
    values = coder.quantiser.decode(coder.quantiser(latents).indices)
    return coder.denormalise(coder.decode_codes(values, base_field(base.half(), side)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--generator", default="phantom64")
    parser.add_argument("--gates", default="phantom64")
    parser.add_argument("--count", type=int, default=1000)
    args = parser.parse_args()
    measure(args.generator, args.gates, args.count)
