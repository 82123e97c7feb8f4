"""What else the features predict, and whether the label could be read from that alone.

For age, camera, site and the like: can the features predict it from unseen patients, does the label follow from it, and
does the probe still order patients who are alike in it? For the patients themselves: how often is a cube's nearest
neighbour another cube of the same patient?
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from pydantic import Field
from sklearn.preprocessing import StandardScaler

from synthgen.config import Config
from synthgen.science.bootstrap import middle
from synthgen.ssl.evaluation.auroc import auroc, resamples, weighted_auroc
from synthgen.ssl.evaluation.crossval import cross_validated, patient_splits
from synthgen.ssl.evaluation.intervals import r2_scores
from synthgen.ssl.evaluation.probe import ProbeResult, checked, cube_scores, fit_logistic

LEAST_PATIENTS = 4  # with a known value, below which a confounder is not reported
MOST_CATEGORIES = 12  # a column of more texts names the patients rather than a group of them


class Confounder(Config):
    """One property of the patients. AUROCs of 0.5 and an R2 of 0 or below mean: cannot be predicted."""

    name: str
    kind: str = Field(description="number or category")
    n_patients: int = Field(description="with a known value")
    auroc: float = Field(description="AUROC of the features for its upper half, or mean over its categories")
    auroc_interval: tuple[float, float] = Field(description="95 %, bootstrap over patients")
    r2: float | None = Field(
        None, description="cross-validated fraction of its variance between patients that they explain"
    )
    label_from_it: float = Field(description="AUROC of the label from it alone; below 0.5: labelled patients have less")
    label_interval: tuple[float, float] = Field(description="95 %, bootstrap over patients")
    category: str | None = Field(None, description="the category that the label follows most")
    within: float | None = Field(
        None, description="AUROC of the probe among pairs that match in it (same third or category)"
    )

    @property
    def suspect(self) -> bool:
        """The features predict it and the label follows from it: the probe may have read it instead of the label."""
        low, high = self.label_interval
        return self.auroc_interval[0] > 0.5 and not low <= 0.5 <= high


class Identity(Config):
    """How often the nearest neighbour of a cube is another cube of the same patient."""

    rate: float
    chance: float = Field(description="the same for neighbours drawn at random")
    n_cubes: int = Field(description="cubes whose patient has another one")


class ConfounderReport(Config):
    """Everything that was asked, and what could not be."""

    confounders: tuple[Confounder, ...] = ()
    identity: Identity | None = None
    left_out: dict[str, str] = Field({}, description="why a property is not reported")


def confounder_report(
    features: np.ndarray,
    labels: np.ndarray,
    patients: np.ndarray,
    fields: Mapping[str, np.ndarray],
    result: ProbeResult | None = None,
    seed: int = 0,
    *,
    folds: int = 5,
) -> ConfounderReport:
    """Ask features [N, D] for each of `fields` [N] (numbers with NaN, or texts with "", where unknown).

    `result` is the probe of the label on these features; without it `within` stays empty.
    """
    features = np.asarray(features, dtype=np.float64)
    y, names, groups = checked(features, labels, patients)
    found, left_out = [], {}
    for name, values in fields.items():
        values = np.asarray(values)
        number = values.dtype.kind in "uifb" and len(set(values[~np.isnan(values)].tolist())) > 5
        if values.dtype.kind in "uifb":
            known = ~np.isnan(values.astype(np.float64))
        else:
            known = values.astype(str) != ""
        reason = _why_not(values[known], groups[known], number)
        if reason:
            left_out[name] = reason
            continue
        part = (features[known], y[known], groups[known], values[known])
        found.append((_number if number else _category)(name, *part, _scores(result, names), seed, folds))
    return ConfounderReport(confounders=tuple(found), identity=same_patient(features, groups), left_out=left_out)


def same_patient(features: np.ndarray, groups: np.ndarray) -> Identity | None:
    """Nearest neighbours by the cosine of standardised features [N, D]; None where no patient has two cubes."""
    own = np.bincount(groups)[groups]
    asked = np.flatnonzero(own > 1)
    if not len(asked):
        return None
    x = np.asarray(StandardScaler().fit_transform(features))
    x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    nearest = np.empty(len(asked), dtype=np.int64)
    for start in range(0, len(asked), 1024):
        rows = asked[start : start + 1024]
        similarity = x[rows] @ x.T
        similarity[np.arange(len(rows)), rows] = -np.inf
        nearest[start : start + 1024] = similarity.argmax(1)
    return Identity(
        rate=float((groups[nearest] == groups[asked]).mean()),
        chance=float(((own[asked] - 1) / (len(groups) - 1)).mean()),
        n_cubes=len(asked),
    )


def render(report: ConfounderReport) -> str:
    """The report in words, one line for each question."""
    lines = []
    for c in report.confounders:
        what = "its upper half" if c.kind == "number" else "its categories"
        line = f"{c.name}: features predict {what} with AUROC {_of(c.auroc, c.auroc_interval)}"
        line += "" if c.r2 is None else f", R2 {c.r2:.2f}"
        source = "it" if c.category is None else f"being {c.category!r}"
        line += f"; the label follows from {source} with AUROC {_of(c.label_from_it, c.label_interval)}"
        line += "" if c.within is None else f"; the probe among patients alike in it {c.within:.2f}"
        lines.append(line + (". SUSPECT: the probe may have read it instead of the label" if c.suspect else ""))
    if (same := report.identity) is not None:
        lines.append(f"patient: nearest neighbour of the same patient {same.rate:.2f}, by chance {same.chance:.3f}")
    lines += [f"{name}: not asked ({reason})" for name, reason in report.left_out.items()]
    return "\n".join(lines)


def _number(name, features, y, groups, values, scores, seed, folds) -> Confounder:
    """Age and the like: patients are judged by the mean of their cubes."""
    who, place = np.unique(groups, return_inverse=True)
    mean = lambda v: np.bincount(place, v) / np.bincount(place)
    z, label = mean(values.astype(np.float64)), np.rint(mean(y)).astype(int)
    x = np.stack([mean(column) for column in features.T], 1)
    upper = (z > np.median(z)).astype(int)
    weights = resamples(upper, seed)
    predicted = cube_scores(x, upper, np.arange(len(z)), fit_logistic, seed, folds, 1)
    guess = cross_validated({"": x}, z[:, None], patient_splits(len(z), folds, 1, seed))
    thirds = np.searchsorted(np.quantile(z, (1 / 3, 2 / 3)), z)
    return Confounder(
        name=name,
        kind="number",
        n_patients=len(z),
        auroc=auroc(predicted, upper),
        auroc_interval=middle(weighted_auroc(predicted, upper, weights)),
        r2=float(r2_scores(z, guess.values[0, :, 0], guess.reference[0, :, 0])[0]),
        **_label_from(z, label, seed),
        within=_within(scores[who], label, thirds) if scores is not None else None,
    )


def _category(name, features, y, groups, values, scores, seed, folds) -> Confounder:
    """Camera, site and the like: they may differ between cubes of one patient."""
    kinds = values.astype(str)
    who, place = np.unique(groups, return_inverse=True)
    usual = np.array([max(set(own := kinds[place == p].tolist()), key=own.count) for p in range(len(who))])
    counts = {k: len(set(place[kinds == k].tolist())) for k in sorted(set(kinds.tolist()))}
    asked = [k for k, n in counts.items() if n >= 2 and len(set(place[kinds != k].tolist())) >= 2]
    draws = resamples(np.arange(len(who)) % 2, seed)  # of patients; every cube is drawn with its patient
    values_of, boot = [], []
    for kind in asked:
        one = (kinds == kind).astype(int)
        predicted = cube_scores(features, one, place, fit_logistic, seed, folds, 1)
        values_of.append(auroc(predicted, one))
        with np.errstate(invalid="ignore", divide="ignore"):  # draws without this category give none
            boot.append(weighted_auroc(predicted, one, draws[:, place]))
    label = np.rint(np.bincount(place, y) / np.bincount(place)).astype(int)
    # Cross-validation would be biased here (a patient left out lowers that of their own category), so the label is
    # read from membership itself: in the most informative category, at an interval wide enough for that choice.
    tests = 1 if len(counts) == 2 else len(counts)
    following = {k: _label_from((usual == k).astype(float), label, seed, tests) for k in counts}
    most = max(following, key=lambda k: abs(following[k]["label_from_it"] - 0.5))
    mean = np.mean(boot, 0)
    return Confounder(
        name=name,
        kind="category",
        n_patients=len(who),
        auroc=float(np.mean(values_of)),
        auroc_interval=middle(mean[np.isfinite(mean)]),
        **following[most],
        category=most,
        within=_within(scores[who], label, usual) if scores is not None else None,
    )


def _label_from(values: np.ndarray, label: np.ndarray, seed: int, tests: int = 1) -> dict:
    """AUROC of the label from these values, with an interval that holds for the largest of so many such `tests`."""
    draws = weighted_auroc(values, label, resamples(label, seed))
    low, high = np.quantile(draws, [0.025 / tests, 1 - 0.025 / tests])
    return {"label_from_it": auroc(values, label), "label_interval": (float(low), float(high))}


def _within(scores: np.ndarray, label: np.ndarray, strata: np.ndarray) -> float | None:
    """AUROC over the pairs of a case and a control of one stratum; None where there is no such pair."""
    cases, controls = label == 1, label == 0
    alike = strata[cases, None] == strata[None, controls]
    above = np.sign(scores[cases, None] - scores[None, controls]) / 2 + 0.5
    return float(above[alike].mean()) if alike.any() else None


def _scores(result: ProbeResult | None, names: list[str]) -> np.ndarray | None:
    if result is None:
        return None
    known = dict(zip(result.patients, result.scores, strict=True))
    return np.array([known[name] for name in names])


def _why_not(values: np.ndarray, groups: np.ndarray, number: bool) -> str:
    """Why a property cannot be asked for, or nothing."""
    if len(np.unique(groups)) < LEAST_PATIENTS:
        return f"known of {len(np.unique(groups))} patients"
    kinds = set(values.tolist())
    if len(kinds) < 2:
        return "the same for every patient"
    if number:
        return ""
    if len(kinds) > MOST_CATEGORIES:
        return f"{len(kinds)} categories"
    pairs = [len(np.unique(groups[values == k])) >= 2 and len(np.unique(groups[values != k])) >= 2 for k in kinds]
    return "" if any(pairs) else "no category of two patients or more"


def _of(value: float, interval: tuple[float, float]) -> str:
    return f"{value:.2f} [{interval[0]:.2f}, {interval[1]:.2f}]"
