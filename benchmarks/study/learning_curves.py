"""Does pretraining help where the label is weak? `python -m benchmarks.study.learning_curves --minutes 60`.

Simulated eyes whose label LDA on mean spectra hardly reads (AUROC under 0.75; `weak` says whether that came true).
SimCLR and DINO are pretrained on other eyes, unlabelled, and the frozen backbone is probed before, during and after;
beside it the untrained network whose batch norms have seen cubes. Adds to results/learning_curves.json.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch

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
from synthgen.runs.processes.device import pick_device, set_threads

METHODS = ("simclr", "dino")
PROBING = 0.8  # of the time goes to steps, the rest is left to the probes


def curve(config: Pretraining, eyes: Eyes, device: torch.device, seconds: float, points: int) -> dict:
    """Train for about `seconds`, probing before, after and `points` - 2 times between."""
    steps = steps_for(config, eyes.learn, device, PROBING * seconds)
    loop, found, rows, spent, loss = Ours(config, eyes.learn, device), [], [], 0.0, None
    calibrated = probed(settled_on(loop.method.backbone, loop.statistics, eyes.learn), loop.statistics, eyes.judge)
    stops = sorted({round(steps * k / (points - 1)) for k in range(points)})
    for done in range(steps + 1):
        if done in stops:
            found.append(probed(loop.method.backbone, loop.statistics, eyes.judge))
            rows.append({"step": done, "seconds": round(spent, 1), "loss": loss, **line(found[-1])})
            print(config.method, rows[-1], flush=True)
        if done < steps:
            start = time.perf_counter()
            loss = round(loop.step(done, steps), 4)
            spent += time.perf_counter() - start
    return {
        "steps": steps,
        "curve": rows,
        "untrained, batch norm calibrated": line(calibrated),
        "linear_before_and_after": [rows[0]["linear_auroc"], rows[-1]["linear_auroc"]],
        "knn_before_and_after": [rows[0]["knn_auroc"], rows[-1]["knn_auroc"]],
        "after_minus_untrained": compared(found[-1:], found[:1]),
        "after_minus_calibrated": compared(found[-1:], [calibrated]),
    }


def measure(minutes: float = 60, patients: int = 300, judged: int = 150, backbone: str = "resnet18", points: int = 6,
            batch: int = 64, augmentation: str = "colour", signature: float | None = None) -> None:  # fmt: skip
    set_threads()
    device = pick_device(None)
    with tempfile.TemporaryDirectory() as folder:
        eyes = weak_eyes(Path(folder), patients, judged, signature=signature)
        found = {}
        for method in METHODS:
            views = augmentations()[augmentation]
            config = Pretraining(method=method, backbone=backbone, batch_size=batch, augmentation=views)
            found[method] = curve(config, eyes, device, 60 * minutes / len(METHODS), points)
    value = {
        "minutes": minutes, "backbone": backbone, "batch": batch, "augmentation": augmentation, "patients": patients,
        "judged": judged, **eyes.about(), "methods": found,
    }  # fmt: skip
    record("learning_curves", value)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60, help="of training and probing, both methods together")
    parser.add_argument("--patients", type=int, default=300, help="to learn from; two eyes each")
    parser.add_argument("--judged", type=int, default=150, help="to probe")
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--points", type=int, default=6, help="of each curve, first and last included")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--augmentation", choices=["default", "colour"], default="colour", help="colour: left alone")
    parser.add_argument("--signature", type=float, help="amplitude; by default the largest that LDA hardly reads")
    args = parser.parse_args()
    measure(args.minutes, args.patients, args.judged, args.backbone, max(2, args.points), args.batch, args.augmentation,
            args.signature)  # fmt: skip
