"""How well features distinguish two groups of patients: cross-validated by patient, with an interval over patients.

Repeated stratified group k-fold (both eyes and all visits of a patient on one side); standardised features, logistic
regression with its strength chosen by an inner split of the training patients; a cube's score is averaged over the
repeats and over the patient's cubes; AUROC with a bootstrap interval over patients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from pydantic import Field
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from synthgen.config import Config
from synthgen.cubes.reflectance import BandStatistics
from synthgen.errors import InputError, MismatchError
from synthgen.science.bootstrap import middle
from synthgen.ssl.backbone import standardise
from synthgen.ssl.evaluation.auroc import auroc, resamples, weighted_auroc
from synthgen.ssl.evaluation.knn import KS, knn_scores

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # C of the logistic regression, from strong shrinkage to hardly any

# From training features [n, D], labels [n] and patients [n] to a function of test features [m, D] -> scores [m].
Fit = Callable[[np.ndarray, np.ndarray, np.ndarray], Callable[[np.ndarray], np.ndarray]]


class ProbeResult(Config):
    """Outcome of a probe; the patients' scores are kept so that two probes can be compared patient by patient."""

    auroc: float = Field(description="of the linear probe, over patients")
    interval: tuple[float, float] = Field(description="95 %, bootstrap over patients")
    knn_auroc: float | None = Field(None, description="of the nearest neighbours, over patients")
    knn_interval: tuple[float, float] | None = None
    n_patients: int
    n_cubes: int
    folds: int
    repeats: int
    note: str = ""
    patients: tuple[str, ...] = ()
    labels: tuple[int, ...] = ()
    scores: tuple[float, ...] = ()
    knn_scores: tuple[float, ...] = ()


class Comparison(Config):
    """Difference of two probes' AUROC on the same patients."""

    difference: float = Field(description="AUROC of the first minus that of the second")
    interval: tuple[float, float] = Field(description="95 %, paired bootstrap over patients")

    @property
    def conclusion(self) -> str:
        if self.interval[0] > 0:
            return "better"
        return "worse" if self.interval[1] < 0 else "no gain"


def embed(
    backbone: nn.Module, statistics: BandStatistics, cubes: np.ndarray | Tensor, batch_size: int = 64
) -> np.ndarray:
    """Features float32 [N, D] of reflectance cubes [N, C, H, W], on the backbone's device, in evaluation mode."""
    device, training = next(backbone.parameters()).device, backbone.training
    backbone.eval()
    try:
        with torch.no_grad():
            parts = [
                backbone(standardise(torch.as_tensor(cubes[i : i + batch_size]).float().to(device), statistics)).cpu()
                for i in range(0, len(cubes), batch_size)
            ]
    finally:
        backbone.train(training)
    return torch.cat(parts).float().numpy()


def probe(
    features: np.ndarray,
    labels: Sequence | np.ndarray,
    patients: Sequence[str] | np.ndarray,
    seed: int = 0,
    *,
    folds: int = 5,
    repeats: int = 3,
    note: str = "",
    fit: Fit | None = None,
) -> ProbeResult:
    """Linear and nearest-neighbour probe of features [N, D]; labels [N] are 0 or 1, patients [N] names.

    `fit` takes the place of the logistic regression (`fit_lda`, say).

    InputError for features that are not finite, missing labels, labels other than two classes, patients with both
    labels, and fewer than two patients in a class.
    """
    return _cross_validated(features, labels, patients, fit or fit_logistic, seed, folds, repeats, note)


def compare(first: ProbeResult, second: ProbeResult, seed: int = 0) -> Comparison:
    """Difference of the two linear probes' AUROC; MismatchError unless both judged the same patients."""
    if first.patients != second.patients or first.labels != second.labels:
        raise MismatchError(
            "probes of different patients cannot be compared",
            found=f"{first.n_patients} and {second.n_patients} patients",
            expected="the same patients and labels",
        )
    y = np.array(first.labels)
    weights = resamples(y, seed)
    draws = weighted_auroc(np.array(first.scores), y, weights) - weighted_auroc(np.array(second.scores), y, weights)
    return Comparison(difference=first.auroc - second.auroc, interval=middle(draws))


def cube_scores(
    features: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    fit: Fit | None = None,
    seed: int = 0,
    folds: int = 5,
    repeats: int = 3,
) -> np.ndarray:
    """Out-of-fold scores [N], averaged over the repeats; log-odds with the default logistic fit."""
    scores = np.zeros(len(labels))
    for repeat in range(repeats):
        for train, test in group_folds(labels, groups, folds, seed + repeat):
            judge = (fit or fit_logistic)(features[train], labels[train], groups[train])
            scores[test] += judge(features[test]) / repeats
    return scores


