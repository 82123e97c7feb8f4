"""Mean features of patients: of networks, read in every way, and of spectra. The cubes are read once, by blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from synthgen.cubes.cohort.cohort import Cohort
from synthgen.runs.progress import progress
from synthgen.ssl.backbone import Backbone, make_backbone, standardise
from synthgen.ssl.evaluation.spectra import spectral_features
from synthgen.ssl.evaluation.stages import read_out, settled

EXPORTED = "exported"
BLOCK = 64  # cubes in memory at a time
SETTLE = 512  # cubes are plenty for batch norm's means and variances

Features = dict[str, np.ndarray]  # of patients [N, D], by where and how a network is read
Reader = Callable[[Tensor], dict[str, Tensor]]  # reflectance [B, C, H, W] -> features [B, D] by name


def reader_of(backbone: Backbone) -> Reader:
    """What a backbone gives as it was exported, and everything that `read_out` finds in it."""
    return lambda x: {EXPORTED: backbone(x)} | read_out(backbone.network, standardise(x, backbone.statistics))


def untrained_like(trained: Backbone, cohort: Cohort, index: np.ndarray, seed: int) -> Backbone:
    """The architecture of `trained` with random weights, its batch norms settled on cubes of `index`."""
    device = next(trained.model.parameters()).device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: nn.Module = make_backbone(trained.name, trained.bands, trained.size, trained.reading).to(device)
    seen = (standardise(x, trained.statistics) for x in blocks(cohort, index[:SETTLE], device))
    return Backbone(settled(model, seen), trained.name, trained.wavelengths, trained.size, trained.statistics)


def patient_features(
    cohort: Cohort, index: np.ndarray, patient: np.ndarray, readers: Mapping[str, Reader], device: torch.device | str
) -> tuple[dict[str, Features], Features]:
    """Mean over each patient's cubes of what every reader gives, and of `spectral_features`.

    patient: int [len(index)], whose cube it is, from 0.
    """
    sums: dict[str, Features] = {name: {} for name in readers}
    spectra: Features = {}
    count, start = np.bincount(patient), 0
    with progress("features", len(index), "cube") as bar, torch.no_grad():
        for cubes in blocks(cohort, index, device):
            rows = patient[start : start + len(cubes)]
            for name, reader in readers.items():
                _add(sums[name], {how: v.double().cpu().numpy() for how, v in reader(cubes).items()}, rows, len(count))
            _add(spectra, spectral_features(cubes.cpu().numpy()), rows, len(count))
            start += len(cubes)
            bar.advance(len(cubes))
    mean = lambda one: {how: total / count[:, None] for how, total in one.items()}
    return {name: mean(one) for name, one in sums.items()}, mean(spectra)


def blocks(cohort: Cohort, index: np.ndarray, device: torch.device | str) -> Iterator[Tensor]:
    """Reflectance [B, C, H, W] of the cubes of `index`, in order."""
    for start in range(0, len(index), BLOCK):
        yield torch.from_numpy(cohort.cubes(index[start : start + BLOCK])).to(device)


def _add(sums: Features, found: Features, rows: np.ndarray, patients: int) -> None:
    for how, values in found.items():
        np.add.at(sums.setdefault(how, np.zeros((patients, values.shape[1]))), rows, values)
