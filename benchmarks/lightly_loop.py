"""Our pretraining beside lightly's own example loop: `python -m benchmarks.lightly_loop --minutes 30`.

SimCLR on real cubes alone: the same initial backbone, cubes, augmentations, batch and number of steps. Theirs is the
loop of lightly's SimCLR example (its head, its loss at its default temperature, SGD at 0.06, a PyTorch DataLoader, the
views through the network one after the other); once more with our optimiser's AdamW at our peak rate, because its SGD
is meant for longer runs. The contenders take their steps in turn, so a busy machine is busy for all. Adds to
results/lightly_loop.json.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from lightly.loss import NTXentLoss
from lightly.models.modules import SimCLRProjectionHead
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.common import record
from benchmarks.training import Ours, probed, steps_for, weak_eyes
from synthgen.integration.options import Pretraining
from synthgen.runs.device import pick_device, set_threads
from synthgen.ssl.backbone import make_backbone, standardise


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


def measure(minutes: float = 30, patients: int = 300, judged: int = 150, backbone: str = "resnet18",
            batch: int = 64) -> None:  # fmt: skip
    set_threads()
    device = pick_device(None)
    config = Pretraining(method="simclr", backbone=backbone, batch_size=batch)
    with tempfile.TemporaryDirectory() as folder:
        eyes = weak_eyes(Path(folder), patients, judged)
        steps = steps_for(config, eyes.learn, device, 0.9 * 60 * minutes / 3)
        ours = Ours(config, eyes.learn, device)
        untrained = probed(ours.method.backbone, ours.statistics, eyes.judge)
        contenders = {
            "ours": ours,
            "lightly example": Theirs(ours, lambda p: torch.optim.SGD(p, lr=0.06)),
            "lightly example, AdamW": Theirs(ours, lambda p: torch.optim.AdamW(p, lr=config.learning_rate)),
        }
        seconds: dict[str, list[float]] = {name: [] for name in contenders}
        losses: dict[str, float] = {}
        for step in range(steps):
            for name, contender in contenders.items():
                start = time.perf_counter()
                losses[name] = contender.step(step, steps)
                seconds[name].append(time.perf_counter() - start)
        found = {}
        for name, contender in contenders.items():
            network = contender.method.backbone if isinstance(contender, Ours) else contender.backbone
            found[name] = {
                "samples_per_second": round(batch / float(np.median(seconds[name])), 1),
                "last_loss": round(losses[name], 4),
                **probed(network, ours.statistics, eyes.judge),
            }
    value = {
        "minutes": minutes, "steps": steps, "batch": batch, "backbone": backbone, "patients": patients,
        "judged": judged, "signature": eyes.amplitude, "lda_auroc": round(eyes.lda.auroc, 4), "untrained": untrained,
        **found,
    }  # fmt: skip
    record("lightly_loop", value)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30, help="of training, the three contenders together")
    parser.add_argument("--patients", type=int, default=300, help="to learn from; two eyes each")
    parser.add_argument("--judged", type=int, default=150, help="to probe")
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--batch", type=int, default=64)
    args = parser.parse_args()
    measure(args.minutes, args.patients, args.judged, args.backbone, args.batch)
