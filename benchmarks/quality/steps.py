"""How few steps are enough: Frechet distance of the same ids by solver and steps.

python -m benchmarks.quality.steps
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks.common import record
from benchmarks.quality.sharpness import coordinates
from synthgen.cubes.phantom.cohort import simulate_cohort
from synthgen.generator.generator import Generator
from synthgen.quality.gates import load_gates
from synthgen.quality.sets.moments import frechet, moments
from synthgen.runs.processes.device import pick_device, set_threads
from synthgen.science.bootstrap import draw_counts, middle

SWEEP = {"ab2": (2, 4, 8, 16, 32, 64), "euler": (2, 4, 8, 16), "heun": (2, 4, 8)}  # heun evaluates twice a step
REFERENCE = ("ab2", 64)
SPACES = ("joint", "encoder", "structures", "spectra")
SEED, DRAWS = 9_272, 200
_CHUNK = 128


def measure(generator_name: str = "phantom64", gates_name: str = "phantom64", count: int = 2000, device=None) -> dict:
    """FD(real, synthetic) over FD(real, other real), sets of `count` cubes, and its ratio to 64 steps on the same ids.

    Intervals: 95 %, bootstrap over ids, the same draws for every solver; the real sets are as they are.
    """
    set_threads()
    device = pick_device(device)
    gates, generator = load_gates(gates_name), Generator.load(generator_name, device)
    with tempfile.TemporaryDirectory() as folder:
        cohort = simulate_cohort(Path(folder) / "eyes.h5", patients=count, size=generator.size, seed=SEED)
        sets = [coordinates(gates, _blocks(cohort, half)) for half in np.split(np.arange(2 * count), 2)]
    real, other = ({space: moments(s[space]) for space in SPACES} for s in sets)
    null = {space: float(frechet(real[space], other[space])[0]) for space in SPACES}
    weights = draw_counts(count, np.random.default_rng(0), DRAWS).astype(float)
    weights = np.concatenate([np.ones((1, count)), weights])
    distances: dict[tuple[str, int], dict[str, np.ndarray]] = {}
    for solver, sweep in SWEEP.items():
        for steps in sweep:
            tokens = generator.sample(range(count), 0, steps, solver)
            made = coordinates(gates, (generator.decode(tokens[i : i + _CHUNK]).cpu() for i in range(0, count, _CHUNK)))
            distances[solver, steps] = {space: frechet(real[space], moments(made[space], weights)) for space in SPACES}
            print(solver, steps, {k: round(float(v[0] / null[k]), 2) for k, v in distances[solver, steps].items()})
    last = distances[REFERENCE]
    found = {
        f"{solver} {steps}": {
            "evaluations": steps * (2 if solver == "heun" else 1),
            **{space: _triple(d[space] / null[space]) for space in SPACES},
            "joint over ab2 64": _triple(d["joint"] / last["joint"]),
        }
        for (solver, steps), d in distances.items()
    }
    value = {
        "generator": generator.hash,
        "gates": gates.hash,
        "ids": count,
        "real_against_real": {k: float(f"{v:.4g}") for k, v in null.items()},
        "steps": found,
    }
    record("steps", value)
    return value


def _triple(values: np.ndarray) -> list[float]:
    """The value and its interval: the distribution of the draws after it, put around the value.

    A draw repeats cubes, which lengthens the distance by about as much in all of them; centring takes that off.
    """
    low, high = middle(values[1:] - values[1:].mean())
    return [float(f"{v:.4g}") for v in (values[0], values[0] + low, values[0] + high)]


def _blocks(cohort, index: np.ndarray):
    for start in range(0, len(index), _CHUNK):
        yield torch.from_numpy(cohort.cubes(index[start : start + _CHUNK]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--generator", default="phantom64")
    parser.add_argument("--gates", default="phantom64")
    parser.add_argument("--count", type=int, default=2000)
    args = parser.parse_args()
    measure(args.generator, args.gates, args.count)
