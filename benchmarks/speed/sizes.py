"""Cost of the recipes at 224 and 672 pixels, full width.

`make bench-gpu` measures it, or `python -m benchmarks.speed.sizes` anywhere.

Random weights, which cost what trained ones do: sampling and decoding against the batch, peak memory, fraction of the
decoder, utilisation of the device, in float32 as `Generator` samples and in bf16; and one training step of each stage.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import ROOT
from benchmarks.common import record
from synthgen.config import load
from synthgen.cubes.reflectance import BandStatistics
from synthgen.generator.config import AutoencoderConfig, AutoencoderDesign, FlowConfig, FlowDesign
from synthgen.generator.flow import Flow, flow_error, interpolate
from synthgen.generator.networks.autoencoder import Autoencoder
from synthgen.generator.tiling import decode_codes
from synthgen.integration.recipe import GeneratorTraining
from synthgen.runs.processes.device import set_threads

BANDS, EVALUATIONS = 16, 8
WIDTHS = (128, 256, 512)  # base channels of the original study
BATCHES = {224: (1, 4, 16, 64), 672: (1, 4, 8)}
# Of the data sheets, FLOP/s: float32 without tensor cores, dense bf16 without sparsity
PEAK = {"H100": (67e12, 989e12), "H200": (67e12, 989e12), "A100": (19.5e12, 312e12)}


def measure(device: str = "cuda", sizes=(224, 672), widths=WIDTHS, batches=None, repeats: int = 5) -> dict:
    """Every width at each size; recorded. A batch that does not fit is written down as such."""
    set_threads()
    found: dict[str, Any] = {"on": torch.cuda.get_device_name() if device == "cuda" else device}
    for size in sizes:
        recipe = load(GeneratorTraining, ROOT / "configs" / f"retina{size}.yaml")
        for width in widths:
            some = batches or BATCHES[size]
            found[f"{size}, 8/8/{width}"] = one(recipe, size, width, device, some, repeats)
    record("sizes", found)
    return found


def one(recipe: GeneratorTraining, size: int, width: int, device: str, batches, repeats: int) -> dict:
    coder, flow = networks(recipe, size, width, device)
    found: dict[str, Any] = {
        "parameters": {"flow": _parameters(flow), "autoencoder": _parameters(coder)},
        "sampling": {
            f"batch {n}": {
                "float32, as the generator samples": _or_reason(sampling, recipe, coder, flow, n, device, repeats),
                **(
                    {"bf16": _or_reason(sampling, recipe, coder, flow, n, device, repeats, True)}
                    if device == "cuda"
                    else {}
                ),
            }
            for n in batches
        },
        "training": {
            "flow": _or_reason(train_flow, flow, recipe.diffusion.batch_size if device == "cuda" else 1, device),
            "autoencoder": _or_reason(train_coder, coder, recipe, device),
        },
    }
    return found


def networks(recipe: GeneratorTraining, size: int, width: int, device: str) -> tuple[Autoencoder, Flow]:
    design = recipe.autoencoder.model_dump(include=set(AutoencoderDesign.model_fields))
    coder = Autoencoder(
        AutoencoderConfig(bands=BANDS, size=size, **design), BandStatistics((0.0,) * BANDS, (1.0,) * BANDS)
    )
    coder.quantiser.codebook.normal_()
    coder.quantiser.initialised.fill_(True)
    shape = recipe.diffusion.model_dump(include=set(FlowDesign.model_fields)) | {"channels": width}
    c = coder.config
    flow = Flow(
        FlowConfig(
            latent_channels=c.code_channels, latent_size=c.latent_size, bands=BANDS, base_grid=c.base_grid, **shape
        )
    )
    for net in (coder, flow):
        net.to(device, memory_format=torch.channels_last)
    return coder, flow


@torch.no_grad()
def sampling(
    recipe: GeneratorTraining, coder: Autoencoder, flow: Flow, batch: int, device: str, repeats: int, half: bool = False
) -> dict[str, float]:
    """ms of an evaluation and of a decode of the batch; cubes/s at 8 evaluations; memory; fraction of peak FLOP/s."""
    coder.eval()
    flow.eval()
    state, t = torch.randn(batch, flow.config.state_numbers, device=device), torch.full((1,), 0.5, device=device)
    field = torch.zeros(batch, BANDS, coder.config.size, coder.config.size, device=device)
    latents, _ = flow.statistics.colour(*flow.split(state))

    def evaluate() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=half):
            flow(state, t)

    def decode() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=half):
            decode_codes(coder, coder.quantiser(latents).values, field, recipe.diffusion.tile)

    _reset(device)
    evaluation, decoding = (_milliseconds(job, device, repeats) for job in (evaluate, decode))
    whole = EVALUATIONS * evaluation + decoding
    found = {
        "ms an evaluation": round(evaluation, 2),
        "ms a decode": round(decoding, 2),
        "cubes/s at 8 evaluations": round(1000 * batch / whole, 2),
        "decoder share": round(decoding / whole, 3),
    }
    work = EVALUATIONS * _flops(evaluate) + _flops(decode)
    found["TFLOP a cube"] = round(work / batch / 1e12, 3)
    if device == "cuda":
        found["peak GiB"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
        name = torch.cuda.get_device_name()
        for kind, most in PEAK.items():
            if kind in name:
                found["model FLOP utilisation"] = round(work / (whole / 1000) / most[half], 3)
    return found


def train_flow(flow: Flow, batch: int, device: str) -> dict[str, float]:
    """One step of the flow's training at the recipe's batch."""
    flow.train()
    optimiser = torch.optim.AdamW(flow.parameters(), 1e-4)
    data = torch.randn(batch, flow.config.state_numbers, device=device)

    def step() -> None:
        times = torch.rand(batch, device=device)
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            x, target = interpolate(data, torch.randn_like(data), flow.times(times))
            loss = flow_error(flow(x, times), target, flow.weight(1.0)).mean()
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()

    return _training(step, batch, device)


def train_coder(coder: Autoencoder, recipe: GeneratorTraining, device: str) -> dict[str, float]:
    """One step of the autoencoder's training (L1; the critics, which are small, left out) on the recipe's crops."""
    coder.train()
    batch = recipe.autoencoder.batch_size if device == "cuda" else 1
    side = recipe.autoencoder.crop or coder.config.size
    optimiser = torch.optim.AdamW(coder.parameters(), 1e-4)
    x = torch.randn(batch, BANDS, side, side, device=device)

    def step() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            out = coder(x, torch.zeros_like(x))
            loss = (out.x - x).abs().mean() + out.quantised.commitment
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()

    return _training(step, batch, device)


def _training(step: Callable[[], None], batch: int, device: str) -> dict[str, float]:
    _reset(device)
    ms = _milliseconds(step, device, 3)
    found = {"batch": batch, "ms a step": round(ms, 1), "cubes/s": round(1000 * batch / ms, 1)}
    if device == "cuda":
        found["peak GiB"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
    return found


def _or_reason(job: Callable[..., dict], *arguments) -> dict:
    try:
        return job(*arguments)
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return {"measured": "does not fit"}


def _flops(job: Callable[[], None]) -> int:
    with FlopCounterMode(display=False) as counter:
        job()
    return counter.get_total_flops()


def _reset(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _milliseconds(job: Callable[[], None], device: str, repeats: int) -> float:
    finish = torch.cuda.synchronize if device == "cuda" else lambda: None
    job()
    job()
    finish()
    start = time.perf_counter()
    for _ in range(repeats):
        job()
    finish()
    return 1000 * (time.perf_counter() - start) / repeats


def _parameters(net: torch.nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--sizes", type=int, nargs="*", default=[224, 672])
    parser.add_argument("--widths", type=int, nargs="*", default=list(WIDTHS))
    parser.add_argument("--batches", type=int, nargs="*")
    args = parser.parse_args()
    measure(args.device, args.sizes, args.widths, args.batches, repeats=5 if args.device == "cuda" else 2)
