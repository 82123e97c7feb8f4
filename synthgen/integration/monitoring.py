"""Measurements of the features while a backbone is pretrained: collapse, and whether they separate real from synthetic.

Every measurement takes the same cubes, those of patients that the pretraining does not train on where it can, and
disturbs nothing: no random stream moves, no statistic of the network changes. The test patients are never read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from synthgen.cubes.cohort.cohort import Cohort
from synthgen.cubes.cohort.covariates import Covariate, covariates_of
from synthgen.cubes.cohort.splits import Split
from synthgen.cubes.reflectance import BandStatistics
from synthgen.errors import InputError
from synthgen.integration.supply.source import Supply
from synthgen.runs import randomness
from synthgen.ssl.backbone import standardise
from synthgen.ssl.evaluation.monitors import (
    collapse_warning,
    feature_std,
    online_knn,
    rankme,
    rankme_ceiling,
    source_probe,
    targets_r2,
)
from synthgen.ssl.evaluation.stages import read_out
from synthgen.ssl.evaluation.targets import Target, targets_of, usual_mean
from synthgen.ssl.readout import network_of

PROBE_SEED = 2_000_003  # added to the run's seed: the synthetic cubes looked at are not those trained on
SYNTHETIC = 64  # synthetic cubes at most: making them once costs as much as a pool refill
ENOUGH = 16  # cubes of calibration patients, below which a rank or a standard deviation is no evidence
AT_ONCE = 32  # cubes held at a time
COVARIATES = 4  # times as many cubes for the covariates: the R2 of a few dozen patients is mostly chance


class Monitor:
    """Measures a backbone on a fixed choice of cubes.

    Args:
        cohort, split: held-out real cubes are those of the calibration patients that are not trained on as well
            (`patients: known`), or of the training patients where there are fewer than `ENOUGH`; labelled ones those
            of both with label 0 or 1; those with covariates likewise.
        supply: the synthetic half of the batches, if any.
        count: cubes of each kind at most.
        seed: of the run.
        start: the first measurement (before the first step); a collapse is one beside it. None until then.
    """

    def __init__(
        self,
        cohort: Cohort,
        split: Split,
        statistics: BandStatistics,
        supply: Supply,
        device: torch.device,
        count: int = 128,
        seed: int = 0,
        start: Mapping[str, float | str] | None = None,
    ):
        self.cohort, self.statistics, self.supply, self.device = cohort, statistics, supply, device
        self.count, self.seed, self.start = count, seed, start
        apart = cohort.index_of(set(split.calibration) - set(split.train))
        self.apart = len(apart) >= ENOUGH
        self.held_out = even_subset(apart if self.apart else cohort.index_of(split.train), count)
        self.labelled = _labelled(cohort, (*split.train, *split.calibration), count)
        self.known = even_subset(cohort.index_of((*split.train, *split.calibration)), COVARIATES * count)
        _, self.patient = np.unique(cohort.patient_id[self.known], return_inverse=True)
        self.targets = _numbers(cohort, self.known, self.patient)

    def measure(self, backbone: nn.Module) -> dict[str, float | str]:
        """Scalars for the metrics, and a `warning` where the features have collapsed.

        monitor/cubes: real cubes n, the same in every measurement; monitor/held_out: 1 when the pretraining does not
        train on their patients. monitor/feature_std and monitor/rankme (beside its ceiling) of their features;
        monitor/knn_auroc where there are labels; monitor/targets_r2 where there are numbers among the covariates;
        monitor/source_auroc where there are synthetic cubes.
        """
        states, training = randomness.capture(), backbone.training
        backbone.eval()
        try:
            result = self._measure(backbone)
            self.start = self.start or result
            return result
        finally:
            backbone.train(training)
            randomness.restore(states)

    def _measure(self, backbone: nn.Module) -> dict[str, float | str]:
        real = self._features(backbone, self._real(self.held_out))
        result: dict[str, float | str] = {
            "monitor/cubes": len(real),
            "monitor/held_out": int(self.apart),
            "monitor/feature_std": float(feature_std(torch.from_numpy(real))),
            "monitor/rankme": rankme(real - real.mean(0)),
            "monitor/rankme_ceiling": rankme_ceiling(*real.shape),
        }
        if len(self.labelled):
            features = self._features(backbone, self._real(self.labelled))
            assert self.cohort.label is not None
            labels, who = self.cohort.label[self.labelled], self.cohort.patient_id[self.labelled]
            result["monitor/knn_auroc"] = online_knn(features, labels.astype(int), who)
        if self.targets:
            result["monitor/targets_r2"] = targets_r2(self._of_patients(backbone), self.targets)
        synthetic = self._features(backbone, self._synthetic())
        if len(synthetic) > 1:
            own = even_subset(np.arange(len(real)), len(synthetic))
            _, who = np.unique(self.cohort.patient_id[self.held_out][own], return_inverse=True)
            groups = np.concatenate([who, len(who) + np.arange(len(synthetic))])  # a synthetic cube is nobody's
            if who.max() > 0:
                is_synthetic = np.repeat([0, 1], [len(own), len(synthetic)])
                result["monitor/source_auroc"] = source_probe(
                    np.concatenate([real[own], synthetic]), is_synthetic, groups
                )
        if (warning := self._warning(real, result)) is not None:
            result["warning"] = warning
        return result

    def _warning(self, real: np.ndarray, result: dict[str, float | str]) -> str | None:
        """A collapse, unless the untrained network was hardly better: features of random weights lie close together."""
        if self.start is None:
            return None  # the first measurement itself
        warning = collapse_warning(real)
        if warning is None:
            return None
        fallen = [
            float(result[name]) < 0.5 * float(self.start[name]) for name in ("monitor/feature_std", "monitor/rankme")
        ]
        return warning if any(fallen) else None

    def _real(self, index: np.ndarray) -> Iterator[Tensor]:
        for first in range(0, len(index), AT_ONCE):
            yield torch.from_numpy(self.cohort.cubes(index[first : first + AT_ONCE]))

    def _synthetic(self) -> Iterator[Tensor]:
        """Up to `SYNTHETIC` cubes as the supply makes them."""
        if self.supply.source is not None:
            yield from self.supply.source.preview(min(SYNTHETIC, self.count), self.seed + PROBE_SEED)

    @torch.no_grad()
    def _of_patients(self, backbone: nn.Module) -> dict[str, np.ndarray]:
        """Mean features of the patients with covariates, by way of reading, each float64 [N, D]."""
        sums: dict[str, np.ndarray] = {}
        count, first = np.bincount(self.patient), 0
        for part in self._real(self.known):
            x = standardise(part.to(self.device), self.statistics)
            rows = self.patient[first : first + len(x)]
            for how, features in ({"": backbone(x)} | read_out(network_of(backbone), x)).items():
                total = sums.setdefault(how, np.zeros((len(count), features.shape[1])))
                np.add.at(total, rows, features.double().cpu().numpy())
            first += len(x)
        return {how: total / count[:, None] for how, total in sums.items()}

    @torch.no_grad()
    def _features(self, backbone: nn.Module, parts: Iterator[Tensor]) -> np.ndarray:
        """Features float32 [n, D] on the CPU."""
        synthetic = [
            backbone(standardise(few.to(self.device), self.statistics)).float().cpu()
            for part in parts
            for few in part.split(AT_ONCE)
        ]
        return torch.cat(synthetic).numpy() if synthetic else np.zeros((0, 1), np.float32)


def even_subset(index: np.ndarray, count: int) -> np.ndarray:
    """At most `count` of the entries, evenly over all of them."""
    return index[np.linspace(0, len(index) - 1, min(count, len(index))).astype(int)]


def _labelled(cohort: Cohort, patients: tuple[str, ...], count: int) -> np.ndarray:
    """Indices of cubes with label 0 or 1, evenly chosen; none unless each class has two patients among them."""
    if cohort.label is None:
        return np.zeros(0, dtype=int)
    index = cohort.index_of(patients)
    index = even_subset(index[np.isin(cohort.label[index], (0, 1))], count) if len(index) else index
    classes = [len(set(cohort.patient_id[index[cohort.label[index] == c]])) for c in (0, 1)]
    return index if min(classes) > 1 else index[:0]


def _numbers(cohort: Cohort, index: np.ndarray, patient: np.ndarray) -> list[Target]:
    """The numbers among the covariates that can be asked for; of the phantom the eight that can be learned."""
    found = {n: Covariate(c.values[index], c.unit, c.log) for n, c in covariates_of(cohort).items() if c.is_number}
    try:
        targets, _ = targets_of(found, patient, None)
    except InputError:  # there is none
        return []
    numbers = [t for t in targets if not t.classes]
    return [t for t in numbers if t.name in usual_mean([n.name for n in numbers], found)]
