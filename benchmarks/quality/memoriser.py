"""A real memoriser, and what the authenticity gate says of its samples: `python -m benchmarks.quality.memoriser`.

A flow is over-trained on 20 cubes of the packaged autoencoder's codes until it repeats them. Each of its samples is
shown beside its nearest training cube by plain correlation of the log images; whether it is a copy was decided by eye,
before the gate was asked, and is kept in `memoriser_labels.json` by sample id (samples repeat themselves by id on one
device and build; elsewhere label anew from the pictures that this command writes).
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.common import record
from synthgen.cubes.cohort.cohort import Cohort, CohortWriter
from synthgen.cubes.cohort.splits import load_or_make_split
from synthgen.generator.generator import Generator
from synthgen.generator.training.checkpoint import save_autoencoder
from synthgen.generator.training.flow import DiffusionTraining, train_diffusion
from synthgen.quality.features.handcrafted import filled_logs
from synthgen.quality.gates import load_gates
from synthgen.science.intervals import exact_interval

LABELS = Path(__file__).parent / "memoriser_labels.json"
CUBES, SAMPLES, LABELLED, SEED = 20, 300, 60, 7
STEPS = 5000  # each cube is seen 5,000 times
BANDS = (6, 3, 1)  # shown as red, green, blue: 630, 540, 480 nm


def train(training: str, out: Path) -> Path:
    """The memoriser's folder; trained on 20 training cubes of the packaged gates, without any guard."""
    if (out / "run" / "generator").exists():
        return out / "run" / "generator"
    out.mkdir(parents=True, exist_ok=True)
    packaged, cohort = Generator.load("phantom64", "cpu"), Cohort.open(training)
    known = cohort.index_of(load_or_make_split(cohort).train)[::2][:CUBES]
    with CohortWriter(out / "twenty.h5", cohort.wavelengths, cohort.height, cohort.width) as writer:
        for index, cube in zip(known, cohort.cubes(known), strict=True):
            writer.append(cube, str(cohort.patient_id[index]))
    save_autoencoder(
        out / "autoencoder", packaged.autoencoder, packaged.wavelengths, packaged.provenance, packaged.made
    )
    return train_diffusion(
        DiffusionTraining(
            data=str(out / "twenty.h5"),
            autoencoder=str(out / "autoencoder"),
            out=str(out / "run"),
            patients="all",
            steps=STEPS,
            channels=64,
            multipliers=(1, 2, 3),
            blocks=1,
            dropout=0.0,
            keep_best=False,
            batch_size=20,
            learning_rate=1e-3,
            validate_every=1000,
            checkpoint_every=2000,
            cpu=True,
        )
    )


