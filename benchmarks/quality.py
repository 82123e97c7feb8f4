"""Quality of the packaged generator on phantom patients that nothing has seen."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks.common import record
from synthgen.cubes.phantom import simulate_cohort
from synthgen.generator.generator import Generator
from synthgen.generator.losses import psnr, spectral_angle
from synthgen.integration.supply import PACKAGED, certify
from synthgen.quality.gates import load_gates
from synthgen.runs.device import set_threads

UNSEEN_SEED, UNSEEN_PATIENTS = 77, 150


def packaged() -> None:
    """Verdict on 300 synthetic cubes; the same gates on 300 fresh real ones; reconstruction of those."""
    set_threads()
    generator, gates = Generator.load(PACKAGED, "cpu"), load_gates(PACKAGED)
    with tempfile.TemporaryDirectory() as folder:
        fresh = simulate_cohort(Path(folder) / "fresh.h5", patients=UNSEEN_PATIENTS, size=64, seed=UNSEEN_SEED)
        real = torch.from_numpy(fresh.cubes())
    synthetic = certify(generator, gates, count=len(real), seed=3, steps=8, sampler="ab2")
    control = gates.certify(real)
    tokens = generator.encode(real)
    remade = generator.decode(tokens)
    used = np.unique(tokens.indices.numpy()).size / generator.config.codes
    record(
        "packaged_quality",
        {
            "generator": generator.hash,
            "gates": gates.hash,
            "synthetic": synthetic.model_dump(mode="json"),
            "fresh_real": control.model_dump(mode="json"),
            "reconstruction": {
                "psnr_db": round(float(psnr(real, remade)), 2),
                "spectral_angle_deg": round(float(spectral_angle(real, remade).mean()), 3),
                "codes_used": round(used, 3),
            },
        },
    )
