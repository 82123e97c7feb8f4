"""Signs of collapse and of shortcuts, to be looked at while a backbone is trained. They are alarms, never the claim."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from synthgen.ssl.evaluation.auroc import auroc
from synthgen.ssl.evaluation.knn import knn_scores
from synthgen.ssl.evaluation.targets import Target


def feature_std(features: Tensor) -> Tensor:
    """Mean standard deviation of L2-normalised features [N, D] (N > 1), times sqrt(D): 1 is evenly over the sphere.

    0 is collapse to a point. Features behind a ReLU lie in one corner of the sphere and reach about 0.5.
    """
    return F.normalize(features.float(), dim=1).std(0).mean() * math.sqrt(features.shape[1])


def rankme(features: Tensor | np.ndarray) -> float:
    """Effective number of dimensions of features [N, D] (Garrido et al., 'RankMe', ICML 2023, equation 1).

    exp of the entropy of the singular values. It grows with N, so compare at equal N and beside `rankme_ceiling(N, D)`.
    """
    singular = torch.linalg.svdvals(torch.as_tensor(features).double())
    p = singular / singular.sum().clamp_min(1e-300) + 1e-7
    return float(torch.exp(-(p * p.log()).sum()))


@lru_cache(maxsize=16)
def rankme_ceiling(count: int, dim: int) -> float:
    """What `rankme` gives for `count` isotropic Gaussian features of `dim` dimensions."""
    return rankme(np.random.Generator(np.random.PCG64(0)).standard_normal((count, dim)))


def collapse_warning(features: Tensor | np.ndarray) -> str | None:
    """A sentence when the features [N, D] have collapsed to a point or to very few dimensions, else None."""
    features = torch.as_tensor(features)
    std, rank = float(feature_std(features)), rankme(features - features.mean(0))
    ceiling = rankme_ceiling(*features.shape)
    if std < 0.02:
        return f"the features have collapsed to a point: they vary {std:.3f} times as much as random directions"
    if rank < max(2.0, 0.02 * ceiling):
        return f"the features have collapsed to {rank:.1f} dimensions (isotropic ones would give {ceiling:.0f})"
    return None


def source_probe(features: np.ndarray, is_synthetic: np.ndarray, groups: np.ndarray | None = None) -> float:
    """AUROC with which a logistic probe separates synthetic from real features [N, D], cross-validated; 0.5 is best.

    groups: [N], what must not be split between training and test (patients); each cube for itself where not given.
    """
    from synthgen.ssl.evaluation.probe import (
        cube_scores,  # here, because scikit-learn takes seconds and the training imports this
    )

    y = np.asarray(is_synthetic).astype(int)
    groups = np.arange(len(y)) if groups is None else np.asarray(groups)
    return auroc(cube_scores(np.asarray(features), y, groups, repeats=1), y)


def online_knn(features: np.ndarray, labels: np.ndarray, patients: np.ndarray, k: int = 10) -> float:
    """AUROC over patients of a k-nearest-neighbour vote, each cube judged by the other patients' cubes."""
    features, labels, patients = np.asarray(features), np.asarray(labels), np.asarray(patients)
    scores = knn_scores(features, features, labels, patients, patients, (k,))[0]
    names = np.unique(patients)
    means = np.array([scores[patients == p].mean() for p in names])
    return auroc(means, np.array([labels[patients == p][0] for p in names]))


def targets_r2(candidates: Mapping[str, np.ndarray], targets: Sequence[Target]) -> float:
    """Mean R2 of numbers [n] predicted from patients' features [N, D] in several ways of reading, as in the probe:
    ridge regression, five folds by patient, once; what is read is chosen inside. No better than the mean: 0."""
    from synthgen.ssl.evaluation.crossval import patient_splits
    from synthgen.ssl.evaluation.intervals import r2_scores
    from synthgen.ssl.evaluation.panel import predict  # here, as above

    predicted = predict(candidates, targets, lambda target: patient_splits(len(target.rows), 5, 1))
    each = [
        r2_scores(t.y[:, 0], predicted[t.name].values[0, :, 0], predicted[t.name].reference[0, :, 0])[0]
        for t in targets
    ]
    return float(np.mean(np.clip(each, 0, None)))
