"""Does the base spectrum earn its bytes? Autoencoders by base grid and levels: `python -m benchmarks.study.base_grid`.

Each cell is trained as the recipe says, for the same number of steps, and judged on patients that it has not seen. A
cell that is in the results already, at these steps, is not trained again: runs of several days add up, and one that was
interrupted goes on where `--folder` keeps it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks import RESULTS, ROOT
from benchmarks.common import oxygen_interval, record
from synthgen.config import load
from synthgen.cubes.cohort.cohort import Cohort
from synthgen.cubes.phantom.cohort import simulate_cohort
from synthgen.generator.networks.autoencoder import Autoencoder, base_field
from synthgen.generator.training.autoencoder import train_autoencoder
from synthgen.generator.training.checkpoint import load_autoencoder
from synthgen.generator.training.fidelity import fidelity
from synthgen.generator.training.losses import psnr, spectral_angle, structure_similarity
from synthgen.integration.recipe import GeneratorTraining
from synthgen.quality.sets.signature_retention import tilt_retained
from synthgen.runs.processes.device import set_threads

GRIDS, LEVELS = (0, 2, 4), (1, 2, 4)
TRAINING_SEED, TRAINING_PATIENTS = 0, 512  # the packaged generator's cohort
UNSEEN_SEED, UNSEEN_PATIENTS = 77, 100


def measure(
    steps: int = 3000,
    compression: int = 4,
    data: str | None = None,
    cells: str | None = None,
    folder: str | None = None,
) -> None:
    """Train and judge every cell (grid x levels) that is not in the results yet; `cells` like '4x2,0x2' picks some."""
    set_threads()
    asked = [tuple(map(int, cell.split("x"))) for cell in cells.split(",")] if cells else []
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(folder or temporary)
        place.mkdir(parents=True, exist_ok=True)
        cohort = Path(data) if data else _eyes(place / "train.h5", TRAINING_PATIENTS, TRAINING_SEED).path
        unseen = _eyes(place / "unseen.h5", UNSEEN_PATIENTS, UNSEEN_SEED)
        for grid, levels in asked or [(g, n) for n in LEVELS for g in GRIDS]:
            what = f"compression {compression}, base grid {grid}, levels {levels}, {steps} steps"
            if what not in _done():
                record("base_grid", {"what": what, **cell(cohort, unseen, place, steps, compression, grid, levels)})


def cell(
    data: Path, unseen: Cohort, place: Path, steps: int, compression: int, grid: int, levels: int
) -> dict[str, float | str]:
    out = place / f"{compression}_{grid}x{levels}_{steps}"
    asked = {
        "data": str(data), "out": str(out), "cpu": not torch.cuda.is_available(), "autoencoder.minutes": 600,
        "autoencoder.steps": steps, "resume": any(out.glob("autoencoder/checkpoints/step_*")),
        "autoencoder.compression": compression, "autoencoder.base_grid": grid, "autoencoder.levels": levels,
    }  # fmt: skip
    recipe = load(GeneratorTraining, ROOT / "configs" / "phantom64.yaml", asked)
    loaded = load_autoencoder(train_autoencoder(recipe.autoencoder))
    return {"steps": loaded.made["steps"], **judge(loaded.model.cpu().eval(), unseen)}


def judge(model: Autoencoder, unseen: Cohort) -> dict[str, float | str]:
    """Figures of the reconstruction of unseen eyes, and the fraction of a blue tilt of 1 % that it keeps."""

    @torch.no_grad()
    def remake(cubes: torch.Tensor) -> torch.Tensor:
        parts = []
        for block in cubes.split(32):
            x = model.normalise(block)
            parts.append(model.denormalise(model(x, base_field(model.base(x), (x.shape[-2], x.shape[-1]))).x))
        return torch.cat(parts)

    real = torch.from_numpy(unseen.cubes())
    reconstructed = remake(real)
    found: dict[str, float | str] = {
        "psnr_db": round(float(psnr(real, reconstructed)), 2),
        "spectral_angle_deg": round(float(spectral_angle(real, reconstructed).mean()), 3),
        "ms_ssim": round(float(structure_similarity(model.normalise(real), model.normalise(reconstructed))), 4),
    }
    masks = unseen.masks()
    kept = fidelity(real.numpy(), reconstructed.numpy(), masks, unseen.wavelengths)
    found |= {name: round(value, 3) for name, value in kept.items()}
    low, high = oxygen_interval(real.numpy(), reconstructed.numpy(), masks, unseen.wavelengths)
    found["oxygen contrast kept, interval"] = f"[{low:.2f}, {high:.2f}]"
    c = model.config
    found["bytes of the codes"] = c.latent_size**2 * c.levels * (c.codes - 1).bit_length() / 8
    found["bytes of the base"] = 2 * c.bands * c.base_grid**2
    for name, half in (("tilt kept, whole eye", False), ("tilt kept, left half", True)):
        tilt = tilt_retained(
            remake, real, unseen.wavelengths, np.random.default_rng(0), left_half=half, patients=unseen.patient_id
        )
        found[name] = f"{tilt.value:.3f} [{tilt.low:.3f}, {tilt.high:.3f}]"
    return found


def _eyes(path: Path, patients: int, seed: int) -> Cohort:
    return Cohort.open(path) if path.exists() else simulate_cohort(path, patients, 64, seed=seed)


def _done() -> set[str]:
    path = RESULTS / "base_grid.json"
    return {run["what"] for run in json.loads(path.read_text())} if path.exists() else set()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--compression", type=int, default=4)
    parser.add_argument("--data", help="the training cohort; simulated if not given")
    parser.add_argument("--cells", help="grid x levels, like 4x2,0x2; all nine by default")
    parser.add_argument("--folder", help="where trainings are kept, to go on after an interruption")
    args = parser.parse_args()
    measure(args.steps, args.compression, args.data, args.cells, args.folder)
