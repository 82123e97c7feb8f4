"""How far the gates' own statistics are from the field's tools on the same features: `python -m
benchmarks.quality.agreement`.

Relative differences; Fréchet and kernel distance in float64 throughout. Features are Gaussian sets with a 1/k spectrum
and the gates' own features of phantom eyes. torchmetrics' MS-SSIM differs from the reference, which is piq's, and is
recorded beside it. The peers are in the `bench` extra (`make setup-bench`).
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable

import numpy as np
import piq
import prdc
import torch
from torch import Tensor, nn
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance
from vendi_score import vendi as vendi_score

from benchmarks.common import record
from synthgen.cubes.phantom.simulate import simulate_cube
from synthgen.quality.features.handcrafted import block_sizes, set_features
from synthgen.quality.features.projection import Space
from synthgen.quality.sets.moments import vendi
from synthgen.quality.sets.statistics import NEIGHBOURS, Lens, Pair
from synthgen.quality.sets.table import Rows
from synthgen.runs.processes.device import set_threads
from synthgen.science.ms_ssim import similarity_matrix

LIMITS = {  # largest relative difference that counts as agreement
    "frechet_torch_fidelity": 1e-6,
    "frechet_torchmetrics": 1e-3,
    "kid_torch_fidelity": 1e-6,
    "kid_torchmetrics": 1e-3,
    "coverage_prdc": 1e-9,
    "vendi_cosine": 1e-6,
    "ms_ssim_piq": 1e-4,
}


class Features(nn.Module):
    """An extractor for torchmetrics that hands on features [n, d, 1, 1]."""

    def __init__(self, dimension: int):
        super().__init__()
        self.num_features = dimension

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)


def differences(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Relative difference of each metric between sets x, y [n, d] from each peer."""
    x, y = (s.astype(np.float32).astype(np.float64) for s in (x, y))  # as rows are kept
    tx, ty = torch.from_numpy(x), torch.from_numpy(y)
    lens, rows = Lens({}, {}, {"encoder": x.shape[1]}), [Rows.of({"encoder": s}) for s in (x, y)]
    ours = {name: float(v[0]) for name, v in Pair(lens, *rows, size=5 * x.shape[1])().items()}
    frechet, kernel = ours["encoder_frechet"], ours["encoder_kid"]
    with contextlib.redirect_stdout(io.StringIO()):  # prdc announces its sizes
        covered = prdc.compute_prdc(x, y, NEIGHBOURS)["coverage"]
    statistics = [fid_features_to_statistics(t) for t in (tx, ty)]
    kids = kid_features_to_metric(tx, ty, kid_subsets=1, kid_subset_size=len(x), verbose=False)
    fid = FrechetInceptionDistance(feature=Features(x.shape[1]))
    mmd = KernelInceptionDistance(feature=Features(x.shape[1]), subsets=1, subset_size=len(x))
    return {
        "frechet_torch_fidelity": _relative(
            frechet, fid_statistics_to_metric(*statistics, False)["frechet_inception_distance"]
        ),
        "frechet_torchmetrics": _relative(frechet, float(_updated(fid, tx, ty))),
        "kid_torch_fidelity": _relative(kernel, kids["kernel_inception_distance_mean"]),
        "kid_torchmetrics": _relative(kernel, float(_updated(mmd, tx, ty)[0])),
        "coverage_prdc": _relative(1 - ours["encoder_coverage"], covered),
        "vendi_cosine": _relative(float(vendi(y)[0]), float(vendi_score.score_X(y))),
    }


def gaussian_sets(rng: np.random.Generator, n: int = 500, d: int = 64) -> tuple[np.ndarray, np.ndarray]:
    scale = 1 / np.sqrt(np.arange(1, d + 1))
    return rng.normal(size=(n, d)) * scale, rng.normal(0.1, 1.15, size=(n, d)) * scale


def phantom_sets(cubes: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of two halves of the cubes in the gates' feature space, the second half 5 % brighter."""
    half = len(cubes) // 2
    x, y = (set_features(c).double().numpy() for c in (cubes[:half], (1.05 * cubes[half:]).clamp(0, 1)))
    space = Space.fit(x[::2], x[1::2], block_sizes(cubes.shape[1]))
    found = [space(torch.from_numpy(z)).double().numpy()[:, : half // 5] for z in (x, y)]
    return found[0], found[1]


def agreement(eyes: int = 120, size: int = 64) -> bool:
    """Measure and record; True when everything agrees within its limit."""
    set_threads()
    cubes = torch.from_numpy(np.stack([simulate_cube(p, "OD", 0, size, seed=11).cube for p in range(eyes)]))
    found = {
        "gaussian sets, 500 x 64": differences(*gaussian_sets(np.random.default_rng(0))),
        f"phantom eyes, {eyes // 2} at {size}": differences(*phantom_sets(cubes)),
    }
    images = torch.from_numpy(np.stack([simulate_cube(p, "OD", 0, 224, seed=11).cube for p in range(4)]))
    i, j = np.triu_indices(len(images), 1)
    pairs = images[i], images[j]
    ours = torch.from_numpy(similarity_matrix(images)[i, j])
    found["eye pairs at 224"] = {"ms_ssim_piq": _largest(ours, piq.multi_scale_ssim, pairs)}
    worst = {name: max(f[name] for f in found.values() if name in f) for name in LIMITS}
    agree = all(worst[name] <= limit for name, limit in LIMITS.items())
    known = _largest(ours, multiscale_structural_similarity_index_measure, pairs)
    record(
        "agreement", {**found, "limits": LIMITS, "all within": agree, "ms_ssim_torchmetrics, known to differ": known}
    )
    return agree


def _largest(ours: Tensor, peer: Callable[..., Tensor], pairs: tuple[Tensor, Tensor]) -> float:
    return float(((ours - peer(*pairs, data_range=1.0, reduction="none")).abs() / ours.abs()).max())


def _updated(metric: nn.Module, x: Tensor, y: Tensor):
    metric.set_dtype(torch.float64)
    metric.update(x[:, :, None, None], real=True)
    metric.update(y[:, :, None, None], real=False)
    return metric.compute()


def _relative(ours: float, theirs: float) -> float:
    return abs(ours - theirs) / abs(theirs)


if __name__ == "__main__":
    sys.exit(0 if agreement() else 1)
