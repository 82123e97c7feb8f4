"""What the gates say of samples, none chosen: `python -m benchmarks.study.flows [--generator RUN --name NAME]`.

The measure of every trial of a flow: the joint Frechet ratio over several seeds of noise, before anything is rejected.
"""

from __future__ import annotations

import torch

from benchmarks.common import record, subject
from benchmarks.quality.reconstructions import in_short
from synthgen.generator.generator import Generator
from synthgen.integration.artifacts import PACKAGED
from synthgen.quality.gates import load_gates
from synthgen.runs.processes.device import set_threads

CUBES, SEEDS, CHUNK = 400, (0, 1), 32


def measure(generator: str = PACKAGED, name: str = "packaged", gates_name: str = PACKAGED) -> None:
    """Sets of 400 have the narrowest limits of the packaged gates."""
    set_threads()
    gates, made = load_gates(gates_name), Generator.load(generator, "cpu")
    blocks = [range(start, min(start + CHUNK, CUBES)) for start in range(0, CUBES, CHUNK)]
    judged = {
        f"seed {seed}": in_short(gates.judge(torch.cat([made.decode(made.sample(b, seed)) for b in blocks]))[0])
        for seed in SEEDS
    }
    about = {"generator": made.hash, "gates": gates.hash, "cubes": CUBES, "temperature": made.temperature}
    record("flows", {"what": name, **about, "samples": judged})


if __name__ == "__main__":
    measure(*subject("--generator", "a generator or its run", __doc__))
