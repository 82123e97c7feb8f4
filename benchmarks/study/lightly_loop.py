"""Our pretraining beside lightly's own example loop: `python -m benchmarks.study.lightly_loop --minutes 60 --seeds 3`.

SimCLR on real cubes alone: the same initial backbone, cubes, augmentations, batch and number of steps. Theirs is the
loop of lightly's SimCLR example (its head, its loss at its default temperature, SGD at 0.06, a PyTorch DataLoader, the
views through the network one after the other); once more with our optimiser's AdamW at our peak rate, because its SGD
is meant for longer runs. The contenders take their steps in turn, each time in another order, so a busy machine is busy
for all; the probes are compared in pairs, on the same patients and seeds.

Ours is, for this, our step without a run folder. The loop that users run, `pretrain` at ratio 0 with its metrics,
progress bar and signals, is timed apart, in turn with as many steps of theirs. Adds to results/lightly_loop.json.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from lightly.loss import NTXentLoss
from lightly.models.modules import SimCLRProjectionHead
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.common import record
from benchmarks.study.training import (
    Eyes,
    Ours,
    augmentations,
    compared,
    line,
    probed,
    settled_on,
    steps_for,
    weak_eyes,
)
from synthgen.integration.options import Pretraining
from synthgen.integration.pretrain import pretrain
from synthgen.runs.folder import read_metrics
from synthgen.runs.processes.device import pick_device, set_threads
from synthgen.ssl.backbone import make_backbone, standardise
from synthgen.ssl.evaluation.probe import ProbeResult

OURS, EXAMPLE, ADAMW = "ours", "lightly example", "lightly example, AdamW"
UNTRAINED, CALIBRATED = "untrained", "untrained, batch norm calibrated"
TRAINING, LOOP = 0.75, 0.1  # of the time go to the contenders' steps and to the timing of the loop, the rest to probes
WARM = 5  # first steps of a timed run that do not count, and the steps between two lines of metrics


class Theirs:
    """The loop of lightly's SimCLR example, on cubes in place of pictures."""

    def __init__(self, ours: Ours, optimizer: Callable[[Iterator[nn.Parameter]], torch.optim.Optimizer]):
        torch.manual_seed(ours.config.seed)
        self.ours = ours
        self.backbone = make_backbone(ours.config.backbone, ours.augmenter.bands, ours.augmenter.size).to(ours.device)
        self.head = SimCLRProjectionHead(self.backbone.num_features, 512, 128).to(ours.device)
        self.criterion = NTXentLoss()
        self.optimizer = optimizer([*self.backbone.parameters(), *self.head.parameters()])
        cubes = torch.from_numpy(ours.real.cohort.cubes(ours.real.index))
        loader = DataLoader(TensorDataset(cubes), batch_size=ours.config.batch_size, shuffle=True, drop_last=True)
        self.batches = _endless(loader)

    def step(self, step: int, total: int) -> float:
        cubes = next(self.batches).to(self.ours.device)
        views = self.ours.augmenter.views(cubes, self.ours.config.seed, step, np.arange(len(cubes)))
        x0, x1 = (standardise(view, self.ours.statistics) for view in views)
        z0 = self.head(self.backbone(x0).flatten(start_dim=1))
        z1 = self.head(self.backbone(x1).flatten(start_dim=1))
        loss = self.criterion(z0, z1)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()


def _endless(loader: DataLoader) -> Iterator[Tensor]:
    while True:
        for (cubes,) in loader:
            yield cubes


def example(ours: Ours) -> Theirs:
    return Theirs(ours, lambda p: torch.optim.SGD(p, lr=0.06))


