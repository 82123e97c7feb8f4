"""The memorization detector: how near a cube lies to its nearest training cube, whatever its gain, flip or small shift.

Two detectors look for it, and the nearer of the two counts:

- a contrastive network (after Dar et al. 2024, "Unconditional latent diffusion models memorize patient imaging data",
  with NT-Xent at temperature 0.07): a cube attracts its shifted, noisier or slightly blurred self and repels all other
  cubes, so these changes are overlooked by the network.
- coarse log images of a few groups of bands, each with its mean taken off, whitened and brought to unit length: nothing
  in it was learned by a network.

Flips (and for the coarse images shifts) sit in the bank, which holds each training cube in every such variant: exact,
and a query is embedded once.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from synthgen.errors import InputError, MismatchError
from synthgen.quality.features.contrastive import nt_xent, optimise
from synthgen.quality.features.distortions import blurred, mild, pick, uniform
from synthgen.quality.features.handcrafted import averaged_down, field_of_view
from synthgen.science.timm_networks import Frozen, rounded, seeded_network, stored

ARCHITECTURE = "test_resnet"
DIMENSION = 64
STEPS = 400
ROUNDING = 0.1  # score that rounding of the stored codes may leave between a cube and itself: up to 0.07 was seen
BATCH = 48  # pairs per step
TEMPERATURE = 0.07  # Dar et al. 2024
RATE = 2e-3
NOISE = 0.03  # largest of the views
LEVEL = 0.01  # reflectance added before the logarithm: the blue bands are darker than rounding to 8 bits leaves exact
RIM = 16  # the outermost SIDE/RIM pixels of the field of view are left out: a blur darkens them
SIDE = 64  # pixels that the network sees; larger cubes are averaged down
GRID = 16  # cells per side of the coarse images: vessels still show, noise averages out
GROUPS = 6  # groups of neighbouring bands; all sixteen would weigh the noise of the blue ones
SHIFT = 2  # pixels; shifts in between are near one of -SHIFT, 0, SHIFT
SHIFTS = ((0, 0), (-SHIFT, -SHIFT), (-SHIFT, SHIFT), (SHIFT, -SHIFT), (SHIFT, SHIFT))
FLIPS: tuple[tuple[int, ...], ...] = ((), (3,), (2,), (2, 3))
FLOOR = 0.1  # of the mean variance: whitening further would magnify what differs between a copy and its original
SCALED_BY = 512  # training cubes from which the two distances are brought to one scale
_CHUNK = 64
_ROWS = 2**14  # of the bank at a time


class Nearest(NamedTuple):
    """Of N cubes: score [N], the smaller of the two distances, each over what is usual between different training
    cubes (0 a copy, about 1 the unrelated); contrastive [N] and coarse [N], those two; index [N] of the training cube
    that the score belongs to."""

    score: Tensor
    contrastive: Tensor
    coarse: Tensor
    index: Tensor


@dataclass(frozen=True)
class MemorizationDetector:
    """Networks and bank.

    std [C]: what the network's input is divided by. mean [D], whiten [D, k]: from coarse image to embedding.
    codes [F*n, d], coarse [V*n, k]: unit vectors times 127 as int8 of all variants of the n training cubes; row r
    belongs to training cube r % n. scales: usual distance between different training cubes (contrastive, coarse).
    """

    network: Frozen
    std: Tensor
    mean: Tensor
    whiten: Tensor
    codes: Tensor
    coarse: Tensor
    scales: tuple[float, float]

    @property
    def count(self) -> int:
        """Training cubes in the bank."""
        return len(self.codes) // len(FLIPS)

    @staticmethod
    def fit(
        cubes: Tensor,
        *,
        steps: int = STEPS,
        seed: int = 0,
        device: torch.device | str = "cpu",
        on_step: Callable[[float], None] = lambda loss: None,
    ) -> MemorizationDetector:
        """Train on all training cubes float32 [n, C, H, W] and put them into the bank.

        The global random state is not disturbed. InputError: fewer than two cubes.
        """
        if len(cubes) < 2:
            raise InputError("too few cubes to train a memorization detector", found=len(cubes), expected="at least 2")
        blocks = [block.to(device).float() for block in cubes.split(_CHUNK)]
        seen = torch.cat([_relative(block) for block in blocks])
        std = seen.std((0, 2, 3)).clamp_min(1e-4)
        network = seeded_network(ARCHITECTURE, cubes.shape[1], DIMENSION, seed).to(device)
        _train(network, seen, std, steps, seed, on_step)
        mean, whiten = _coarse_basis(blocks)
        nothing = std.new_zeros(0, DIMENSION, dtype=torch.int8)
        bare = MemorizationDetector(Frozen(rounded(network)), std, mean, whiten, nothing, nothing, (1.0, 1.0))
        full = bare.with_bank(cubes.to(device))
        return replace(full, scales=full._usual())

    def with_bank(self, cubes: Tensor) -> MemorizationDetector:
        """The same networks and scales over the cubes [n, C, H, W] of another bank."""
        codes, coarse = [], []
        for block in cubes.split(_CHUNK):
            variants = _variants(block.to(self.std.device).float())
            seen = [self._embed(v) for v in variants]
            codes.append(torch.stack([_packed(code) for code, _ in seen[:: len(SHIFTS)]]))
            coarse.append(torch.stack([_packed(look) for _, look in seen]))
        return replace(self, codes=torch.cat(codes, 1).flatten(0, 1), coarse=torch.cat(coarse, 1).flatten(0, 1))

    @torch.no_grad()
    def nearest(self, cubes: Tensor) -> Nearest:
        """Cubes float32 [N, C, H, W] against the bank. MismatchError for cubes of other bands."""
        if cubes.ndim != 4 or cubes.shape[1] != len(self.std):
            raise MismatchError(
                "the memorization detector is for cubes of other bands",
                found=list(cubes.shape),
                expected=f"{len(self.std)} bands",
            )
        parts = [self._nearest(block) for block in cubes.split(_CHUNK)] if len(cubes) else [self._nearest(cubes)]
        return Nearest(*(torch.cat(column) for column in zip(*parts, strict=True)))

    def _nearest(self, cubes: Tensor) -> Nearest:
        code, look = self._embed(cubes.float())
        contrastive, one = _closest(code, self.codes, self.count)
        coarse, two = _closest(look, self.coarse, self.count)
        contrastive, coarse = contrastive / self.scales[0], coarse / self.scales[1]
        return Nearest(
            torch.minimum(contrastive, coarse), contrastive, coarse, torch.where(contrastive <= coarse, one, two)
        )

    @torch.no_grad()
    def _embed(self, cubes: Tensor) -> tuple[Tensor, Tensor]:
        """Unit vectors [N, d] of the network and [N, k] of the coarse image."""
        with torch.autocast(cubes.device.type, enabled=False):
            seen = _relative(cubes)
            code = self.network(seen / self.std.view(-1, 1, 1))
            look = (_coarse_image(seen) - self.mean) @ self.whiten
        return F.normalize(code, dim=-1), F.normalize(look, dim=-1)

    def _usual(self) -> tuple[float, float]:
        """Median distance of a training cube to the nearest other one, for both detectors."""
        index = torch.linspace(0, self.count - 1, min(self.count, SCALED_BY)).round().long().to(self.std.device)
        found = []
        for bank in (self.codes, self.coarse):  # the first rows of a bank are the cubes as they are
            distance = torch.cat([_closest(_unpacked(bank[i]), bank, self.count, i)[0] for i in index.split(_CHUNK)])
            found.append(max(float(distance.median()), 1e-3))
        return found[0], found[1]

    def to(self, device: torch.device | str) -> MemorizationDetector:
        """The same on another device; this one stays where it is."""
        about, tensors = self.about(), self.tensors()
        moved = MemorizationDetector.restored(about, tensors)
        parts = {name: getattr(moved, name).to(device) for name in _TENSORS}
        return replace(moved, network=moved.network.to(device), **parts)

    def about(self) -> dict[str, Any]:
        """Everything but the tensors, as plain values."""
        return {"architecture": ARCHITECTURE, "dimension": DIMENSION, "scales": list(self.scales)}

    def tensors(self) -> dict[str, Tensor]:
        """On the CPU: the network in half precision, the bank as int8."""
        own = {name: getattr(self, name).detach().cpu().contiguous() for name in _TENSORS}
        return {**own, **{f"network.{key}": t for key, t in stored(self.network.network).items()}}

    @staticmethod
    def restored(about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> MemorizationDetector:
        """From `about` and `tensors`. KeyError or RuntimeError when they do not belong together."""
        state = {key.removeprefix("network."): t for key, t in tensors.items() if key.startswith("network.")}
        network = seeded_network(about["architecture"], len(tensors["std"]), about["dimension"])
        network.load_state_dict(state)
        (contrastive, coarse), parts = about["scales"], (tensors[name] for name in _TENSORS)
        return MemorizationDetector(Frozen(network), *parts, scales=(contrastive, coarse))


_TENSORS = ("std", "mean", "whiten", "codes", "coarse")


def _train(
    network: torch.nn.Module, seen: Tensor, std: Tensor, steps: int, seed: int, on_step: Callable[[float], None]
) -> None:
    rng = torch.Generator().manual_seed(seed)
    batch = min(BATCH, len(seen))

    def view(cubes: Tensor) -> Tensor:
        """Slightly blurred or with one band replaced (each one time in three), then shifted and noisier."""
        kind = pick(rng, 3)
        if kind == 1:
            cubes = blurred(cubes, float(uniform(rng, 0.3, 0.9)))
        if kind == 2 and cubes.shape[1] > 1:
            to = pick(rng, cubes.shape[1])
            donor = cubes.roll(1, 0) if pick(rng, 2) else cubes
            cubes = cubes.clone()
            cubes[:, to] = donor[:, to - 1 if to else 1]
        return (mild(cubes, rng, 0.0, NOISE) / std.view(-1, 1, 1)).contiguous(memory_format=torch.channels_last)

    def loss_of() -> Tensor:
        index = torch.randperm(len(seen), generator=rng)[:batch].to(seen.device)
        flip = FLIPS[pick(rng, len(FLIPS))]
        cubes = seen[index].flip(flip) if flip else seen[index]
        codes = network(torch.cat([view(cubes), view(cubes)]))
        return nt_xent(codes[:batch], codes[batch:], TEMPERATURE)

    network.train()
    optimise("the memorization detector", (network,), loss_of, steps, RATE, on_step)
    network.eval()


def _relative(cubes: Tensor) -> Tensor:
    """[N, C, h, w] log-reflectance about each band's mean: gain is gone. At most SIDE pixels per side; 0 outside."""
    cubes = averaged_down(cubes, SIDE)
    width = max(cubes.shape[-2:]) // RIM
    outside = F.pad(1 - field_of_view(cubes).float(), (width, width, width, width), value=1.0)
    side = 2 * width + 1
    inside = 1 - F.max_pool2d(F.max_pool2d(outside[:, None], (side, 1), stride=1), (1, side), stride=1)
    logs = cubes.clamp_min(0).add_(LEVEL).log_()  # in place: a third of the time
    mean = torch.einsum("nchw,nhw->nc", logs, inside[:, 0]) / inside.sum((2, 3)).clamp_min(1)
    return logs.sub_(mean[:, :, None, None]).mul_(inside)


