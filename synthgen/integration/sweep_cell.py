"""One job of a sweep, in a process of its own: train a cell's autoencoder and screen it, or train, time and judge."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from synthgen.config import load
from synthgen.cubes.cohort import Cohort
from synthgen.errors import one_line_errors
from synthgen.generator.autoencoder import Autoencoder, base_field
from synthgen.generator.autoencoder_folder import load_autoencoder
from synthgen.generator.cube_source import split_index, spread
from synthgen.generator.generator import Generator
from synthgen.integration.recipe import _resumable
from synthgen.integration.sweep_plan import Cell, Sweep, cells, recipe
from synthgen.integration.train import train_autoencoder, train_diffusion
from synthgen.quality.gates import Gates, load_gates
from synthgen.quality.metrics import bootstrap_pairwise, frechet_distance, mean_pairwise
from synthgen.quality.moments import divergences, frechet, moments
from synthgen.quality.similarity import similarity_matrix, to_images
from synthgen.runs.device import pick_device
from synthgen.runs.files import write_json
from synthgen.runs.folder import environment

DRAWS, ROUNDS, IMAGES, REAL, BLOCK = 200, 3, 60, 1000, 32
VESSELS = {"kl_vein": "vein", "kl_artery": "artery", "kl_disc": "disc"}


def run_coder(sweep: Sweep, cell: Cell) -> None:
    """Train the autoencoder unless it is there, and write `screen.json` with its interpolation distance."""
    config = recipe(sweep, cell, sweep.out).autoencoder
    if not (Path(config.out) / "autoencoder").is_dir():
        train_autoencoder(_resumable(config))
    model = load_autoencoder(config.out).model.to(_device(sweep))
    real, _ = _real(sweep)
    gates = load_gates(sweep.gates)
    made = interpolated(model, real)
    distance = frechet_distance(*(_table(gates, x)["encoder"].astype(float) for x in (real, made)))
    write_json(Path(config.out) / "screen.json", {"interpolation_frechet": distance})


@torch.no_grad()
def interpolated(model: Autoencoder, cubes: torch.Tensor) -> torch.Tensor:
    """Cubes [N, C, H, W] half way in latent space from each cube to its nearest neighbour, quantised and decoded."""
    device, latents, bases = model.quantiser.codebook.device, [], []
    for part in cubes.split(BLOCK):
        x = model.normalise(part.to(device))
        base = model.base(x)
        latents.append(model.code_vectors(x - base_field(base, (x.shape[-2], x.shape[-1]))).cpu())
        bases.append(base.float().cpu())
    z, b = torch.cat(latents), torch.cat(bases)
    gaps = torch.cdist(z.flatten(1), z.flatten(1)).fill_diagonal_(float("inf"))
    near = gaps.argmin(1)
    out = []
    for part in torch.arange(len(z)).split(BLOCK):
        middle, base = ((v[part] + v[near[part]]) / 2 for v in (z, b))
        values = model.quantiser(middle.to(device)).values
        field = base_field(base.half().to(device), (cubes.shape[-2], cubes.shape[-1]))
        out.append(model.denormalise(model.decode_codes(values, field)).cpu())
    return torch.cat(out)


def run_cell(sweep: Sweep, cell: Cell) -> dict[str, Any]:
    """Train what is not trained, sample, time, judge; the record of the cell."""
    config = recipe(sweep, cell, sweep.out).diffusion
    folder = Path(config.out) / "generator"
    if not folder.is_dir():
        folder = train_diffusion(_resumable(config))
    generator = Generator.load(folder, _device(sweep))
    rate = speed(generator, sweep.timed, cell.steps, sweep.sampler)
    tokens = generator.sample(range(sweep.samples), 0, cell.steps, sweep.sampler)
    made = torch.cat([generator.decode(tokens[i : i + BLOCK]).cpu() for i in range(0, sweep.samples, BLOCK)])
    real, count = _real(sweep)
    figures = {"cubes_per_s": rate, **judge(load_gates(sweep.gates), real, made)}
    return {"figures": figures, "made": generator.made, "generator": generator.hash, "real_cubes": count}


def speed(generator: Generator, count: int, steps: int, sampler: str) -> list[float]:
    """Cubes per second, sampled and decoded: median, least and most of some rounds after a warm-up."""
    rates = []
    for _ in range(ROUNDS + 1):
        start = time.perf_counter()
        generator.decode(generator.sample(range(count), 1, steps, sampler)).cpu()
        rates.append(count / (time.perf_counter() - start))
    return [float(np.median(rates[1:])), min(rates[1:]), max(rates[1:])]


def judge(gates: Gates, real: torch.Tensor, made: torch.Tensor) -> dict[str, list[float] | None]:
    """Figures with 95 % basic bootstrap intervals over synthetic cubes; None where a structure is (almost) absent."""
    rng, n = np.random.default_rng(0), len(made)
    w = np.concatenate([np.ones((1, n)), rng.multinomial(n, np.full(n, 1 / n), size=DRAWS)]).astype(float)
    x, y = _table(gates, real), _table(gates, made)
    found: dict[str, list[float] | None] = {
        "frechet": _triple(frechet(moments(x["encoder"]), moments(y["encoder"], w)))
    }
    a, b = (similarity_matrix(to_images(c[spread(len(c), IMAGES)], gates.image_range)) for c in (real, made))
    gap = np.r_[mean_pairwise(b), bootstrap_pairwise(b, rng, DRAWS)] - mean_pairwise(a)
    low, high = _triple(gap)[1:]
    least = 0.0 if low <= 0 <= high else min(abs(low), abs(high))
    found["ms_ssim_gap"] = [abs(float(gap[0])), least, max(abs(low), abs(high))]
    for figure, name in VESSELS.items():
        enough = name in x and all((~np.isnan(t[name][:, 0])).sum() > t[name].shape[1] for t in (x, y))
        found[figure] = _triple(divergences(moments(x[name]), moments(y[name], w))[0]) if enough else None
    return found


def _table(gates: Gates, cubes: torch.Tensor) -> dict[str, np.ndarray]:
    parts = [gates.instruments.columns(c, gates.wavelengths) for c in cubes.split(BLOCK)]
    return {
        k: torch.cat([p[k] for p in parts]).double().numpy() for k in ("encoder", *VESSELS.values()) if k in parts[0]
    }


def _triple(values: np.ndarray) -> list[float]:
    low, high = np.nanquantile(values[1:], [0.025, 0.975])
    return [float(values[0]), max(float(2 * values[0] - high), 0.0) if values[0] >= 0 else float(2 * values[0] - high),
            float(2 * values[0] - low)]  # fmt: skip


def _real(sweep: Sweep) -> tuple[torch.Tensor, int]:
    """Cubes of patients held out of the trainings, at most `REAL`."""
    cohort = Cohort.open(sweep.data)
    _, _, held_out = split_index(cohort, "train")
    some = held_out[spread(len(held_out), REAL)]
    return torch.from_numpy(cohort.cubes(some)), len(some)


def _device(sweep: Sweep) -> torch.device:
    return pick_device("cpu" if sweep.cpu else None)


def main(argv: list[str] | None = None) -> None:
    """`python -m synthgen.integration.sweep_cell SWEEP.yaml coder|cell FILE`, FILE as in `Cell.file`."""
    path, kind, file = sys.argv[1:] if argv is None else argv
    with one_line_errors():
        sweep = load(Sweep, path)
        cell = next(c for c in cells(sweep) if c.file == file)
        if kind == "coder":
            run_coder(sweep, cell)
            return
        record = {"status": "done", **about(cell), **run_cell(sweep, cell), "environment": environment()}
        write_json(Path(sweep.results) / cell.file, record)


def about(cell: Cell) -> dict[str, Any]:
    """What a record says of its cell."""
    return cell._asdict()


if __name__ == "__main__":
    main()
