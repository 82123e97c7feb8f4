"""Few-shot dense targets: a linear layer on a network's frozen maps, learned from a few labelled cubes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

PENALTIES = tuple(10.0**k for k in range(-6, 0))  # of standardised features, for each pixel
PIXELS = 2048  # of a cube that are learned from: neighbours are alike, and the memory stays bounded


class Linear(NamedTuple):
    """weights [D, K], offset [K]: a pixel with features x has structure k where x @ weights[:, k] + offset[k] > 0."""

    weights: np.ndarray
    offset: np.ndarray


def fit_linear(x: np.ndarray, y: np.ndarray, cube: np.ndarray) -> Linear:
    """Least squares of structures y [n, K] (0 or 1) on pixels' features x [n, D], standardised, with a ridge penalty.

    Penalty and threshold of each structure have the largest Dice on the one half of the cubes when the other was
    learned from, both ways round. cube: int [n], from which of two cubes or more each pixel is.
    """
    centre, scale = x.mean(0), x.std(0)
    scale = np.where(scale > 1e-9, scale, 1)
    a = ((x - centre) / scale).astype(np.float64)
    share = y.mean(0)
    half = cube % 2 == 0
    scores = np.empty((len(PENALTIES), *y.shape))
    for learn in (half, ~half):
        for k, fit in enumerate(_path(a[learn], y[learn] - share)):
            scores[k, ~learn] = a[~learn] @ fit
    fits = _path(a, y - share)
    weights, offset = np.empty((x.shape[1], y.shape[1])), np.empty(y.shape[1])
    for k in range(y.shape[1]):
        found = [best_threshold(s[:, k], y[:, k]) for s in scores]
        best = int(np.argmax([dice for dice, _ in found]))
        weights[:, k] = fits[best][:, k] / scale
        offset[k] = -found[best][1] - centre @ weights[:, k]
    return Linear(weights, offset)


def best_threshold(scores: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """The largest Dice of `scores > threshold` with truth [n] of 0 and 1, and the threshold; (0, inf) without any 1."""
    if not truth.any():
        return 0.0, np.inf
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(truth[order])
    dice = 2 * hits / (np.arange(1, len(truth) + 1) + truth.sum())
    last = np.r_[np.diff(scores[order]) != 0, True]  # equal scores fall on one side
    best = int(np.argmax(np.where(last, dice, -1)))
    below = scores[order[best + 1]] if best + 1 < len(truth) else scores[order[best]] - 1
    return float(dice[best]), float((scores[order[best]] + below) / 2)


def dice_of(predicted: Tensor, truth: Tensor) -> np.ndarray:
    """Dice [B, K] of bool maps [B, K, H, W]; NaN where a cube has none of a structure."""
    overlap, size = (predicted & truth).sum((2, 3)).double(), (predicted.sum((2, 3)) + truth.sum((2, 3))).double()
    return torch.where(truth.sum((2, 3)) > 0, 2 * overlap / size.clamp_min(1), torch.nan).cpu().numpy()


def learned_pixels(field: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Up to PIXELS places among the pixels of the field of view, bool [H, W]."""
    inside = np.flatnonzero(field)
    return inside if len(inside) <= PIXELS else np.sort(random.choice(inside, PIXELS, replace=False))


def apply_linear(maps: Tensor, fits: Sequence[Linear]) -> Tensor:
    """Bool [F, B, K, H, W]: what each of F fits predicts of maps [B, D, H, W]."""
    weights = torch.as_tensor(np.stack([f.weights for f in fits])).to(maps)
    offset = torch.as_tensor(np.stack([f.offset for f in fits])).to(maps)
    return torch.einsum("bdhw,fdk->fbkhw", maps, weights) + offset[:, None, :, None, None] > 0


def _path(a: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
    """Weights [D, K] at each penalty, from one decomposition."""
    power, basis = np.linalg.eigh(a.T @ a)
    inner = basis.T @ (a.T @ y)
    return [basis @ (inner / (power.clip(0) + p * len(a))[:, None]) for p in PENALTIES]


Maps = Callable[[Tensor], Tensor]  # reflectance [B, C, H, W] -> features of every pixel [B, D, H, W]
