"""What the mix costs beside a step, and whether memory grows: `python -m benchmarks.speed.mix`."""

from __future__ import annotations

import argparse
import gc
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import torch
from torch import nn

from benchmarks.common import record
from synthgen.cubes.cohort.splits import load_or_make_split
from synthgen.cubes.phantom.cohort import simulate_cohort
from synthgen.cubes.reflectance import band_statistics
from synthgen.generator.dataset import SyntheticRetinaDataset
from synthgen.generator.generator import Generator
from synthgen.integration.artifacts import PACKAGED
from synthgen.integration.mix import Mix, as_ratio
from synthgen.integration.options import Pretraining
from synthgen.integration.pretrain import draw_batch
from synthgen.integration.supply.pool import SyntheticPool
from synthgen.integration.supply.real import RealCubes
from synthgen.integration.supply.rolling_window import Window
from synthgen.integration.supply.source import Supply
from synthgen.quality.gates import load_gates
from synthgen.runs.processes.device import set_threads
from synthgen.ssl.augment.pipeline import Augmenter
from synthgen.ssl.backbone import make_backbone, standardise
from synthgen.ssl.methods.optim import make_optimizer
from synthgen.ssl.methods.simclr import SimCLR

WARM_UP = 0.2  # fraction of the steps before the line through the memory begins


class _Patches(nn.Module):
    """One layer on the means of patches: a backbone of a few milliseconds, for steps that are all draws and views."""

    num_features = 64

    def __init__(self, bands: int):
        super().__init__()
        self.embed = nn.Linear(bands, self.num_features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        patches = nn.functional.avg_pool2d(x, 8).flatten(2).mT
        return self.embed(patches).relu().mean(1)


class _Loop:
    """The steps of a pretraining without its run folder, so that its parts can be timed apart."""

    def __init__(
        self, folder: Path, ratio: str, batch: int, backbone: str | None, *, free: bool, gated: bool, device: str
    ):
        cohort = simulate_cohort(folder / f"eyes{ratio.replace('/', '_')}.h5", patients=100, size=64, seed=2)
        split, self.device = load_or_make_split(cohort), torch.device(device)
        self.config = Pretraining(batch_size=batch)
        self.mix = Mix(as_ratio(ratio), batch)
        self.real = RealCubes(cohort, split.train, self.device)
        self.statistics = band_statistics(cohort.cubes(self.real.index))
        self.supply = Supply(None, None)
        if self.mix.ratio:
            generator = Generator.load(PACKAGED, self.device)
            gates = load_gates(PACKAGED) if gated else None
            dataset = SyntheticRetinaDataset(generator, seed=0, sampler="ab2", output="tokens", gates=gates)
            window = None if gates is None else Window(gates, generator.decode, closes=False)
            reuse = 10**9 if free else 8
            pool = SyntheticPool(dataset, self.mix.most, reuse=reuse, seed=0, cache="on", window=window)
            pool.fill()
            self.supply.source = pool
        self.augmenter = Augmenter(self.config.augmentation, cohort.wavelengths, 64)
        network = make_backbone(backbone, cohort.bands, 64) if backbone else _Patches(cohort.bands)
        self.method = SimCLR(network, self.config.simclr, gather=False)
        self.method.to(self.device)
        self.optimizer = make_optimizer(self.method.trainable_parameters(), 1e-3, 0.05)

    def draw(self, step: int) -> torch.Tensor:
        return draw_batch(step, self.mix, self.real, self.supply, 0)["cube"]

    def train(self, cubes: torch.Tensor, step: int) -> None:
        self.learn(self.views(cubes, step))

    def views(self, cubes: torch.Tensor, step: int) -> list[torch.Tensor]:
        views = self.augmenter.views(cubes, 0, step, np.arange(len(cubes)))
        return [standardise(v, self.statistics) for v in views]

    def learn(self, views: list[torch.Tensor]) -> None:
        loss, _ = self.method(views)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def finish(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def overhead(steps: int = 12, batch: int = 64, device: str = "cpu") -> dict:
    """Seconds of a draw, mixed and real alone, in turn, over those of a step; synthetic cubes cost nothing to make."""
    with tempfile.TemporaryDirectory() as folder:
        loops = {
            r: _Loop(Path(folder), r, batch, "resnet18", free=True, gated=False, device=device) for r in ("0", "0.5")
        }
        seconds: dict[str, list[float]] = {"draw 0": [], "draw 0.5": [], "step": []}
        for step in range(steps):
            for ratio, loop in loops.items():
                start = time.perf_counter()
                cubes = loop.draw(step)
                loop.finish()
                drawn = time.perf_counter()
                loop.train(cubes, step)
                loop.finish()
                seconds[f"draw {ratio}"].append(drawn - start)
                seconds["step"].append(time.perf_counter() - start)
    ms = {name: float(np.median(values[2:])) * 1000 for name, values in seconds.items()}
    return {
        "batch": batch,
        "ms": {k: round(v, 2) for k, v in ms.items()},
        "mix_share_of_a_step": round((ms["draw 0.5"] - ms["draw 0"]) / ms["step"], 5),
        "asked_at_most": 0.03,
    }


def memory(steps: int = 10_000, batch: int = 8, device: str = "cpu") -> dict:
    """MB of the process by step, pool, gates and window at work, one layer as backbone; the slope after warm-up."""
    process = psutil.Process()
    with tempfile.TemporaryDirectory() as folder:
        loop = _Loop(Path(folder), "0.5", batch, None, free=False, gated=True, device=device)
        at, held, training, began = [], [], [], time.perf_counter()
        for step in range(steps):
            views = loop.views(loop.draw(step), step)
            clock = time.perf_counter()
            loop.learn(views)
            training.append(time.perf_counter() - clock)
            if step % max(1, steps // 200) == 0:
                gc.collect()
                at.append(step)
                held.append(process.memory_info().rss / 2**20)
        seconds = time.perf_counter() - began
        pool = loop.supply.source
        assert isinstance(pool, SyntheticPool)
    after = np.array(at) >= WARM_UP * steps
    slope, _ = np.polyfit(np.array(at)[after], np.array(held)[after], 1)
    return {
        "steps": steps,
        "batch": batch,
        "ms_a_step": round(1000 * seconds / steps, 2),
        "ms_of_the_backbone": round(1000 * float(np.median(training)), 2),
        "looks_of_the_window": pool.counters()["window/looks"],
        "proposed": pool.proposed,
        "accepted": pool.accepted,
        "mb_after_warm_up_and_at_the_end": [round(held[int(np.argmax(after))], 1), round(held[-1], 1)],
        "mb_a_thousand_steps": round(1000 * float(slope), 3),
        "asked_at_most": 1.0,
    }


def measure(device: str = "cpu", steps: int = 10_000) -> None:
    set_threads()
    record("mix", {"on": device, "overhead": overhead(device=device), "memory": memory(steps, device=device)})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=10_000, help="of the run that watches the memory")
    args = parser.parse_args()
    measure(args.device, args.steps)
