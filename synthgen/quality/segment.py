"""One small segmenter finds arteries, veins and the optic disc, in real and in synthetic cubes alike.

Synthetic cubes carry no masks; comparing spectra per structure needs the same eyes on both sides. It is trained on the
masks of the training patients, under flips, gain and spectral jitter so that it cannot lean on the exact spectrum.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthgen.cubes.reflectance import BandStatistics, band_statistics, log_reflectance
from synthgen.runs.randomness import stream

STRUCTURES = ("artery", "vein", "disc")
CONFIDENT = 0.7  # a pixel is the structure above this probability, not it below 1 - CONFIDENT, uncertain between
_CROP = 96  # training crops at most this large: larger cubes would spend the time budget on few images
_BATCH = 4  # many small steps learn faster on a few dozen cubes than few large ones
_CHUNK = 64


class Segmenter(nn.Module):
    """A U-Net of three levels, about 30 thousand weights.

    Input: cubes float32 [N, C, H, W] reflectance, H and W at least 8. Output: logits [N, 3, H, W] for `STRUCTURES`.
    """

    def __init__(self, statistics: BandStatistics, width: int = 8):
        super().__init__()
        self.statistics, self.width = statistics, width
        self.enter = _Block(len(statistics.mean), width)
        self.down = nn.ModuleList([_Block(width, 2 * width), _Block(2 * width, 4 * width)])
        self.up = nn.ModuleList([_Block(6 * width, 2 * width), _Block(3 * width, width)])
        self.leave = nn.Conv2d(width, len(STRUCTURES), 1)

    def forward(self, cubes: Tensor) -> Tensor:
        return self.from_logs(log_reflectance(cubes))

    def from_logs(self, logs: Tensor) -> Tensor:
        """Logits from log-reflectance [N, C, H, W]."""
        x = self.enter(self.statistics.normalise(logs).clamp(-4, 4))
        skips = []
        for block in self.down:
            skips.append(x)
            x = block(F.max_pool2d(x, 2))
        for block, skip in zip(self.up, reversed(skips), strict=True):
            x = block(torch.cat([F.interpolate(x, size=skip.shape[-2:]), skip], 1))
        return self.leave(x)

    @torch.no_grad()
    def masks(self, cubes: Tensor) -> dict[str, np.ndarray]:
        """The confident pixels of each structure: bool [N, H, W]; uncertain ones belong to none."""
        blocks = [self(cubes[i : i + _CHUNK]).sigmoid() > CONFIDENT for i in range(0, len(cubes), _CHUNK)]
        found = torch.cat(blocks).cpu().numpy()
        return {name: found[:, k] for k, name in enumerate(STRUCTURES)}


class _Block(nn.Sequential):
    def __init__(self, inward: int, outward: int):
        super().__init__(
            nn.Conv2d(inward, outward, 3, padding=1, bias=False),
            nn.GroupNorm(4, outward),
            nn.SiLU(),
            nn.Conv2d(outward, outward, 3, padding=1, bias=False),
            nn.GroupNorm(4, outward),
            nn.SiLU(),
        )


def train_segmenter(
    cubes: np.ndarray,
    masks: Mapping[str, np.ndarray],
    *,
    steps: int,
    seed: int,
    device: torch.device,
    on_step: Callable[[float], None] = lambda loss: None,
) -> Segmenter:
    """Train on cubes float32 [N, C, H, W] and bool masks [N, H, W] (a structure without mask is never found)."""
    torch_state = torch.get_rng_state()
    torch.manual_seed(seed)  # the initial weights; the global stream is put back below
    model = Segmenter(band_statistics(cubes)).to(device, memory_format=torch.channels_last)
    torch.set_rng_state(torch_state)
    empty = np.zeros(cubes.shape[:1] + cubes.shape[2:], bool)
    target = torch.from_numpy(np.stack([masks.get(name, empty) for name in STRUCTURES], 1))
    logs = log_reflectance(torch.from_numpy(cubes))
    draw = stream(seed, "segmenter")
    optimiser = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=1e-3)
    for step in range(steps):
        done = step / steps
        for group in optimiser.param_groups:
            group["lr"] = 4e-3 * min(1.0, done / 0.05 + 0.02) * (1 - done)  # warm up over a twentieth, then down to 0
        rows = torch.randint(len(logs), (min(_BATCH, len(logs)),), generator=draw)
        x, y = _augment(logs[rows], target[rows], draw)
        loss = _loss(model.from_logs(x.to(device, memory_format=torch.channels_last)), y.to(device).float())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        on_step(float(loss.detach()))
    return model.eval().requires_grad_(False)


def dice(found: Mapping[str, np.ndarray], truth: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Dice coefficient of each structure over all pixels of a set; NaN where neither has any."""
    scores = {}
    for name in STRUCTURES:
        if name in truth:
            both = np.logical_and(found[name], truth[name]).sum()
            total = found[name].sum() + truth[name].sum()
            scores[name] = float(2 * both / total) if total else float("nan")
    return scores


def _loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy plus Dice (Milletari 2016): vessels are a few per cent of the pixels."""
    p = logits.sigmoid()
    overlap = (2 * (p * target).sum((0, 2, 3)) + 1) / (p.sum((0, 2, 3)) + target.sum((0, 2, 3)) + 1)
    return F.binary_cross_entropy_with_logits(logits, target) + 1 - overlap.mean()


def _augment(logs: Tensor, target: Tensor, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Crop, flips and transposition for the batch; gain, smooth spectral jitter and noise for each cube."""
    n, bands, height, width = logs.shape

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw)

    side = min(height, width, _CROP)
    top = int(torch.randint(height - side + 1, (1,), generator=draw))
    left = int(torch.randint(width - side + 1, (1,), generator=draw))
    logs = logs[:, :, top : top + side, left : left + side]
    target = target[:, :, top : top + side, left : left + side]
    for flip, dims in zip((torch.rand(3, generator=draw) < 0.5).tolist(), ([2], [3], None), strict=True):
        if flip:
            logs = logs.flip(dims) if dims else logs.transpose(2, 3)
            target = target.flip(dims) if dims else target.transpose(2, 3)
    position = torch.linspace(-1, 1, bands)
    smooth = torch.stack([torch.ones(bands), position, position.square()])  # gain, tilt, curvature over the bands
    jitter = (normal(n, 3) * torch.tensor([0.2, 0.1, 0.1])) @ smooth + 0.02 * normal(n, bands)
    return logs + jitter[:, :, None, None] + 0.03 * normal(n, bands, side, side), target
