"""`make bench-gpu`: every GPU measurement and check, under 9 minutes, into results/gpu.json."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import torch

from benchmarks import gates_speed, page, speed
from benchmarks.common import record
from synthgen.cubes.reflectance import BandStatistics
from synthgen.generator.autoencoder import Autoencoder
from synthgen.generator.config import AutoencoderConfig, FlowConfig
from synthgen.generator.flow import Flow

ROOT = Path(__file__).parents[1]
WIDTHS = (128, 256, 512)  # base channels of the original study
REPEATS = 10


def full_width() -> dict:
    """The 8/8/C networks at 224x224x16, random weights: ms per network evaluation and per decode, peak memory."""
    found = {}
    for width in WIDTHS:
        design = AutoencoderConfig(bands=16, size=224, compression=8, latent_channels=8, base_grid=4)
        coder = Autoencoder(design, BandStatistics((0.0,) * 16, (1.0,) * 16)).cuda().eval()
        flow = Flow(
            FlowConfig(channels=width, multipliers=(1, 2, 4), latent_channels=8, latent_size=28, bands=16, base_grid=4)
        ).cuda()
        state = torch.randn(16, flow.config.state_numbers, device="cuda")
        codes, field = torch.randn(16, 8, 28, 28, device="cuda"), torch.zeros(16, 16, 224, 224, device="cuda")
        t = torch.full((16,), 0.5, device="cuda")
        torch.cuda.reset_peak_memory_stats()
        with torch.no_grad(), torch.autocast("cuda", torch.bfloat16):
            step = _milliseconds(lambda f=flow, s=state, t=t: f(s, t))
            decode = _milliseconds(lambda c=coder, z=codes, f=field: c.decode_codes(z, f))
        per_cube = (8 * step + decode) / 16
        found[f"8/8/{width}"] = {
            "parameters_millions": round(sum(p.numel() for p in flow.parameters()) / 1e6, 1),
            "ms_per_evaluation_of_16": round(step, 2),
            "ms_per_decode_of_16": round(decode, 2),
            "cubes_per_second_at_8_steps": round(1000 / per_cube, 1),
            "decoder_share": round(decode / 16 / per_cube, 3),
            "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2),
        }
    return found


def _milliseconds(job) -> float:
    for _ in range(3):
        job()
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(REPEATS):
        job()
    torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - start) / REPEATS


def main() -> None:
    if not torch.cuda.is_available():
        print("error: no CUDA device on this machine; the results say 'not measured on a GPU'", file=sys.stderr)
        sys.exit(2)
    tests = subprocess.run(
        [sys.executable, "-m", "pytest", "-m", "cuda", "tests"], cwd=ROOT, capture_output=True, text=True
    )
    print(tests.stdout[-2000:])
    speed.supply("cuda")
    gates_speed.measure("cuda")
    speed.loop(steps=60, device_note=torch.cuda.get_device_name())
    record("gpu", {"cuda_tests": tests.stdout.strip().splitlines()[-1], "full_width_224": full_width()})
    page.write()
    sys.exit(tests.returncode)


if __name__ == "__main__":
    main()
