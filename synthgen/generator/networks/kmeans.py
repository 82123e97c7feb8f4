"""k-means in torch: seeding by k-means++, Lloyd's iterations, nearest code in bounded memory. All in float32."""

from __future__ import annotations

import torch
from torch import Tensor

SEARCH_BYTES = 8 * 2**20  # the distance block of the nearest-code search: quicker where it fits a CPU's cache
SEEDING_VECTORS = 32  # per centroid: k-means++ looks at a random subset of this size


def nearest(points: Tensor, codes: Tensor, max_bytes: int = SEARCH_BYTES) -> Tensor:
    """Index of the nearest code of each point. points [n, D], codes [K, D] -> int64 [n].

    argmin |p - c|^2 = argmin |c|^2/2 - p.c, in chunks of at most `max_bytes` of distances.
    """
    half_norm = codes.square().sum(1) / 2
    rows = max(1, max_bytes // (4 * codes.shape[0]))
    parts = [_argmin(torch.addmm(half_norm, chunk, codes.T, alpha=-1)) for chunk in points.split(rows)]
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.int64, device=points.device)


def _argmin(distances: Tensor) -> Tensor:
    """Where each row [n, K] is smallest, the first of equals: int64 [n]. On a CPU by NumPy, ten times torch's speed."""
    if distances.device.type != "cpu":
        return distances.argmin(1)
    return torch.from_numpy(distances.detach().numpy().argmin(1))


def seed_centroids(points: Tensor, k: int, random: torch.Generator) -> Tensor:
    """k-means++ (Arthur & Vassilvitskii 2007): each next centroid drawn in proportion to its squared distance.

    points [n, D] -> [k, D]. `random` lives on the CPU, so the draw is the same on every device.
    """
    most = SEEDING_VECTORS * k
    if len(points) > most:
        points = points[torch.randperm(len(points), generator=random)[:most].to(points.device)]
    draws = torch.rand(k, generator=random, dtype=torch.float64).tolist()
    picked = [min(int(draws[0] * len(points)), len(points) - 1)]
    distance = (points - points[picked[0]]).square().sum(1)
    for draw in draws[1:]:
        cumulative = distance.double().cumsum(0)
        at = int(torch.searchsorted(cumulative, cumulative[-1] * draw, right=True))
        picked.append(min(at, len(points) - 1))
        distance = torch.minimum(distance, (points - points[picked[-1]]).square().sum(1))
    return points[torch.tensor(picked, device=points.device)].clone()


def lloyd(points: Tensor, centroids: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """Lloyd's iterations from the given centroids; a centroid without points stays where it is.

    points [n, D], centroids [K, D] -> centroids [K, D], counts float32 [K].
    """
    counts = torch.zeros(len(centroids), device=points.device)
    for _ in range(iterations):
        sums, counts = sums_and_counts(points, nearest(points, centroids), len(centroids))
        centroids = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], centroids)
    return centroids, counts


def sums_and_counts(points: Tensor, index: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Sum and number of the points of each cluster: float32 [k, D], float32 [k]."""
    sums = torch.zeros(k, points.shape[1], device=points.device).index_add_(0, index, points)
    return sums, torch.bincount(index, minlength=k).to(points.dtype)
