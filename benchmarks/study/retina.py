"""What a short training at the real size gives: `python -m benchmarks.study.retina --minutes 50 --folder FOLDER`.

The recipe for 224 pixels (compression 8, 8 latent channels, one level) with narrow networks: the autoencoder on crops,
then the flow, some minutes each; judged on patients that they have not seen. The same decoder then decodes a cube of
672 pixels, whole and in tiles. The folder keeps the trainings, goes on after an interruption, and holds the pictures:
real, reconstructed and sampled cubes at six wavelengths (`cubes.png`), and the large one (`cube672.png`).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks import ROOT
from benchmarks.common import record
from benchmarks.study.base_grid import judge
from synthgen.config import load
from synthgen.cubes.cohort.cohort import Cohort
from synthgen.cubes.phantom.cohort import simulate_cohort
from synthgen.generator.generator import Generator
from synthgen.generator.networks.autoencoder import Autoencoder, base_field
from synthgen.generator.tiling import decode_codes
from synthgen.generator.training.losses import psnr
from synthgen.integration.recipe import GeneratorTraining, train_generator
from synthgen.report.contact_sheet import contact_sheet
from synthgen.runs.processes.device import pick_device, set_threads

TRAINING_SEED, UNSEEN_SEED, LARGE_SEED = 50, 51, 52
NARROW = {  # what an hour on a CPU core can train
    "autoencoder.encoder_channels": 32, "autoencoder.decoder_channels": 32, "autoencoder.batch_size": 4,
    "autoencoder.ms_ssim_weight": 0.0, "diffusion.channels": 64, "diffusion.batch_size": 16,
    "diffusion.learning_rate": 1e-3, "diffusion.ema": 0.998, "diffusion.warmup": 100,
}  # fmt: skip
SAMPLED, STEPS, TILE = 8, 8, 28


def measure(folder: Path, minutes: float = 50, patients: int = 128, unseen: int = 30) -> dict[str, Any]:
    """Train what is not trained yet in `folder`, judge it, draw it; records and returns the figures."""
    set_threads()
    folder.mkdir(parents=True, exist_ok=True)
    cpu = pick_device(None).type == "cpu"
    cohort = _eyes(folder / "train224.h5", patients, 224, TRAINING_SEED)
    asked = {
        **NARROW, "data": str(cohort.path), "out": str(folder / "run"), "resume": True, "cpu": cpu,
        "autoencoder.minutes": minutes, "diffusion.minutes": minutes,
    }  # fmt: skip
    recipe = load(GeneratorTraining, ROOT / "configs" / "retina224.yaml", asked)
    generator = Generator.load(train_generator(recipe), "cpu")
    fresh = _eyes(folder / "unseen224.h5", unseen, 224, UNSEEN_SEED)
    coder = generator.autoencoder.eval()
    begun = time.perf_counter()
    made = generator.decode(generator.sample(range(SAMPLED), 0, STEPS, "ab2"))
    seconds = (time.perf_counter() - begun) / SAMPLED
    some = torch.from_numpy(fresh.cubes(range(4)))
    rows = {"simulated": some, "reconstructed": generator.decode(generator.encode(some)), "synthetic": made[:4]}
    note = f"224 pixels, {minutes:g} minutes each for autoencoder and flow, narrow networks, simulated eyes"
    contact_sheet(folder / "cubes.png", {k: v.numpy() for k, v in rows.items()}, fresh.wavelengths, "", note)
    value = {
        "on": "cpu" if cpu else torch.cuda.get_device_name(),
        "trained": {stage: _trained(figures) for stage, figures in generator.made.items()},
        "parameters": {
            "autoencoder": sum(p.numel() for p in coder.parameters()),
            "flow": sum(p.numel() for p in generator.flow.parameters()),
        },
        "cubes": {"trained on": len(cohort), "judged on": len(fresh)},
        "reconstruction": judge(coder, fresh),
        "sampled_s_a_cube": round(seconds, 2),
        "a cube of 672 pixels": large(coder, _eyes(folder / "large.h5", 1, 672, LARGE_SEED), folder / "cube672.png"),
    }
    record("retina224", value)
    return value


@torch.no_grad()
def large(coder: Autoencoder, cohort: Cohort, picture: Path) -> dict[str, float]:
    """A cube of 672 pixels through the autoencoder that learned at 224: decoded whole and in tiles."""
    real = torch.from_numpy(cohort.cubes([0]))
    x = coder.normalise(real)
    field = base_field(coder.base(x), (x.shape[-2], x.shape[-1]))
    values = coder.quantiser(coder.code_vectors(x - field)).values
    decoded, seconds = {}, {}
    for name, tile in (("whole", 0), ("tiles", TILE)):
        begun = time.perf_counter()
        decoded[name] = coder.denormalise(decode_codes(coder, values, field, tile))
        seconds[name] = time.perf_counter() - begun
    rows = {"simulated": real.numpy(), "decoded in tiles": decoded["tiles"].numpy()}
    note = f"672 pixels, decoder trained at 224, tiles of {TILE * coder.config.compression} pixels"
    contact_sheet(picture, rows, cohort.wavelengths, "", note)
    return {
        "psnr_db": round(float(psnr(real, decoded["tiles"])), 2),
        "largest difference of tiles from whole": float((decoded["tiles"] - decoded["whole"]).abs().max()),
        "s_whole": round(seconds["whole"], 2),
        "s_tiles": round(seconds["tiles"], 2),
    }


def _trained(figures: dict[str, Any]) -> dict[str, Any]:
    return {k: float(f"{v:.4g}") for k, v in figures.items() if isinstance(v, int | float)}


def _eyes(path: Path, patients: int, size: int, seed: int) -> Cohort:
    return Cohort.open(path) if path.exists() else simulate_cohort(path, patients, size, seed=seed)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where data, trainings and pictures are kept")
    parser.add_argument("--minutes", type=float, default=50, help="for each of the two trainings")
    parser.add_argument("--patients", type=int, default=128, help="to learn from; two eyes each")
    parser.add_argument("--unseen", type=int, default=30, help="patients to judge on")
    args = parser.parse_args()
    measure(args.folder, args.minutes, args.patients, args.unseen)
