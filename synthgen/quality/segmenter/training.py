"""Make the packaged segmenter: simulate phantoms in layers, paint them anew at every step, learn their masks.

    python -m synthgen.quality.segmenter.training --config configs/segmenter.yaml --out runs/segmenter

Writes `OUT/segmenter` (see `segment.save_segmenter`) at every validation. Nothing but phantoms is read.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from synthgen.command_line.command import Command
from synthgen.config import Config
from synthgen.cubes.phantom.simulate import WAVELENGTHS, simulate_cube
from synthgen.errors import Stopped
from synthgen.quality.segmenter.domain_randomization import BLOOD, paint
from synthgen.quality.segmenter.layers import simulate_layers
from synthgen.quality.segmenter.network import Network, build, normalised
from synthgen.quality.segmenter.segmenter import STRUCTURES, Segmenter, dice, packed, save_segmenter, segmentation_loss
from synthgen.runs.folder import RunFolder
from synthgen.runs.guard import StepGuard
from synthgen.runs.processes.device import pick_device, set_threads
from synthgen.runs.progress import progress
from synthgen.runs.randomness import key, stream
from synthgen.runs.signals import StopRequest
from synthgen.science.schedules import polynomial, set_learning_rate, warm_up

_EMA = 0.998
_WARM_UP = 200  # steps
_CROPS = (160, 192, 224)  # sides seen in odd steps: whole eyes for the course of the arcades, parts for speed
_KIND = 0.5  # weight of telling arteries from veins where a vessel is
_SETTLED = 0.4  # fraction of the training after which batch norms keep their statistics: one network, two scales
_HELD_OUT_SEED = 990_000  # phantoms that no layer was drawn from


class SegmentTraining(Config):
    """How to train a segmenter."""

    out: str = Field(description="run folder")
    resume: bool = Field(False, description="go on from the newest checkpoint in the run folder")
    eyes_64: int = Field(1500, ge=1, description="eyes simulated at 64 pixels")
    eyes_224: int = Field(420, ge=1, description="eyes simulated at 224 pixels")
    seed: int = Field(0, description="of eyes, initial weights and every draw")
    steps: int = Field(16_000, ge=1, description="training steps")
    minutes: float | None = Field(None, gt=0, description="stop after so many minutes of training, if before `steps`")
    learning_rate: float = Field(3e-3, gt=0, description="peak learning rate")
    batch_64: int = Field(16, ge=1, description="eyes of an even step, at 64 pixels")
    batch_224: int = Field(2, ge=1, description="eyes of an odd step, at 224 pixels or crops of them")
    validate_every: int = Field(1000, ge=1, description="steps between validations, each with a checkpoint")
    held_out: int = Field(48, ge=1, description="phantoms at 64 pixels to validate on; a sixth of them again at 224")
    network: Network = Field(Network(), description="the network")
    device: str | None = Field(None, description="cpu, cuda, cuda:1; by default the best there is")


def train_segmenter(config: SegmentTraining) -> Path:
    """Train and return the segmenter's folder, `out/segmenter`. Raises NonFiniteError, Stopped, StorageError."""
    with RunFolder(config.out, config, resume=config.resume) as folder:
        return _train(config, pick_device(config.device), folder)


