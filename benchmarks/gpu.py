"""`make bench-gpu`: every GPU measurement and check, under 9 minutes, into results/gpu.json."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import torch

from benchmarks import ROOT
from benchmarks.common import record
from benchmarks.speed import augmentations, gates, loop, loop224, peers, sizes, supply


def main() -> None:
    if not torch.cuda.is_available():
        print("error: no CUDA device on this machine; the results say 'not measured on a GPU'", file=sys.stderr)
        sys.exit(2)
    tests = subprocess.run(
        [sys.executable, "-m", "pytest", "-m", "cuda", "tests"], cwd=ROOT, capture_output=True, text=True
    )
    print(tests.stdout[-2000:])
    sizes.measure("cuda")
    if importlib.util.find_spec("diffusers") and importlib.util.find_spec("vector_quantize_pytorch"):
        peers.measure("cuda", steps=200)
    else:
        print("peers: not measured, diffusers or vector-quantize-pytorch is not installed", file=sys.stderr)
    supply.supply("cuda")
    augmentations.run()
    gates.measure("cuda")
    loop224.measure()
    loop.measure_on_gpu()
    record("gpu", {"cuda_tests": tests.stdout.strip().splitlines()[-1]})
    sys.exit(tests.returncode)


if __name__ == "__main__":
    main()