@torch.no_grad()
def nearest_by_correlation(made: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """Correlation [n] with, and index [n] of, the nearest of `real` and its mirror images: centred log images.

    Index k + len(real) is the mirror image of k: the flow is trained on both.
    """
    a, b = (torch.nn.functional.normalize(_flat(x), dim=1) for x in (made, with_mirrored(real)))
    best = (a @ b.T).max(1)
    return best.values, best.indices


def with_mirrored(cubes: Tensor) -> Tensor:
    return torch.cat([cubes, cubes.flip(3)])


def _flat(cubes: Tensor) -> Tensor:
    logs = filled_logs(cubes)
    return (logs.filled - logs.mean[:, :, None, None]).flatten(1)


def pairs_page(path: Path, made: Tensor, real: Tensor, index: Tensor, correlation: Tensor, which: np.ndarray) -> None:
    """Samples beside their nearest training cubes, as a picture."""
    import matplotlib.pyplot as plt

    columns = 10
    rows, real = -(-len(which) // columns), with_mirrored(real)
    figure, axes = plt.subplots(2 * rows, columns, figsize=(columns * 1.25, rows * 2.9), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for place, k in enumerate(which):
        row, column = divmod(place, columns)
        for line, cube in enumerate((made[k], real[index[k]])):
            axes[2 * row + line, column].imshow(_shown(cube))
        axes[2 * row, column].set_title(f"{k}: {correlation[k]:.2f}", fontsize=7)
    figure.tight_layout(pad=0.2)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _shown(cube: Tensor) -> np.ndarray:
    picture = cube[list(BANDS)].numpy()
    top = np.quantile(picture, 0.995, axis=(1, 2), keepdims=True)
    return (np.clip(picture / top, 0, 1) ** 0.7).transpose(1, 2, 0)


def measure(training: str, out: Path, gates_name: str = "phantom64") -> None:
    """Train (once), sample, write the pictures, and record what the gate says of what was labelled by eye."""
    memoriser, packaged = Generator.load(train(training, out), "cpu"), Generator.load("phantom64", "cpu")
    twenty = torch.from_numpy(Cohort.open(out / "twenty.h5").cubes())
    cohort = Cohort.open(training)
    bank = torch.from_numpy(cohort.cubes(cohort.index_of(load_or_make_split(cohort).train)))
    gates, found = load_gates(gates_name), {}
    for name, generator, real in (("memoriser", memoriser, twenty), ("packaged generator", packaged, bank)):
        made = generator.decode(generator.sample(range(SAMPLES), SEED)).cpu()
        correlation, index = nearest_by_correlation(made, real)
        evenly = evenly_over(correlation)
        pairs_page(out / f"{name.replace(' ', '_')}_spread.png", made, real, index, correlation, evenly)
        admission = gates(made)
        copy, score = admission.scores["copy"].numpy(), admission.scores["authenticity"]
        pairs_page(
            out / f"{name.replace(' ', '_')}_nearest_by_the_gate.png",
            made, bank, admission.scores["nearest"], correlation, score.argsort().numpy()[:20],
        )  # fmt: skip
        hits = int(copy.sum())
        found[name] = {
            "generator": generator.hash,
            "samples": SAMPLES,
            "called copies": hits / SAMPLES,
            "interval": exact_interval(hits, SAMPLES),
            "correlation with the nearest training cube, quantiles 5, 50, 95 %": [
                round(float(q), 3) for q in correlation.quantile(torch.tensor([0.05, 0.5, 0.95]))
            ],
            **_against_labels(labels_of(name, generator.hash), copy),
        }
    reconstructed = packaged.decode(packaged.encode(bank)).cpu()
    hits = int(gates(reconstructed).scores["copy"].sum())
    found["training cubes encoded and decoded"] = {
        "called copies": hits / len(bank), "interval": exact_interval(hits, len(bank)), "of": len(bank)
    }  # fmt: skip
    record("memoriser", {"gates": gates.hash, "trained on": CUBES, "steps": STEPS, **found})


def evenly_over(correlation: Tensor, count: int = LABELLED) -> np.ndarray:
    """Ids of `count` samples spread evenly over the order of their correlations, the nearest first."""
    order = correlation.argsort(descending=True).numpy()
    return order[np.linspace(0, len(order) - 1, count).round().astype(int)]


def labels_of(name: str, generator_hash: str) -> dict[int, str]:
    """Labels by sample id; none where they were given to samples of another generator."""
    labels = json.loads(LABELS.read_text()).get(name, {}) if LABELS.exists() else {}
    if labels.get("generator") != generator_hash:
        print(f"{name}: no labels for samples of {generator_hash}; label the pictures by eye")
        return {}
    return {int(k): label for label in ("copy", "not a copy") for k in labels[label]}


def _against_labels(labels: dict[int, str], copy: np.ndarray) -> dict:
    found = {}
    for label in ("copy", "not a copy"):
        ids = [k for k, v in labels.items() if v == label]
        if ids:
            hits = int(copy[ids].sum())
            found[f"of those labelled '{label}'"] = {
                "called copies": hits, "of": len(ids), "interval": exact_interval(hits, len(ids))
            }  # fmt: skip
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--training", required=True, help="the cohort that the packaged gates were calibrated on")
    parser.add_argument("--out", type=Path, required=True, help="folder for the memoriser and the pictures")
    parser.add_argument("--gates", default="phantom64")
    args = parser.parse_args()
    os.environ.setdefault("SYNTHGEN_THREADS", "1")  # another number of threads may train another memoriser
    torch.set_num_threads(1)
    measure(args.training, args.out, args.gates)
