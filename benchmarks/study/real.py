"""The main job on a user's own cubes: both trainings, pretraining with half synthetic cubes, a probe; numbers only.

The probe needs no labels: it asks whether a patch lies on large vessels or on background, from the masks of the cohort,
on patients that no training has seen, beside the same network with random weights.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.common import record
from synthgen.cubes.cohort.cohort import Cohort
from synthgen.cubes.cohort.splits import load_or_make_split
from synthgen.errors import InputError
from synthgen.integration.options import Pretraining
from synthgen.integration.pretrain import pretrain
from synthgen.integration.train import WatchedAutoencoder, WatchedDiffusion, train_autoencoder, train_diffusion
from synthgen.runs.folder import read_metrics
from synthgen.science.bootstrap import middle
from synthgen.ssl.backbone import load_backbone, make_backbone
from synthgen.ssl.evaluation.probe import embed
from synthgen.ssl.evaluation.spectra import mean_spectra


def main_job(data: str, minutes: float, steps: int = 300, out: str | None = None) -> None:
    """Train, pretrain, probe; the pictures stay in `out` (a temporary folder by default)."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(out or temporary)
        coder = train_autoencoder(WatchedAutoencoder(data=data, out=str(folder / "autoencoder"), minutes=minutes))
        made = train_diffusion(
            WatchedDiffusion(data=data, autoencoder=str(coder), out=str(folder / "diffusion"), minutes=minutes)
        )
        run = pretrain(
            Pretraining(
                data=data, generator=str(made), gates="report", steps=steps, out=str(folder / "pretrain"), seed=0
            )
        )
        cohort = Cohort.open(data)
        metrics = [m for m in read_metrics(run) if "synthetic_share" in m]
        record(
            "real_main_job",
            {
                "data": Path(data).name,
                "cubes": len(cohort),
                "patients": len(cohort.patients),
                "minutes_per_training": minutes,
                "autoencoder": last_figures(folder / "autoencoder"),
                "diffusion": last_figures(folder / "diffusion"),
                "pretraining_steps": steps,
                "synthetic_share": metrics[-1]["synthetic_share"],
                "vessel_probe_auroc": vessel_probe(run, cohort),
            },
        )


def last_figures(folder: Path) -> dict[str, float]:
    """The figures of the last validation of a training."""
    lines = [m for m in read_metrics(folder) if any(k.startswith(("validation", "held_out")) for k in m)]
    return {k: round(v, 4) for k, v in lines[-1].items() if isinstance(v, float) and k != "time"}


def vessel_probe(run: Path, cohort: Cohort) -> dict[str, list[float]]:
    """AUROC [low, high] of 'more vessel than the median patch' on unseen patients: pretrained, random, mean spectra.

    Logistic regression on standardised features, folds that keep the patches of an eye together; the interval is a
    bootstrap over eyes.
    """
    split = load_or_make_split(cohort)
    index = cohort.index_of((*split.calibration, *split.test))
    masks = cohort.masks(index)
    if "artery" not in masks or "vein" not in masks:
        raise InputError("has no vessel masks to probe with", path=cohort.path)
    share = (masks["artery"] | masks["vein"]).mean((1, 2))
    labels, eyes = share > np.median(share), cohort.patient_id[index]
    cubes, trained = cohort.cubes(index), load_backbone(run)
    torch.manual_seed(0)
    random = make_backbone(trained.name, trained.bands, trained.size, trained.reading).eval()
    features = {
        "pretrained": embed(trained.model, trained.statistics, cubes),
        "random": embed(random, trained.statistics, cubes),
        "mean spectra": mean_spectra(cubes),
    }
    return {name: _grouped_auroc(values, labels, eyes) for name, values in features.items()}


def _grouped_auroc(features: np.ndarray, labels: np.ndarray, eyes: np.ndarray) -> list[float]:
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))
    folds = GroupKFold(min(6, len(set(eyes))))
    scores = cross_val_predict(model, features, labels, groups=eyes, cv=folds, method="decision_function")
    rng, rows = np.random.default_rng(0), {eye: np.flatnonzero(eyes == eye) for eye in sorted(set(eyes))}
    draws = []
    for _ in range(1000):
        some = np.concatenate([rows[e] for e in rng.choice(list(rows), len(rows))])
        if 0 < labels[some].sum() < len(some):
            draws.append(roc_auc_score(labels[some], scores[some]))
    return [round(float(v), 3) for v in (roc_auc_score(labels, scores), *middle(np.array(draws)))]
