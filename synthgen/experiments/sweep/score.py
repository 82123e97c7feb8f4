"""How a sweep judges and times a generator: figures with bootstrap intervals, cubes per second."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from synthgen.cubes.cohort.cohort import Cohort
from synthgen.errors import InputError
from synthgen.generator.generator import Generator
from synthgen.generator.networks.autoencoder import Autoencoder, base_field
from synthgen.generator.training.cube_source import evenly_spaced, split_index
from synthgen.quality.gates import IMAGES, Gates
from synthgen.quality.sets.metrics import bootstrap_pairwise, mean_pairwise
from synthgen.quality.sets.moments import divergences, frechet, frechet_distance, moments
from synthgen.quality.sets.pairwise_ms_ssim import to_images
from synthgen.quality.sets.signature_retention import tilt_retained
from synthgen.science.bootstrap import draw_counts
from synthgen.science.ms_ssim import similarity_matrix

DRAWS = 200  # of the bootstrap over synthetic cubes
ROUNDS = 3  # timed, after one that warms up
REAL = 1000  # at most so many held-out real cubes are compared with
TILTED = 128  # and so many are encoded and decoded with and without a tilt
BLOCK = 32  # cubes in memory at once, beside those kept
VESSELS = {"kl_vein": "vein", "kl_artery": "artery", "kl_disc": "disc"}
Array = NDArray[np.float64]


def held_out(cohort: Cohort) -> torch.Tensor:
    """Cubes [n, C, H, W] of the calibration patients, on whom nothing was trained."""
    _, _, index = split_index(cohort, "train")
    return torch.from_numpy(cohort.cubes(index[evenly_spaced(len(index), REAL)]))


@torch.no_grad()
def interpolated(model: Autoencoder, cubes: torch.Tensor) -> torch.Tensor:
    """Cubes [N, C, H, W] half way in latent space from each cube to its nearest neighbour, quantised and decoded."""
    device, latents, bases = model.quantiser.codebook.device, [], []
    size = (cubes.shape[-2], cubes.shape[-1])
    for part in cubes.split(BLOCK):
        x = model.normalise(part.to(device))
        base = model.base(x)
        latents.append(model.code_vectors(x - base_field(base, size)).cpu())
        bases.append(base.float().cpu())
    z, b = torch.cat(latents), torch.cat(bases)
    near = torch.cdist(z.flatten(1), z.flatten(1)).fill_diagonal_(float("inf")).argmin(1)
    out = []
    for part in torch.arange(len(z)).split(BLOCK):
        middle, base = ((v[part] + v[near[part]]) / 2 for v in (z, b))
        values = model.quantiser(middle.to(device)).values
        out.append(model.denormalise(model.decode_codes(values, base_field(base.half().to(device), size))).cpu())
    return torch.cat(out)


def interpolation_frechet(model: Autoencoder, gates: Gates, real: torch.Tensor) -> float:
    """Frechet distance of interpolated cubes from the real ones: what the autoencoder lets through."""
    return frechet_distance(*(_table(gates, x)["encoder"] for x in (real, interpolated(model, real))))


def tilt_kept(model: Autoencoder, cohort: Cohort) -> dict[str, list[float] | None]:
    """Fraction of a 1 % tilt at 450-585 nm that encoding and decoding keep: [value, low, high], held-out patients.

    tilt_retained: in the whole eye; tilt_left_half: in its left half only. None where the cohort can carry no tilt: no
    band that short, or all of a cube is dark there.
    """
    _, _, index = split_index(cohort, "train")
    index = index[evenly_spaced(len(index), TILTED)]
    cubes, patients = torch.from_numpy(cohort.cubes(index)), [cohort.patient_id[i] for i in index]
    found: dict[str, list[float] | None] = {}
    for name, half in (("tilt_retained", False), ("tilt_left_half", True)):
        try:
            kept = tilt_retained(
                lambda part: reconstructed(model, part), cubes, cohort.wavelengths, np.random.default_rng(0),
                left_half=half, patients=patients,
            )  # fmt: skip
        except InputError:
            found[name] = None
        else:
            found[name] = [kept.value, kept.low, kept.high]
    return found


@torch.no_grad()
def reconstructed(model: Autoencoder, cubes: torch.Tensor) -> torch.Tensor:
    """Reflectance [N, C, H, W], encoded and decoded, on the CPU."""
    x = model.normalise(cubes.to(model.quantiser.codebook.device))
    return model.denormalise(model(x, base_field(model.base(x), (x.shape[-2], x.shape[-1]))).x).cpu()


def judge(gates: Gates, real: torch.Tensor, made: torch.Tensor) -> dict[str, list[float] | None]:
    """Figures as [value, low, high]; None where a structure is (almost) absent.

    frechet: Frechet distance in the features of the gates' encoder. ms_ssim_gap: difference of the mean MS-SSIM of
    pairs, its size. kl_vein, kl_artery, kl_disc: KL(real || synthetic) of the mean log-spectra of a structure, in nats.
    The intervals are 1.96 bootstrap standard errors over synthetic cubes; the real cubes are as they are.
    """
    rng, n = np.random.default_rng(0), len(made)
    w = np.concatenate([np.ones((1, n)), draw_counts(n, rng, DRAWS)]).astype(float)
    x, y = _table(gates, real), _table(gates, made)
    found: dict[str, list[float] | None] = {
        "frechet": _interval(frechet(moments(x["encoder"]), moments(y["encoder"], w)))
    }
    a, b = (similarity_matrix(to_images(c[evenly_spaced(len(c), IMAGES)], gates.image_range)) for c in (real, made))
    found["ms_ssim_gap"] = _interval(np.r_[mean_pairwise(b), bootstrap_pairwise(b, rng, DRAWS)] - mean_pairwise(a))
    for figure, name in VESSELS.items():
        enough = name in x and all(_held(t[name]) > t[name].shape[1] for t in (x, y))
        found[figure] = _interval(divergences(moments(x[name]), moments(y[name], w))[0]) if enough else None
    return found


def speed(generator: Generator, count: int, steps: int, sampler: str) -> dict[str, Any]:
    """Cubes per second, sampled and decoded: [median, least, most] of some rounds, and on what."""
    rates = []
    for _ in range(ROUNDS + 1):
        start = time.perf_counter()
        generator.decode(generator.sample(range(count), 1, steps, sampler)).cpu()
        rates.append(count / (time.perf_counter() - start))
    middle = [float(np.median(rates[1:])), min(rates[1:]), max(rates[1:])]
    device = torch.cuda.get_device_name() if generator.device.type == "cuda" else "cpu"
    return {"cubes_per_s": middle, "cubes": count, "threads": torch.get_num_threads(), "device": device}


def _table(gates: Gates, cubes: torch.Tensor) -> dict[str, Array]:
    parts = [gates.instruments.columns(c, gates.wavelengths) for c in cubes.split(BLOCK)]
    names = [name for name in ("encoder", *VESSELS.values()) if name in parts[0]]
    return {name: torch.cat([p[name] for p in parts]).double().numpy() for name in names}


def _held(rows: Array) -> int:
    """How many cubes have the structure."""
    return int((~np.isnan(rows).any(1)).sum())


def _interval(values: Array) -> list[float]:
    """Size of the first value, with 1.96 standard deviations of the others around it, not below 0."""
    value, error = abs(float(values[0])), 1.96 * float(np.nanstd(values[1:]))
    return [value, max(value - error, 0.0), value + error]
