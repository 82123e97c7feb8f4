"""Contrastive training in which distorted versions of a cube are its negatives.

Ordinary SimCLR makes blur, colour and flips into positives, so its features do not see such faults. Contrasting shifted
instances (CSI: Tack, Mo, Jeong & Shin 2020, "Novelty detection via contrastive learning on distributionally shifted
instances", equations 2-6) does the opposite: two mild views of a cube attract each other; other cubes and distorted
versions of the same cube repel; and a classifier tells which distortion was applied.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthgen.quality.features.distortions import FAULTS, layout, mild
from synthgen.runs.guard import OTHER_SEED, StepGuard
from synthgen.science.schedules import set_learning_rate, warm_cosine

TEMPERATURE = 0.2
BATCH = 16  # cubes per step; each is seen in two mild views and DISTORTED distorted ones
DISTORTED = 4
RATE = 2e-3
PROJECTION = 64
GAIN, NOISE = 0.05, 0.01  # of mild views


@dataclass(frozen=True)
class Shown:
    """Cubes as log-reflectance [n, C, H, W], and mean and standard deviation of each band [C]."""

    logs: Tensor
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.logs)

    def normalised(self, logs: Tensor) -> Tensor:
        mean, std = (
            torch.tensor(v, dtype=logs.dtype, device=logs.device).view(-1, 1, 1) for v in (self.mean, self.std)
        )
        return ((logs - mean) / std).contiguous(memory_format=torch.channels_last)


def nt_xent(first: Tensor, second: Tensor, temperature: float, others: Tensor | None = None) -> Tensor:
    """NT-Xent (Chen et al. 2020, equation 1): row i of `first` [B, d] and of `second` attract, all else repels.

    others: [M, d] that repel every row and attract none.
    """
    both = F.normalize(torch.cat([first, second]), dim=1)
    everything = both if others is None else torch.cat([both, F.normalize(others, dim=1)])
    logits = both @ everything.T / temperature
    logits = logits.masked_fill(torch.eye(len(both), len(everything), dtype=torch.bool, device=both.device), -math.inf)
    count = len(first)
    partner = torch.arange(2 * count, device=both.device).roll(count)
    return F.cross_entropy(logits, partner)


def optimise(
    name: str,
    networks: Sequence[nn.Module],
    loss_of: Callable[[], Tensor],
    steps: int,
    rate: float,
    on_step: Callable[[float], None],
) -> None:
    """AdamW over all weights; the learning rate rises over a tenth of the steps, then falls as a cosine to 0.

    `name`: what errors call the training.
    """
    parameters = [p for network in networks for p in network.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=rate, weight_decay=1e-2)
    guard = StepGuard(name, optimiser, networks, remedy=OTHER_SEED)
    for step in range(steps):
        set_learning_rate(optimiser, rate * warm_cosine(step, max(1, steps // 10), steps))
        on_step(guard(step, loss_of()).loss)


def train_network(network: nn.Module, shown: Shown, *, steps: int, seed: int, on_step: Callable[[float], None]) -> None:
    """Train `network` ([B, C, H, W] -> [B, D]) in place; its output is classified and, projected, contrasted."""
    rng = torch.Generator().manual_seed(seed)
    device = shown.logs.device
    dimension = network(shown.normalised(shown.logs[:2])).shape[1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        project = nn.Sequential(nn.ReLU(), nn.Linear(dimension, PROJECTION)).to(device)
        classify = nn.Linear(dimension, 1 + len(FAULTS)).to(device)
    batch = min(BATCH, len(shown))

    def loss_of() -> Tensor:
        index = torch.randperm(len(shown), generator=rng)[:batch].to(device)
        cubes = shown.logs[index]
        chosen = torch.randperm(len(FAULTS), generator=rng)[: DISTORTED - 1].tolist()
        distorted = [FAULTS[k](cubes, rng) for k in chosen] + [layout(cubes, rng)]
        views = torch.cat([cubes, cubes, *distorted])
        labels = torch.tensor([0, 0, *(1 + k for k in chosen), 0]).repeat_interleave(batch).to(device)
        output = network(shown.normalised(mild(views, rng, GAIN, NOISE)))
        first, second, others = project(output).split([batch, batch, len(output) - 2 * batch])
        return nt_xent(first, second, TEMPERATURE, others) + F.cross_entropy(classify(output), labels)

    network.train()
    optimise("the encoder", (network, project, classify), loss_of, steps, RATE, on_step)
    network.eval()
