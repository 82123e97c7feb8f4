"""What the pretraining benchmarks share: eyes to learn from and eyes to probe, what a probe of them says, the network
without pretraining, and our steps without a run folder."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks import ROOT
from synthgen.config import load
from synthgen.cubes.cohort.cohort import Cohort
from synthgen.cubes.phantom.cohort import simulate_cohort
from synthgen.cubes.reflectance import BandStatistics, band_statistics
from synthgen.experiments.study.options import Study
from synthgen.integration.mix import Mix, as_ratio
from synthgen.integration.options import Pretraining
from synthgen.integration.pretrain import draw_batch, make_method
from synthgen.integration.supply.real import RealCubes
from synthgen.integration.supply.source import Supply
from synthgen.science.schedules import set_learning_rate
from synthgen.ssl.augment.pipeline import Augmentation, Augmenter
from synthgen.ssl.backbone import standardise
from synthgen.ssl.evaluation.paired import compare_seeds
from synthgen.ssl.evaluation.probe import ProbeResult, embed, fit_lda, probe
from synthgen.ssl.evaluation.spectra import mean_spectra
from synthgen.ssl.evaluation.stages import settled
from synthgen.ssl.methods.optim import (
    learning_rate,
    make_optimizer,
    set_weight_decay,
    weight_decay_at,
)

AMPLITUDES = (0.3, 0.25, 0.2, 0.15, 0.1, 0.05, 0.03)  # of the signature, from plain to hardly there
WEAK = 0.72  # AUROC that LDA on mean spectra may reach on the eyes that the signature is chosen by
LDA_LIMIT = 0.75  # and on those that are probed: above it the label would need no network
SETTLE = 512  # cubes are plenty for batch norm's means and variances


def augmentations() -> dict[str, Augmentation]:
    """`default`, and `colour`: small crops whose colour is left alone, as the study on simulated eyes has them."""
    return {
        "default": Augmentation(),
        "colour": load(Study, ROOT / "configs" / "study_small.yaml").pretrain.augmentation,
    }


@dataclass(frozen=True)
class Eyes:
    """Cohorts of different people: `learn` for the pretraining (labels unused), `judge` for the probe."""

    learn: Cohort
    judge: Cohort
    amplitude: float
    lda: ProbeResult

    @property
    def weak(self) -> bool:
        """Whether LDA on mean spectra stays under the limit on the eyes that are probed, as was asked for."""
        return self.lda.auroc < LDA_LIMIT

    def about(self) -> dict:
        """Of the eyes, for a results file."""
        rounded = {"auroc": round(self.lda.auroc, 4), "interval": [round(v, 4) for v in self.lda.interval]}
        return {"signature": self.amplitude, "lda": rounded, "lda_asked_under": LDA_LIMIT, "weak": self.weak}


def weak_eyes(folder: Path, patients: int, judged: int, seed: int = 40, signature: float | None = None) -> Eyes:
    """Simulated eyes whose label LDA on mean spectra hardly reads.

    The signature's amplitude is the one that is given, or else the largest with which it stays under `WEAK` on a third
    cohort, which is used for nothing else.
    """
    amplitude = _hardly_read(folder, judged, seed) if signature is None else signature
    learn = simulate_cohort(folder / "learn.h5", patients, 64, seed + 1, signature=amplitude)
    judge = simulate_cohort(folder / "judge.h5", judged, 64, seed + 2, signature=amplitude)
    return Eyes(learn, judge, amplitude, _lda(judge))


def _hardly_read(folder: Path, judged: int, seed: int) -> float:
    amplitude = AMPLITUDES[-1]
    for amplitude in AMPLITUDES:
        tuned = simulate_cohort(folder / f"tuned_{amplitude}.h5", judged, 64, seed, signature=amplitude)
        found = _lda(tuned)
        tuned.path.unlink()
        print(f"signature {amplitude:g}: LDA on mean spectra {found.auroc:.3f}", flush=True)
        if found.auroc < WEAK:
            break
    return amplitude


def _lda(cohort: Cohort) -> ProbeResult:
    assert cohort.label is not None
    spectra = mean_spectra(cohort.cubes())
    return probe(spectra, cohort.label, cohort.patient_id, fit=fit_lda, note="LDA on mean spectra")


def probed(backbone: nn.Module, statistics: BandStatistics, judge: Cohort) -> ProbeResult:
    """Linear and nearest-neighbour probe of a frozen backbone."""
    assert judge.label is not None
    return probe(embed(backbone, statistics, judge.cubes()), judge.label, judge.patient_id)


def line(found: ProbeResult) -> dict:
    """Its AUROCs over patients, as a line of a results file."""
    pairs = {"linear": (found.auroc, found.interval), "knn": (found.knn_auroc, found.knn_interval)}
    return {
        f"{name}_{key}": np.round(value, 4).tolist()
        for name, pair in pairs.items()
        for key, value in zip(("auroc", "interval"), pair, strict=True)
    }


def compared(first: Sequence[ProbeResult], second: Sequence[ProbeResult]) -> dict:
    """First minus second on the same patients, one pair for each seed: linear and nearest neighbours."""
    by_neighbours = lambda p: p.model_copy(update={"auroc": p.knn_auroc, "scores": p.knn_scores})
    sides = {"linear": (first, second), "knn": tuple([by_neighbours(p) for p in side] for side in (first, second))}
    found = {name: compare_seeds(*pair) for name, pair in sides.items()}
    return {
        name: {
            "difference": round(d.difference, 4),
            "interval": [round(v, 4) for v in d.interval],
            "conclusion": d.conclusion,
        }
        for name, d in found.items()
    }


def settled_on(untrained: nn.Module, statistics: BandStatistics, learn: Cohort) -> nn.Module:
    """A copy whose batch norms know the first SETTLE cubes, and whose weights are still random (see `settled`)."""
    device, count = next(untrained.parameters()).device, min(SETTLE, len(learn))
    parts = np.array_split(np.arange(count), max(1, count // 64))
    seen = (standardise(torch.from_numpy(learn.cubes(some)).to(device), statistics) for some in parts)
    return settled(untrained, seen)


class Ours:
    """Our pretraining on real cubes, a step at a time, with the schedules of the loop."""

    def __init__(self, config: Pretraining, learn: Cohort, device: torch.device):
        torch.manual_seed(config.seed)
        self.config, self.device = config, device
        self.real = RealCubes(learn, learn.patients, device)
        self.statistics = band_statistics(learn.cubes(self.real.index))
        self.mix = Mix(as_ratio("0"), config.batch_size)
        self.augmenter = Augmenter(config.augmentation, learn.wavelengths, learn.height)
        self.method = make_method(config, learn.bands, learn.height).to(device)
        self.optimizer = make_optimizer(self.method.trainable_parameters(), config.learning_rate, config.weight_decay)

    def step(self, step: int, total: int) -> float:
        """One optimiser step; returns the loss."""
        c = self.config
        set_learning_rate(self.optimizer, learning_rate(step, total, c.learning_rate, c.warmup))
        set_weight_decay(self.optimizer, weight_decay_at(step, total, c.weight_decay, c.weight_decay_end))
        cubes = draw_batch(step, self.mix, self.real, Supply(None, None), c.seed)["cube"]
        crops = self.method.crops(self.augmenter)
        views = self.augmenter.views(cubes, c.seed, step, np.arange(len(cubes)), crops=crops)
        loss, _ = self.method([standardise(view, self.statistics) for view in views])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.method.trainable_parameters(), c.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.method.after_step(step, total)
        return loss.item()


def steps_for(config: Pretraining, learn: Cohort, device: torch.device, seconds: float, tried: int = 5) -> int:
    """How many steps fit into `seconds`, from the median of a few."""
    loop, took = Ours(config, learn, device), []
    for step in range(tried + 1):
        start = time.perf_counter()
        loop.step(step, tried + 1)
        took.append(time.perf_counter() - start)
    return max(2, int(seconds / float(np.median(took[1:]))))