def one_seed(
    config: Pretraining, eyes: Eyes, device: torch.device, steps: int
) -> tuple[dict[str, ProbeResult], dict[str, list[float]], dict[str, float]]:
    """Probe of each contender after `steps` steps, and of the untrained network; seconds of each step; last losses."""
    ours = Ours(config, eyes.learn, device)
    start = ours.method.backbone
    probes = {
        UNTRAINED: probed(start, ours.statistics, eyes.judge),
        CALIBRATED: probed(settled_on(start, ours.statistics, eyes.learn), ours.statistics, eyes.judge),
    }
    contenders: dict[str, Ours | Theirs] = {
        OURS: ours,
        EXAMPLE: example(ours),
        ADAMW: Theirs(ours, lambda p: torch.optim.AdamW(p, lr=config.learning_rate)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    losses: dict[str, float] = {}
    names = list(contenders)
    for step in range(steps):
        for name in names[step % len(names) :] + names[: step % len(names)]:
            began = time.perf_counter()
            losses[name] = contenders[name].step(step, steps)
            seconds[name].append(time.perf_counter() - began)
    for name, contender in contenders.items():
        network = contender.method.backbone if isinstance(contender, Ours) else contender.backbone
        probes[name] = probed(network, ours.statistics, eyes.judge)
        print(f"seed {config.seed}, {name}: {line(probes[name])}", flush=True)
    return probes, seconds, losses


def loop_speed(config: Pretraining, eyes: Eyes, device: torch.device, seconds: float, turns: int = 3) -> dict:
    """Samples a second of `pretrain` itself, read from its metrics, and of lightly's example, in turn."""
    steps = max(3, steps_for(config, eyes.learn, device, seconds / 2 / turns) // WARM) * WARM
    rates: dict[str, list[float]] = {"pretrain": [], EXAMPLE: []}
    with tempfile.TemporaryDirectory() as folder:

        def loop(turn: int) -> float:
            place = {"data": str(eyes.learn.path), "out": str(Path(folder) / str(turn)), "synthetic_ratio": "0"}
            length = {"steps": steps, "log_every": WARM, "monitor_every": 0, "checkpoint_every": steps}
            run = pretrain(config.model_copy(update=place | length))
            first, *_, last = (m for m in read_metrics(run) if "samples_seen" in m)
            return (last["samples_seen"] - first["samples_seen"]) / (last["time"] - first["time"])

        def peer(turn: int) -> float:
            theirs, marks = example(Ours(config, eyes.learn, device)), []
            for step in range(steps):
                theirs.step(step, steps)
                marks.append(time.perf_counter())
            return (steps - WARM) * config.batch_size / (marks[-1] - marks[WARM - 1])

        for turn in range(turns):
            jobs = [("pretrain", loop), (EXAMPLE, peer)]
            for name, job in jobs if turn % 2 else reversed(jobs):
                rates[name].append(job(turn))
    median = {name: float(np.median(found)) for name, found in rates.items()}
    return {
        "steps": steps,
        "turns": turns,
        "samples_per_second": {name: round(rate, 1) for name, rate in median.items()},
        "over_lightly_example": round(median["pretrain"] / median[EXAMPLE], 3),
    }


def measure(minutes: float = 60, patients: int = 300, judged: int = 150, backbone: str = "resnet18",
            batch: int = 64, seeds: int = 3, augmentation: str = "colour",
            signature: float | None = None) -> None:  # fmt: skip
    set_threads()
    device = pick_device(None)
    config = _simclr(backbone, batch, augmentation)
    probes: dict[str, list[ProbeResult]] = {}
    seconds: dict[str, list[float]] = {}
    losses: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        eyes = weak_eyes(Path(folder), patients, judged, signature=signature)
        loop = loop_speed(config, eyes, device, LOOP * 60 * minutes)
        print(loop, flush=True)
        steps = steps_for(config, eyes.learn, device, TRAINING * 60 * minutes / 3 / seeds)
        for seed in range(seeds):
            found = one_seed(config.model_copy(update={"seed": seed}), eyes, device, steps)
            for whole, part in zip((probes, seconds, losses), found, strict=True):
                for name, value in part.items():
                    whole.setdefault(name, []).extend(value if isinstance(value, list) else [value])
    rate = {name: batch / float(np.median(took)) for name, took in seconds.items()}
    over = lambda name: {"speed": round(rate[OURS] / rate[name], 3)} if name in rate else {}
    value = {
        "minutes": minutes, "seeds": seeds, "steps": steps, "batch": batch, "backbone": backbone,
        "augmentation": augmentation,
        "patients": patients, "judged": judged, **eyes.about(),
        "samples_per_second": {name: round(value, 1) for name, value in rate.items()},
        "last_loss": {name: np.round(values, 4).tolist() for name, values in losses.items()},
        "auroc": {name: _over_seeds(of) for name, of in probes.items()},
        "ours_minus": {name: compared(probes[OURS], of) | over(name) for name, of in probes.items() if name != OURS},
        "pretrain_loop": loop,
    }  # fmt: skip
    record("lightly_loop", value)


def speed(minutes: float, backbone: str, batch: int, augmentation: str, turns: int = 5) -> None:
    """`loop_speed` alone, into results/lightly_speed.json: for a machine that is quiet now."""
    threads, device = set_threads(), pick_device(None)
    config = _simclr(backbone, batch, augmentation)
    with tempfile.TemporaryDirectory() as folder:
        eyes = weak_eyes(Path(folder), patients=100, judged=20, signature=0.15)
        about = {"threads_used": threads, "backbone": backbone, "batch": batch, "augmentation": augmentation}
        record("lightly_speed", about | loop_speed(config, eyes, device, 60 * minutes, turns))


def _simclr(backbone: str, batch: int, augmentation: str) -> Pretraining:
    views = augmentations()[augmentation]
    return Pretraining(method="simclr", backbone=backbone, batch_size=batch, precision="fp32", augmentation=views)


def _over_seeds(found: Sequence[ProbeResult]) -> dict:
    """One AUROC for each seed."""
    lines = [line(one) for one in found]
    return {name: [row[f"{name}_auroc"] for row in lines] for name in ("linear", "knn")}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60, help="in all, without the simulation of the eyes")
    parser.add_argument("--patients", type=int, default=300, help="to learn from; two eyes each")
    parser.add_argument("--judged", type=int, default=150, help="to probe")
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=3, help="each a run of its own, shorter when there are more")
    parser.add_argument("--augmentation", choices=["default", "colour"], default="colour", help="colour: left alone")
    parser.add_argument("--signature", type=float, help="amplitude; by default the largest that LDA hardly reads")
    parser.add_argument("--speed", action="store_true", help="time the loops in turn and nothing else")
    args = parser.parse_args()
    if args.speed:
        speed(args.minutes, args.backbone, args.batch, args.augmentation)
    else:
        measure(args.minutes, args.patients, args.judged, args.backbone, args.batch, args.seeds, args.augmentation,
                args.signature)  # fmt: skip