def _coarse_image(seen: Tensor) -> Tensor:
    """[N, D]: coarse images of the groups of bands, each without its mean."""
    bands = seen.shape[1]
    groups = min(GROUPS, bands)
    bounds = [math.ceil(g * bands / groups) for g in range(groups + 1)]
    small = F.adaptive_avg_pool2d(seen, GRID)
    coarse = torch.stack([small[:, a:b].mean(1) for a, b in itertools.pairwise(bounds)], 1)
    return (coarse - coarse.mean((2, 3), keepdim=True)).flatten(1)


def _coarse_basis(blocks: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean [D] and components [D, k] of the flipped cubes, whitened down to a noise floor."""
    flipped = torch.cat([_coarse_image(_relative(b.flip(f) if f else b)) for b in blocks for f in FLIPS])
    variance, directions = torch.linalg.eigh(torch.cov(flipped.T, correction=0).double())
    k = min(DIMENSION, len(flipped) - 1, len(variance))
    variance, directions = variance.flip(0)[:k], directions.flip(1)[:, :k]
    return flipped.mean(0), (directions / (variance + FLOOR * variance.mean()).sqrt()).float()


def _variants(cubes: Tensor) -> list[Tensor]:
    """Every flip and shift of the cubes; the unshifted one first of each flip."""
    return [shift(cubes.flip(f) if f else cubes, dy, dx) for f in FLIPS for dy, dx in SHIFTS]


def shift(cubes: Tensor, down: int, right: int) -> Tensor:
    """The cubes moved by whole pixels, edges repeated."""
    height, width = cubes.shape[-2:]
    rows = (torch.arange(height, device=cubes.device) - down).clamp(0, height - 1)
    columns = (torch.arange(width, device=cubes.device) - right).clamp(0, width - 1)
    return cubes[..., rows[:, None], columns]


def _packed(unit: Tensor) -> Tensor:
    return (unit * 127).round().to(torch.int8)


def _unpacked(packed: Tensor) -> Tensor:
    return packed.float() / 127


def _closest(query: Tensor, bank: Tensor, count: int, own: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Distance [N] and training cube [N] of the nearest row of the bank; rows of the training cube `own` [N] do not
    count."""
    best, row = query.new_full((len(query),), -math.inf), torch.zeros(len(query), dtype=torch.long, device=query.device)
    for start in range(0, len(bank), _ROWS):
        cosine = query @ _unpacked(bank[start : start + _ROWS]).T
        if own is not None:
            owner = torch.arange(start, start + cosine.shape[1], device=query.device) % count
            cosine = cosine.masked_fill(owner[None] == own[:, None], -math.inf)
        value, at = cosine.max(1)
        row, best = torch.where(value > best, at + start, row), torch.maximum(value, best)
    return (2 - 2 * best).clamp_min(0).sqrt(), row % max(count, 1)
