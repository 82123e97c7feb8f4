"""Contrastive training in which distorted versions of a cube are its negatives.

Ordinary SimCLR makes blur, colour and flips into positives, so its features do not see such faults. Contrasting shifted
instances (CSI: Tack, Mo, Jeong & Shin 2020, "Novelty detection via contrastive learning on distributionally shifted
instances", equations 2-6) does the opposite: two mild views of a cube attract each other; other cubes and distorted
versions of the same cube repel; and a classifier tells which distortion was applied.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthgen.quality.distort import Sources, faults, mild

TEMPERATURE = 0.2
BATCH = 12  # cubes per step; each is seen in two mild views, FAULTY and TURNED others
FAULTY, TURNED = 3, 3
GROUP: tuple[tuple[int, int, int], ...] = tuple(itertools.product((0, 1), repeat=3))[1:]  # type: ignore[assignment]
SIGNS = 2.0  # weight of the coordinates that change sign
RATE = 2e-3
PROJECTION = 64
GAIN, NOISE = 0.05, 0.01  # of mild views


@dataclass(frozen=True)
class Shown:
    """Cubes as log-reflectance [n, C, H, W], and mean and deviation of each band [C]."""

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


def changing_signs(first: Tensor, others: Tensor, changes: Tensor) -> Tensor:
    """Logistic loss of coordinates that keep or change their sign: first [B, k], others [V, B, k], changes [V, k].

    `changes` is +1 where the coordinate is to have the same sign in a view as in the first, -1 where the opposite.
    """
    return F.softplus(-changes[:, None] * first[None] * others).mean()


def turned(cubes: Tensor, turn: tuple[int, int, int], sources: Sources, source: Tensor) -> Tensor:
    """Cubes mirrored left-right, top-bottom, and with their own source [n] reversed, each where `turn` says so."""
    dims = [dim for dim, wanted in zip((3, 2), turn[:2], strict=True) if wanted]
    cubes = cubes.flip(dims) if dims else cubes
    return sources.reversed(cubes, source) if turn[2] else cubes


def character(turn: tuple[int, ...], of: tuple[int, ...]) -> float:
    """The sign that the coordinate `of` the group takes under a turn."""
    return (-1.0) ** sum(a * b for a, b in zip(turn, of, strict=True))


def schedule(step: int, steps: int) -> float:
    """Share of the peak learning rate: up over a tenth of the steps, then down as a cosine."""
    warm = max(1, steps // 10)
    return (step + 1) / warm if step < warm else 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def optimise(
    parameters: Iterable[nn.Parameter],
    loss_of: Callable[[], Tensor],
    steps: int,
    rate: float,
    on_step: Callable[[float], None],
) -> None:
    """AdamW with `schedule`."""
    optimiser = torch.optim.AdamW(parameters, lr=rate, weight_decay=1e-2)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = rate * schedule(step, steps)
        loss = loss_of()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        on_step(float(loss.detach()))


def train_network(network: nn.Module, shown: Shown, *, steps: int, seed: int, on_step: Callable[[float], None]) -> None:
    """Train `network` ([B, C, H, W] -> [B, D]) in place; its output is classified and, projected, contrasted."""
    rng = torch.Generator().manual_seed(seed)
    device = shown.logs.device
    dimension = network(shown.normalised(shown.logs[:2])).shape[1]
    sources = Sources.fit(shown.logs, seed)
    families = faults(sources)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        project = nn.Sequential(nn.ReLU(), nn.Linear(dimension, PROJECTION)).to(device)
        classify = nn.Linear(dimension, 1 + len(families)).to(device)
        sign = nn.Linear(dimension, len(sources) * len(GROUP), bias=False).to(device)
    batch = min(BATCH, len(shown))
    rows = torch.arange(batch, device=device)

    def loss_of() -> Tensor:
        cubes = shown.logs[torch.randperm(len(shown), generator=rng)[:batch].to(device)]
        chosen = torch.randperm(len(families), generator=rng)[:FAULTY].tolist()
        source = torch.randint(len(sources), (batch,), generator=rng).to(device)
        turns = [GROUP[k] for k in torch.randperm(len(GROUP), generator=rng)[:TURNED].tolist()]
        views = [
            cubes,
            cubes,
            *(families[k](cubes, rng) for k in chosen),
            *(turned(cubes, turn, sources, source) for turn in turns),
        ]
        output = network(shown.normalised(mild(torch.cat(views), rng, GAIN, NOISE)))
        first, second, others = project(output).split([batch, batch, len(output) - 2 * batch])
        labels = torch.tensor([0, 0, *(1 + k for k in chosen)]).repeat_interleave(batch).to(device)
        signs = sign(output).unflatten(0, (len(views), batch)).unflatten(2, (len(sources), -1))[:, rows, source]
        changes = torch.tensor([[1.0] * len(GROUP), *([character(turn, g) for g in GROUP] for turn in turns)])
        return (
            nt_xent(first, second, TEMPERATURE, others)
            + F.cross_entropy(classify(output[: len(labels)]), labels)
            + SIGNS * changing_signs(signs[0], torch.cat([signs[1:2], signs[2 + FAULTY :]]), changes.to(device))
        )

    network.train()
    parameters = [p for module in (network, project, classify, sign) for p in module.parameters()]
    optimise(parameters, loss_of, steps, RATE, on_step)
    network.eval()