def _train(config: SegmentTraining, device: torch.device, folder: RunFolder) -> Path:
    set_threads()
    small = simulate_layers(folder.path / "eyes_64.npy", config.eyes_64, 64, config.seed)
    large = simulate_layers(folder.path / "eyes_224.npy", config.eyes_224, 224, config.seed + 1)
    std = _std(small, config.seed)
    torch.manual_seed(config.seed)
    net = build(config.network).to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(_EMA), use_buffers=True)
    optimiser = torch.optim.AdamW(net.parameters(), lr=config.learning_rate, weight_decay=1e-2)
    held_out = [_phantoms(config.held_out, 64), _phantoms(max(1, config.held_out // 6), 224)]
    step, seconds = 0, 0.0
    guard = StepGuard(
        "the segmenter",
        optimiser,
        [net, average],
        parameters=net.parameters(),
        clip=2.0,
        checkpoints=folder.checkpoints,
    )
    if config.resume:
        restored = folder.checkpoints.load()
        step, seconds = restored.step, restored.shared["seconds"]
        net.load_state_dict(restored.shared["net"])
        average.load_state_dict(restored.shared["average"])
        optimiser.load_state_dict(restored.shared["optimiser"])
    folder.begin(step)
    if config.resume:
        folder.rewind(step)
    limit = config.minutes * 60 if config.minutes else math.inf

    def publish() -> None:
        state = {"net": net.state_dict(), "average": average.state_dict(), "optimiser": optimiser.state_dict()}
        folder.checkpoints.save(step, {"seconds": seconds, **state})
        found = packed(average.module, config.network, WAVELENGTHS, std, STRUCTURES, {})
        figures = {
            f"{k}_{cubes[0].shape[-1]}": v for cubes in held_out for k, v in validate(found.to(device), *cubes).items()
        }
        made = {
            "trained_on": f"{config.eyes_64} phantom eyes at 64 and {config.eyes_224} at 224 pixels",
            "seed": config.seed, "steps": step, "minutes": round(seconds / 60, 1),
            "blood": BLOOD, "held_out_phantoms": {k: round(v, 4) for k, v in figures.items()},
        }  # fmt: skip
        folder.log(step, **figures)
        found = packed(average.module, config.network, WAVELENGTHS, std, STRUCTURES, made)
        save_segmenter(folder.path / "segmenter", found)

    with StopRequest() as stop, progress("segmenter", config.steps, "step", done=step) as bar:
        while step < config.steps and seconds < limit:
            start = time.monotonic()
            done = max(step / config.steps, seconds / limit)
            rate = config.learning_rate * warm_up(step, _WARM_UP) * polynomial(done, 1.5, 0.01)
            set_learning_rate(optimiser, rate)
            net.train()
            if done > _SETTLED:
                for module in net.modules():
                    if isinstance(module, nn.BatchNorm2d):
                        module.eval()
            x, y = (part.to(device) for part in _batch(step, config, small, large, std))
            logits = net(x)
            loss = segmentation_loss(logits, y) + _KIND * kind_loss(logits, y)
            taken = guard(step, loss)
            if taken.made:
                average.update_parameters(net)
            step += 1
            seconds += time.monotonic() - start
            bar.advance(1, loss=taken.loss)
            if step % 50 < 2:
                folder.log(step, **{f"loss_{'64' if step % 2 else '224'}": taken.loss})
            if step % config.validate_every == 0 or stop:
                publish()
            if stop:
                raise Stopped(
                    f"the segmenter was asked to stop after step {step}; a checkpoint is written",
                    path=folder.path,
                    remedy="go on with --resume",
                    exit_code=stop.exit_code,
                )
    if step % config.validate_every:
        publish()
    return folder.path / "segmenter"


def kind_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of artery against vein, by the difference of their logits, on pixels that are one of them."""
    one = target[:, 0] != target[:, 1]
    return F.binary_cross_entropy_with_logits((logits[:, 0] - logits[:, 1])[one], target[:, 0][one])


def validate(segmenter: Segmenter, cubes: np.ndarray, masks: dict[str, np.ndarray]) -> dict[str, float]:
    """Dice of each structure and of vessels as one, and artery-vein accuracy on found vessels, at probability 0.5."""
    p = segmenter.probabilities(torch.from_numpy(cubes), WAVELENGTHS).numpy()
    scores = dice({name: p[:, k] > 0.5 for k, name in enumerate(STRUCTURES)}, masks)
    vessel, found = masks["artery"] | masks["vein"], p[:, 0] + p[:, 1] > 0.5
    scores["vessel"] = float(2 * (vessel & found).sum() / max(1, vessel.sum() + found.sum()))
    one = found & (masks["artery"] ^ masks["vein"])
    scores["artery_vein"] = float(((p[:, 0] > p[:, 1]) == masks["artery"])[one].mean())
    return scores


def _batch(step: int, config: SegmentTraining, small: np.ndarray, large: np.ndarray, std: Tensor):
    """Inputs and masks of a step, on the CPU; they depend on seed and step alone."""
    draw = stream(config.seed, "segmenter step", step)
    if step % 2 == 0:
        half = config.batch_64 // 2
        layers = torch.cat([_picked(small, config.batch_64 - half, draw), _shrunk(_picked(large, half, draw), draw)])
    else:
        layers = _picked(large, config.batch_224, draw)
        side = _CROPS[int(torch.randint(len(_CROPS), (1,), generator=draw))]
        layers = _cropped(layers, side, draw)
    layers = _turned(layers, draw)
    logs, masks, lit = paint(layers, draw)
    return centred(logs, lit, std), masks


def centred(logs: Tensor, lit: Tensor, std: Tensor) -> Tensor:
    """The network's input from painted logs [N, C, H, W]; what `Segmenter.inputs` makes of cubes."""
    mean = (logs * lit).sum((2, 3), keepdim=True) / lit.sum((2, 3), keepdim=True).clamp_min(1)
    return normalised(torch.where(lit, logs - mean, 0.0), std)


def _picked(layers: np.ndarray, count: int, draw: torch.Generator) -> Tensor:
    rows = torch.randint(len(layers), (count,), generator=draw).tolist()
    return torch.from_numpy(np.stack([layers[i] for i in rows])).float()


def _shrunk(layers: Tensor, draw: torch.Generator) -> Tensor:
    """Crops of large eyes at 64 pixels."""
    side = int(torch.randint(144, layers.shape[-1] + 1, (1,), generator=draw))
    return F.interpolate(_cropped(layers, side, draw), size=(64, 64), mode="bilinear", antialias=True)


def _cropped(layers: Tensor, side: int, draw: torch.Generator) -> Tensor:
    top, left = torch.randint(layers.shape[-1] - side + 1, (2,), generator=draw).tolist()
    return layers[:, :, top : top + side, left : left + side]


def _turned(layers: Tensor, draw: torch.Generator) -> Tensor:
    """Mirrored and, now and then, transposed, one way for the whole batch."""
    across, down, over = torch.rand(3, generator=draw).tolist()
    layers = layers.flip(3) if across < 0.5 else layers
    layers = layers.flip(2) if down < 0.5 else layers
    return layers.transpose(2, 3) if over < 0.15 else layers


def _std(layers: np.ndarray, seed: int) -> Tensor:
    """Standard deviation [C] of centred log-reflectance over lit pixels of painted eyes."""
    draw = stream(seed, "segmenter statistics")
    logs, _, lit = paint(torch.from_numpy(np.array(layers[:100])).float(), draw)
    x = centred(logs, lit, torch.full((logs.shape[1],), 1.0))
    return (x.square().sum((0, 2, 3)) / lit.sum()).sqrt()


def _phantoms(count: int, size: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Cubes float32 [N, C, H, W] and masks of held-out phantoms, as anybody simulates them."""
    seed = key("segmenter held out", _HELD_OUT_SEED) % 2**31
    made = [simulate_cube(i, ("OD", "OS")[i % 2], size=size, seed=seed) for i in range(count)]
    return np.stack([m.cube for m in made]), {name: np.stack([m.masks[name] for m in made]) for name in STRUCTURES}


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    Command(train_segmenter, "python -m synthgen.quality.segmenter.training", __doc__ or "").main(argv)


if __name__ == "__main__":
    main()
