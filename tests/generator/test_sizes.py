"""The recipes of the two real sizes train, resume and sample at full spatial size within 6 GB, with narrow networks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MOST_GB = 6.0
NARROW = {
    "autoencoder.encoder_channels": 32, "autoencoder.encoder_blocks": 1, "autoencoder.batch_size": 2,
    "autoencoder.codes": 128, "autoencoder.steps": 2, "autoencoder.crop": 64, "diffusion.channels": 32,
    "diffusion.batch_size": 2, "diffusion.validation_cubes": 2,
}  # fmt: skip
# A process of its own, since the peak of a process never falls again.
RUN = """
import json, resource, sys, torch
from synthgen.config import load
from synthgen.generator.generator import Generator
from synthgen.integration.recipe import GeneratorTraining, train_generator

recipe, asked = sys.argv[1], json.loads(sys.argv[2])
train_generator(load(GeneratorTraining, recipe, {**asked, "diffusion.steps": 1}))
folder = train_generator(load(GeneratorTraining, recipe, {**asked, "diffusion.steps": 2, "resume": True}))
made = Generator.load(folder, "cpu")
tokens = made.sample([3], seed=0, steps=1, sampler="euler")
cube = made.decode(tokens)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(json.dumps({"shape": list(cube.shape), "tokens": list(tokens.indices.shape), "peak_gb": peak,
                  "finite": bool(torch.isfinite(cube).all()), "steps": made.made["diffusion"]["steps"],
                  "tile": made.tile}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("size", [224, pytest.param(672, marks=pytest.mark.torture)])
def test_a_real_size_trains_resumes_and_samples_in_bounded_memory(size: int, tmp_path: Path, write_cohort):
    cohort = write_cohort(tmp_path / "eyes.h5", patients=4, bands=16, size=size)
    asked = {**NARROW, "data": str(cohort), "out": str(tmp_path / "run"), "cpu": True}
    call = [sys.executable, "-c", RUN, str(ROOT / "configs" / f"retina{size}.yaml"), json.dumps(asked)]
    done = subprocess.run(call, capture_output=True, text=True, cwd=tmp_path, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    side = size // 8
    assert found["shape"] == [1, 16, size, size] and found["tokens"] == [1, 1, side, side] and found["finite"]
    assert found["steps"] == 2 and found["tile"] == (28 if size == 672 else 0)
    assert found["peak_gb"] <= MOST_GB, f"{found['peak_gb']:.1f} GB"
