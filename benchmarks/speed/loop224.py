"""The pretraining loop at the real size, with and without synthetic cubes, on a GPU.

    python -m benchmarks.speed.loop224

samples/s of `pretrain` at ratio 0.5 over ratio 0, in turn, at 224 pixels: a generator of 128 base channels with a ViT-S
and a ResNet-50 at R = 8, and the original study's 8/8/512 at R = 8 and at the smallest power of two that reaches 0.90.
The generators have random weights, which cost what trained ones do, and the gates are off: none are calibrated here.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks import ROOT
from benchmarks.common import record
from benchmarks.speed.sizes import networks
from synthgen.config import load
from synthgen.contracts import Provenance
from synthgen.cubes.cohort.cohort import Cohort
from synthgen.cubes.phantom.cohort import simulate_cohort
from synthgen.generator.generator import Generator
from synthgen.integration.options import Pretraining
from synthgen.integration.pretrain import pretrain
from synthgen.integration.recipe import GeneratorTraining
from synthgen.runs.folder import read_metrics
from synthgen.runs.processes.device import set_threads

BACKBONES = ("vit_small_patch16_224", "resnet50")
WIDTH, WIDE = 128, 512  # base channels: what a training loop can afford, and the original study's choice
ASKED, MOST_REUSE = 0.90, 128
COUNTED = 0.5  # fraction of the steps that are timed, the last ones


def measure(
    size: int = 224,
    batch: int = 64,
    steps: int = 40,
    patients: int = 40,
    widths: tuple[int, int] = (WIDTH, WIDE),
    backbones: tuple[str, ...] = BACKBONES,
) -> dict[str, Any]:
    """Rates and their ratios; recorded."""
    set_threads()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    found: dict[str, Any] = {
        "on": torch.cuda.get_device_name() if device == "cuda" else device,
        "size": size, "batch": batch, "steps": steps, "asked_at_least": ASKED,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        cohort = simulate_cohort(folder / "eyes.h5", patients, size, seed=3)
        narrow, wide = (_generator(folder / str(width), cohort, size, width, device) for width in widths)
        for backbone in backbones:
            rate = _rates(cohort, folder / backbone, backbone, batch, steps)
            none, half = rate("0", narrow, 8), rate("0.5", narrow, 8)
            found[f"{backbone}, 8/8/{widths[0]}"] = _row(none, half)
        ratios: dict[str, float] = {}
        reuse, backbone = 8, backbones[-1]
        rate = _rates(cohort, folder / f"wide_{backbone}", backbone, batch, steps)
        none = rate("0", wide, 8)
        while reuse <= MOST_REUSE and max(ratios.values(), default=0) < ASKED:
            ratios[f"R {reuse}"] = round(rate("0.5", wide, reuse) / none, 3)
            reuse *= 2
        found[f"{backbone}, 8/8/{widths[1]}"] = ratios
    record("loop224", found)
    return found


def _row(none: float, half: float) -> dict[str, float]:
    return {"samples/s at ratio 0": round(none, 1), "at 0.5": round(half, 1), "ratio": round(half / none, 3)}


def _generator(folder: Path, cohort: Cohort, size: int, width: int, device: str) -> str:
    recipe = load(GeneratorTraining, ROOT / "configs" / "retina224.yaml")
    coder, flow = networks(recipe, size, width, device)
    provenance = Provenance.of("0" * 32, ["nobody"])
    generator = Generator(
        coder.cpu(), flow.cpu(), cohort.wavelengths, provenance, chunk=recipe.diffusion.chunk, half=True
    )
    generator.save(folder)
    return str(folder)


def _rates(cohort: Cohort, folder: Path, backbone: str, batch: int, steps: int):
    """rate(ratio, generator, reuse): samples/s of a run's last steps."""

    def rate(ratio: str, generator: str, reuse: int) -> float:
        out = folder / f"{ratio}-{reuse}"
        config = Pretraining(
            data=str(cohort.path), generator=generator, synthetic_ratio=ratio, reuse=reuse, gates="off",
            backbone=backbone, batch_size=batch, steps=steps, log_every=1, checkpoint_every=10**6, monitor_every=0,
            out=str(out),
        )  # fmt: skip
        lines = [m for m in read_metrics(pretrain(config)) if "samples_seen" in m]
        first, last = lines[int((1 - COUNTED) * steps)], lines[-1]
        return (last["samples_seen"] - first["samples_seen"]) / (last["time"] - first["time"])

    return rate


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--patients", type=int, default=40)
    parser.add_argument("--widths", type=int, nargs=2, default=[WIDTH, WIDE])
    parser.add_argument("--backbones", nargs="*", default=list(BACKBONES))
    args = parser.parse_args()
    measure(args.size, args.batch, args.steps, args.patients, tuple(args.widths), tuple(args.backbones))
