"""The erased signature: how often an autoencoder that loses a weak blue tilt is found out.

    python -m benchmarks.quality.erasure

The packaged autoencoder keeps nearly all of a tilt; what it decodes is then brought back toward its own mean along the
tilt, so that a planted fraction of it is left. Shares are measured once for every eye; each repetition draws eyes of n
different patients.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from benchmarks.common import record
from synthgen.contracts import Status
from synthgen.cubes.phantom.simulate import simulate_cube
from synthgen.cubes.phantom.spectra import Signature
from synthgen.cubes.reflectance import log_reflectance, reflectance
from synthgen.generator.generator import Generator
from synthgen.integration.supply.signature_check import LEAST, status_of
from synthgen.quality.features.handcrafted import field_of_view
from synthgen.quality.sets.signature_retention import TiltRetained, tilt_retained
from synthgen.runs.processes.device import set_threads
from synthgen.runs.randomness import numpy_stream
from synthgen.science.intervals import exact_interval

PATIENTS, SEED = 400, 33
AMPLITUDES, LEFT = (0.01, 0.02), (0.0, 0.5, 0.8, 1.0)
SIZES, REPEATS = (50, 200), 100


def measure(name: str = "phantom64") -> dict:
    """Fraction of verdicts that fail, by amplitude, place, planted share and n; recorded in results/erasure.json."""
    set_threads()
    generator = Generator.load(name, "cpu")
    nm = generator.wavelengths
    eyes = [simulate_cube(p, ("OD", "OS")[p % 2], 0, generator.size, SEED).cube for p in range(PATIENTS)]
    cubes, found = torch.from_numpy(np.stack(eyes)), {}
    remake = remembered(lambda x: generator.decode(generator.encode(x)))
    for amplitude in AMPLITUDES:
        for half in (False, True):
            for left in LEFT:
                made = eraser(remake, nm, left, half)
                rng = numpy_stream("erasure")
                kept = tilt_retained(made, cubes, nm, rng, amplitude=amplitude, left_half=half, repeats=10)
                where = "left half" if half else "whole eye"
                found[f"{amplitude:.0%}, {where}, {left:.0%} left by plan"] = {
                    "share left": round(kept.value, 3),
                    **{f"failed at n = {n}": _failed(kept.cubes, n) for n in SIZES},
                }
    record("erasure", {"generator": generator.hash, "patients": PATIENTS, "limit": LEAST, "found": found})
    return found


def remembered(remake: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """`remake`, computed once for the same cubes: they come again for every share that is left."""
    held: dict[bytes, Tensor] = {}

    def made(cubes: Tensor) -> Tensor:
        key = hashlib.blake2b(cubes.numpy().tobytes()).digest()
        if key not in held:
            held[key] = remake(cubes)
        return held[key]

    return made


def eraser(remake: Callable[[Tensor], Tensor], nm, left: float, half: bool) -> Callable[[Tensor], Tensor]:
    """`remake`, of whose mean log-spectra (in the half where the tilt is) only a share along the tilt is left."""
    law = torch.from_numpy(Signature(0.01).law(np.asarray(nm))).float()
    along = law / law.square().sum()

    def made(cubes: Tensor) -> Tensor:
        out = remake(cubes)
        logs, inside = log_reflectance(out), field_of_view(out)
        if half:
            inside[..., out.shape[-1] // 2 :] = False
        mean = (logs * inside[:, None]).sum((2, 3)) / inside.sum((1, 2))[:, None]
        change = (left - 1) * (mean @ along)[:, None] * law
        return torch.where(inside[:, None], reflectance(logs + change[:, :, None, None]), out)

    return made


def _failed(shares: np.ndarray, n: int) -> list[float]:
    """Fraction of repetitions that fail, and its exact 95 % interval."""
    hits = 0
    for k in range(REPEATS):
        rng = numpy_stream("erasure", n, k)
        some = rng.permutation(len(shares))[:n]
        hits += status_of(TiltRetained.of(shares[some], np.arange(n), rng)) == Status.FAIL
    return [hits / REPEATS, *(round(v, 3) for v in exact_interval(hits, REPEATS))]


if __name__ == "__main__":
    for what, figures in measure().items():
        print(what, figures)
