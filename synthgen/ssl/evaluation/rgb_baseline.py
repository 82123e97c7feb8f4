"""The baseline of a colour photograph: a network trained from scratch on the label, on three bands alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthgen.cubes.reflectance import band_statistics
from synthgen.errors import InputError
from synthgen.runs.randomness import stream
from synthgen.science.bands import nearest_bands
from synthgen.ssl.backbone import make_backbone, standardise
from synthgen.ssl.evaluation.ceiling import train_supervised
from synthgen.ssl.evaluation.probe import ProbeResult, checked, group_folds, judged

RGB_NM = (620.0, 550.0, 470.0)
BATCH, RATE = 32, 1e-3
WHAT = "the network on three bands"


def rgb_bands(wavelengths: Sequence[float]) -> list[int]:
    """The three bands nearest to red, green and blue; InputError where they are not three."""
    bands = nearest_bands(wavelengths, RGB_NM)
    if len(set(bands)) < 3:
        raise InputError("has no three bands for a colour picture", found=f"{len(wavelengths)} bands")
    return bands


def rgb_network(
    cubes: np.ndarray,
    labels: Sequence | np.ndarray,
    patients: Sequence[str] | np.ndarray,
    seed: int = 0,
    *,
    name: str = "resnet10t",
    steps: int = 60,
    folds: int = 5,
    device: torch.device | str = "cpu",
) -> ProbeResult:
    """Train the timm network `name` on each fold's training patients and let it judge the others; one repeat.

    cubes: reflectance float32 [N, 3, H, W] (see `rgb_bands`). Classes are balanced by weight; views are flipped.
    """
    y, _, groups = checked(np.zeros((len(cubes), 1)), labels, patients)
    scores = np.zeros(len(y))
    for fold, (train, test) in enumerate(group_folds(y, groups, folds, seed)):
        x = torch.from_numpy(cubes[train])
        statistics = band_statistics(x)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + fold)
            model = torch.nn.Sequential(make_backbone(name, 3, cubes.shape[-1]), torch.nn.LazyLinear(1)).to(device)
            see = lambda part, s=statistics: standardise(part.to(device), s)
            model.eval()(see(x[:1]))  # gives the last layer its width
            batch = (model, see, x, torch.from_numpy(y[train]).float(), stream("rgb network", seed, fold))
            train_supervised(model, lambda batch=batch: _loss(*batch), steps, WHAT, rate=RATE, warm=0)
        model.eval()
        with torch.no_grad():
            parts = [model(see(torch.from_numpy(cubes[test[i : i + 64]])))[:, 0].cpu() for i in range(0, len(test), 64)]
        scores[test] = torch.cat(parts).double().numpy()
    return judged(scores, labels, patients, seed, folds=folds, repeats=1, note=f"{name} on 3 bands, {steps} steps")


def _loss(model: nn.Module, see: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, random: torch.Generator) -> Tensor:
    """Cross-entropy of a batch, classes balanced by weight; the batch is flipped."""
    rows = torch.randint(len(x), (min(BATCH, len(x)),), generator=random)
    flips = torch.rand(2, generator=random) < 0.5
    axes = [axis for axis, flip in zip((-2, -1), flips.tolist(), strict=True) if flip]
    logits = model(see(x[rows].flip(axes) if axes else x[rows]))[:, 0]
    balance = (len(y) - y.sum()) / y.sum()
    return F.binary_cross_entropy_with_logits(logits, y[rows].to(logits), pos_weight=balance.to(logits))
