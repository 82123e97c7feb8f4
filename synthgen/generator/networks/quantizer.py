"""Vector quantiser: pooled k-means start, per-epoch warm refit, EMA codebook, revival of dead codes, residual levels.

van den Oord et al. 2017 (VQ, EMA), Lee et al. 2022 (residual levels). Everything is float32, and everything that a
resumed run needs is a buffer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from synthgen.errors import ConfigError
from synthgen.generator.networks.kmeans import lloyd, nearest, seed_centroids, sums_and_counts
from synthgen.runs.randomness import stream


class Quantised(NamedTuple):
    """values [N, D, h, w] (gradients pass straight through), indices int64 [N, L, h, w], commitment loss."""

    values: Tensor
    indices: Tensor
    commitment: Tensor


class Quantiser(nn.Module):
    """L codebooks of K codes; level l codes what the levels before it left over.

    Args:
        codes: K. dim: D. levels: L.
        decay: of the moving averages; 0.95 follows a moving encoder, 0.99 does not.
        dead_share: a code used less than this fraction of the uniform share is revived.
    """

    codebook: Tensor  # [L, K, D]
    count: Tensor  # [L, K], moving average of vectors per step
    total: Tensor  # [L, K, D], moving average of their sums
    used: Tensor  # [L, K], vectors since the health was last reset
    revived: Tensor  # codes revived since then
    updates: Tensor  # steps made, keys the random stream of revivals
    initialised: Tensor

    def __init__(self, codes: int, dim: int, levels: int = 1, decay: float = 0.95, dead_share: float = 0.1):
        super().__init__()
        self.codes, self.dim, self.levels, self.decay, self.dead_share = codes, dim, levels, decay, dead_share
        self.register_buffer("codebook", torch.zeros(levels, codes, dim))
        for name, value in {
            "count": torch.zeros(levels, codes),
            "total": torch.zeros(levels, codes, dim),
            "used": torch.zeros(levels, codes),
            "revived": torch.zeros((), dtype=torch.int64),
            "updates": torch.zeros((), dtype=torch.int64),
            "initialised": torch.zeros((), dtype=torch.bool),
        }.items():
            self.register_buffer(name, value)

    @torch.autocast("cuda", enabled=False)
    @torch.autocast("cpu", enabled=False)
    def forward(self, vectors: Tensor) -> Quantised:
        """Code vectors [N, D, h, w] -> Quantised; in training mode the codebook moves towards them.

        Before the first `fit` there are no codes: vectors pass as they are, without commitment, indices 0.
        """
        n, _, h, w = vectors.shape
        if not self.initialised:
            nothing = torch.zeros((n, self.levels, h, w), dtype=torch.int64, device=vectors.device)
            return Quantised(vectors.float(), nothing, vectors.new_zeros((), dtype=torch.float32))
        flat = vectors.float().permute(0, 2, 3, 1).reshape(-1, self.dim)
        index, inputs, chosen = self._search(flat.detach())
        commitment = (flat - chosen).square().mean()
        values = chosen if not self.training else flat + (chosen - flat).detach()
        if self.training and torch.is_grad_enabled():
            self._move(inputs, index)
        values = values.reshape(n, h, w, self.dim).permute(0, 3, 1, 2)
        return Quantised(values, index.reshape(n, h, w, self.levels).permute(0, 3, 1, 2), commitment)

    def decode(self, indices: Tensor) -> Tensor:
        """Indices int [N, L, h, w] -> sums of codes [N, D, h, w]."""
        values = torch.zeros((), device=self.codebook.device)
        for level in range(self.levels):
            values = values + self.codebook[level][indices[:, level].long()]
        return values.permute(0, 3, 1, 2)

    @torch.no_grad()
    def fit(self, pool: Tensor, seed: int, per_step: int, iterations: int) -> None:
        """Fit the codebooks to a pool of vectors [n, D] (this rank's share; every rank calls with the same n).

        Cold (k-means++) the first time, from the present codes afterwards. Rank 0 computes, everybody receives.

        Args:
            per_step: vectors per training step over all ranks: the scale of the moving averages.
        Raises ConfigError when the pool holds fewer vectors than there are codes.
        """
        random = stream("kmeans", seed, int(self.updates))
        cold = not bool(self.initialised)

        def centroids(points: Tensor, level: int) -> tuple[Tensor, Tensor]:
            start = seed_centroids(points, self.codes, random) if cold else self.codebook[level]
            return lloyd(points, start, iterations)

        self._fill(pool, per_step, centroids)

    @torch.no_grad()
    def draw(self, pool: Tensor, seed: int, per_step: int) -> None:
        """Start the codebooks at random vectors of a pool [n, D], without k-means; otherwise as `fit`."""
        random = stream("codes", seed)

        def vectors(points: Tensor, level: int) -> tuple[Tensor, Tensor]:
            picked = points[torch.randperm(len(points), generator=random)[: self.codes].to(points.device)]
            return picked, sums_and_counts(points, nearest(points, picked), self.codes)[1]

        self._fill(pool, per_step, vectors)

    def _fill(self, pool: Tensor, per_step: int, choose: Callable[[Tensor, int], tuple[Tensor, Tensor]]) -> None:
        """Codebooks and statistics from choose(points [n, D], level) -> codes [K, D], counts [K], level after level."""
        pool = _gather(pool.float())
        if len(pool) < self.codes:
            raise ConfigError(
                "fewer latent vectors than codes to fit",
                found=f"{len(pool)} vectors for {self.codes} codes",
                remedy="fewer codes, more cubes or a lower compression",
            )
        for level in range(self.levels):
            if _rank() == 0:
                codes, counts = choose(pool, level)
                self.codebook[level] = codes
                self.count[level] = counts * (per_step / len(pool))
            for value in (self.codebook[level], self.count[level]):
                _broadcast(value)
            # Sums start as centroid x count: as centroid alone, usage collapses at the second step.
            self.total[level] = self.codebook[level] * self.count[level][:, None]
            pool = pool - self.codebook[level][nearest(pool, self.codebook[level])]
        self.initialised.fill_(True)

    def health(self) -> dict[str, float]:
        """Fraction of codes used, perplexity as a fraction of the codes, and revivals since `reset_health`."""
        share = self.used / self.used.sum(1, keepdim=True).clamp(min=1)
        entropy = -(share * share.clamp(min=1e-12).log()).sum(1)
        return {
            "codes_used": float((self.used > 0).float().mean()),
            "perplexity": float(entropy.exp().mean() / self.codes),
            "revived": float(self.revived),
        }

    def reset_health(self) -> None:
        self.used.zero_()
        self.revived.zero_()

    def _search(self, flat: Tensor) -> tuple[Tensor, list[Tensor], Tensor]:
        """Indices [n, L], the input of each level, and the sum of the chosen codes [n, D]."""
        left, chosen, index, inputs = flat, torch.zeros_like(flat), [], []
        for level in range(self.levels):
            inputs.append(left)
            index.append(nearest(left, self.codebook[level]))
            code = self.codebook[level][index[-1]]
            left, chosen = left - code, chosen + code
        return torch.stack(index, 1), inputs, chosen

    @torch.no_grad()
    def _move(self, inputs: list[Tensor], index: Tensor) -> None:
        """One step of the moving averages, then revival; the same on every rank."""
        for level, points in enumerate(inputs):
            sums, counts = sums_and_counts(points, index[:, level], self.codes)
            _all_reduce(sums, counts)
            if not torch.isfinite(sums).all():  # a diverged batch: the loop skips its step, the codes skip it too
                return
            self.used[level] += counts
            self.count[level].lerp_(counts, 1 - self.decay)
            self.total[level].lerp_(sums, 1 - self.decay)
            live = self.count[level] > 1e-6
            moved = self.total[level] / self.count[level].clamp(min=1e-6)[:, None]
            self.codebook[level] = torch.where(live[:, None], moved, self.codebook[level])
            self._revive(level, points)
        self.updates += 1

    def _revive(self, level: int, points: Tensor) -> None:
        """Put codes below `dead_share` of the uniform share on random vectors of the batch, statistics with them."""
        fair = self.count[level].mean()
        dead = (self.count[level] < self.dead_share * fair).nonzero().squeeze(1)
        if not len(dead):
            return
        random = stream("revive", int(self.updates), level)
        pick = torch.randint(len(points), (len(dead),), generator=random).to(points.device)
        fresh = points[pick]
        _broadcast(fresh)
        self.codebook[level, dead] = fresh
        self.count[level, dead] = fair
        self.total[level, dead] = fresh * fair
        self.revived += len(dead)


def _world() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _rank() -> int:
    return dist.get_rank() if _world() > 1 else 0


def _all_reduce(*values: Tensor) -> None:
    if _world() > 1:
        for value in values:
            dist.all_reduce(value)


def _broadcast(value: Tensor) -> None:
    if _world() > 1:
        dist.broadcast(value, 0)


def _gather(value: Tensor) -> Tensor:
    if _world() == 1:
        return value
    parts = [torch.empty_like(value) for _ in range(_world())]
    dist.all_gather(parts, value.contiguous())
    return torch.cat(parts)