def fit_logistic(features: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Standardise, rotate to the span of the training features, logistic regression; its C by an inner group split.

    The rotation changes nothing (the penalty is a norm) and makes n < D cheap.
    """
    scaler = StandardScaler().fit(features)
    x = np.asarray(scaler.transform(features))
    basis = np.linalg.svd(x, full_matrices=False)[2].T if len(x) < x.shape[1] else np.eye(x.shape[1])
    x = x @ basis
    best = len(STRENGTHS) // 2  # where a class has one training patient only, there is nothing to choose by
    if _smaller_class(labels, groups) > 1:
        inner = np.zeros((len(STRENGTHS), len(x)))
        for train, test in group_folds(labels, groups, 3, seed=0):
            for row, model in enumerate(_path(x[train], labels[train], STRENGTHS)):
                inner[row, test] = model.decision_function(x[test])
        best = int(np.argmax([auroc(scores, labels) for scores in inner]))
    *_, model = _path(x, labels, STRENGTHS[: best + 1])
    return lambda test: model.decision_function(np.asarray(scaler.transform(test)) @ basis)


def fit_lda(features: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Linear discriminant analysis with Ledoit-Wolf shrinkage."""
    scaler = StandardScaler().fit(features)
    model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(scaler.transform(features), labels)
    return lambda test: model.decision_function(scaler.transform(test))


def fit_knn(features: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Weighted nearest neighbours; k is the one that best separates the training patients, each left out in turn."""
    within = knn_scores(features, features, labels, groups, groups)
    k = KS[int(np.argmax([auroc(scores, labels) for scores in within]))]
    return lambda test: knn_scores(test, features, labels, np.full(len(test), -1), np.zeros(len(labels)), (k,))[0]


def _path(x: np.ndarray, y: np.ndarray, strengths: Sequence[float]) -> Iterator[LogisticRegression]:
    """One model per strength, each started from the one before."""
    model = LogisticRegression(max_iter=300, tol=1e-3, warm_start=True)
    for strength in strengths:
        yield model.set_params(C=strength).fit(x, y)


def group_folds(
    labels: np.ndarray, groups: np.ndarray, folds: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Stratified group folds, fewer when a class has fewer groups, so that each class is in every training part."""
    folds = min(folds, _smaller_class(labels, groups))
    if folds < 2:
        raise InputError("too few to cross-validate", found=f"{folds} in the smaller class", expected="two or more")
    yield from StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(labels, labels, groups)


def _smaller_class(labels: np.ndarray, groups: np.ndarray) -> int:
    """Number of groups in the class that has fewer."""
    return min(len(np.unique(groups[labels == c])) for c in (0, 1))


def _cross_validated(
    features: np.ndarray,
    labels: Sequence | np.ndarray,
    patients: Sequence[str] | np.ndarray,
    fit: Fit,
    seed: int,
    folds: int,
    repeats: int,
    note: str,
) -> ProbeResult:
    features = np.asarray(features, dtype=np.float64)
    y, _, groups = checked(features, labels, patients)
    linear = cube_scores(features, y, groups, fit, seed, folds, repeats)
    near = cube_scores(features, y, groups, fit_knn, seed, folds, repeats)
    return judged(linear, labels, patients, seed, knn=near, folds=folds, repeats=repeats, note=note)


def judged(
    scores: np.ndarray,
    labels: Sequence | np.ndarray,
    patients: Sequence[str] | np.ndarray,
    seed: int = 0,
    *,
    knn: np.ndarray | None = None,
    folds: int,
    repeats: int,
    note: str = "",
) -> ProbeResult:
    """What out-of-fold scores [N] of cubes give for the patients: mean score of each, AUROC, interval over patients."""
    y, names, groups = checked(scores[:, None], labels, patients)
    per_patient = lambda values: np.bincount(groups, values) / np.bincount(groups)
    patient_labels = np.rint(per_patient(y)).astype(int)
    weights = resamples(patient_labels, seed)
    of = lambda values: (auroc(values, patient_labels), middle(weighted_auroc(values, patient_labels, weights)))
    linear = per_patient(scores)
    value, interval = of(linear)
    near = None if knn is None else per_patient(knn)
    near_value, near_interval = (None, None) if near is None else of(near)
    return ProbeResult(
        auroc=value,
        interval=interval,
        knn_auroc=near_value,
        knn_interval=near_interval,
        n_patients=len(names),
        n_cubes=len(y),
        folds=min(folds, *np.bincount(patient_labels)),
        repeats=repeats,
        note=note,
        patients=tuple(names),
        labels=tuple(int(v) for v in patient_labels),
        scores=tuple(linear.tolist()),
        knn_scores=() if near is None else tuple(near.tolist()),
    )


def checked(
    features: np.ndarray, labels: Sequence | np.ndarray, patients: Sequence[str] | np.ndarray
) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Labels int [N], patient names, and the patient of each cube as its place among the names."""
    y, patients = np.asarray(labels, dtype=np.float64), np.asarray(patients).astype(str)
    if not len(features) == len(y) == len(patients):
        raise InputError(
            "features, labels and patients differ in number", found=f"{len(features)}, {len(y)}, {len(patients)}"
        )
    if not np.isfinite(features).all():
        rows = np.flatnonzero(~np.isfinite(features).all(1))
        raise InputError("features are not finite", found=f"{len(rows)} cubes, the first at index {rows[0]}")
    names, groups = np.unique(patients, return_inverse=True)
    missing = np.isnan(y)
    if missing.any():
        raise InputError(
            "labels are missing",
            found=f"{missing.sum()} of {len(y)} cubes, {len(np.unique(groups[missing]))} of {len(names)} patients",
            expected="0 or 1 for every cube",
            remedy="leave the patients without label out of the probe (--skip-unlabelled)",
        )
    values, counts = np.unique(y, return_counts=True)
    if set(values) != {0.0, 1.0}:
        found = ", ".join(f"{v:g} ({n} cubes)" for v, n in zip(values[:6], counts[:6], strict=True))
        raise InputError("a probe needs two classes", found=f"labels {found}", expected="0 and 1")
    if len(names) == 1:
        raise InputError("a probe needs several patients", found=f"one ({names[0]})", expected="two of each class")
    share = np.bincount(groups, y) / np.bincount(groups)
    both = names[(share > 0) & (share < 1)]
    if len(both):
        raise InputError("patients have cubes of both labels", found=f"{len(both)}, the first is {both[0]}")
    cases = int((share == 1).sum())
    if min(cases, len(names) - cases) < 2:
        raise InputError(
            "too few patients to cross-validate",
            found=f"{cases} with label 1, {len(names) - cases} with label 0",
            expected="two of each or more",
        )
    return y.astype(int), names.tolist(), groups
