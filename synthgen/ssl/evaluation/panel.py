"""Several features beside one another, on the same patients, folds and draws: what each predicts of each target."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from pydantic import Field

from synthgen.config import Config
from synthgen.ssl.evaluation.crossval import Predicted, Split, cross_validated
from synthgen.ssl.evaluation.intervals import Draws, Score, interval, scored
from synthgen.ssl.evaluation.targets import Target

LEARNED = 0.5  # R2 from which on a target counts as one that the ceiling can learn


class AskedTarget(Config):
    """A target, and of how many patients it is known."""

    name: str
    unit: str = ""
    log: bool = Field(False, description="R2 is of its logarithm; errors are in its unit all the same")
    classes: tuple[str, ...] = Field((), description="empty for a number")
    n_patients: int


class Reading(Config):
    """What some features predict of one target, or of the mean of several."""

    features: str
    target: str
    score: float = Field(description="R2 of a number, AUROC of classes, of held-out patients; mean over the repeats")
    interval: tuple[float, float] = Field(description="95 %, over patients, splits and seeds")
    rmse: float | None = Field(None, description="root of the mean squared error, in the target's unit")
    mae: float | None = Field(None, description="mean absolute error, likewise")
    chosen: dict[str, float] = Field({}, description="in which fraction of the fits each way of reading was chosen")


class PairedDifference(Config):
    """The first features minus others, of one target or of the mean, on the same patients and folds."""

    features: str
    against: str
    target: str
    difference: float
    interval: tuple[float, float] = Field(description="95 %, paired over patients and splits")

    @property
    def conclusion(self) -> str:
        if self.interval[0] > 0:
            return "better"
        return "worse" if self.interval[1] < 0 else "not distinguishable"


class Panel(Config):
    """Targets, what each kind of features predicts of them, and the differences from the first."""

    targets: tuple[AskedTarget, ...]
    left_out: dict[str, str] = Field({}, description="why a covariate is no target")
    features: tuple[str, ...]
    readings: tuple[Reading, ...]
    means: tuple[Reading, ...] = Field((), description="R2 averaged over the targets of `mean_of`, by features")
    mean_of: tuple[str, ...] = ()
    differences: tuple[PairedDifference, ...] = ()

    def reading(self, features: str, target: str) -> Reading:
        """The reading of these features and this target."""
        return next(r for r in self.readings if (r.features, r.target) == (features, target))

    def mean(self, features: str) -> Reading:
        """The mean over the targets of `mean_of`."""
        return next(r for r in self.means if r.features == features)


def predict(
    candidates: Mapping[str, np.ndarray],
    targets: Sequence[Target],
    splits: Callable[[Target], list[Split]],
    own_mean: bool = False,
) -> dict[str, Predicted]:
    """Held-out predictions of each target, by name, from patients' features [N, D] in several ways of reading.

    Numbers that the same patients have are predicted together: they share folds and decompositions.
    """
    predicted: dict[str, Predicted] = {}
    groups: dict[tuple, list[Target]] = {}
    for target in targets:
        groups.setdefault((target.name if target.classes else "", target.rows.tobytes()), []).append(target)
    for group in groups.values():
        rows, y = group[0].rows, np.concatenate([t.y for t in group], 1)
        found = cross_validated({k: x[rows] for k, x in candidates.items()}, y, splits(group[0]), own_mean)
        at = 0
        for target in group:
            columns = slice(at, at := at + target.y.shape[1])
            predicted[target.name] = Predicted(
                found.values[..., columns], found.reference[..., columns], found.chosen[columns]
            )
    return predicted


def make_panel(
    targets: Sequence[Target],
    left_out: Mapping[str, str],
    predicted: Mapping[str, Sequence[Mapping[str, Predicted]]],
    draws: Draws,
    mean_of: Sequence[str],
) -> Panel:
    """The panel of what each kind of features (one entry per seed) predicted; the first is compared with all others."""
    scores = {
        (f, t.name): scored(t, [one[t.name] for one in seeds], draws) for f, seeds in predicted.items() for t in targets
    }
    means = {f: _mean([scores[f, name] for name in mean_of]) for f in predicted} if mean_of else {}
    first, *others = predicted
    pairs = [(a, t.name, scores[first, t.name], scores[a, t.name]) for t in targets for a in others]
    pairs = [(a, mean_name(mean_of), means[first], means[a]) for a in others if mean_of] + pairs
    return Panel(
        targets=tuple(
            AskedTarget(name=t.name, unit=t.unit, log=t.log, classes=t.classes, n_patients=len(t.rows)) for t in targets
        ),
        left_out=dict(left_out),
        features=tuple(predicted),
        readings=tuple(
            _reading(f, name, score, [one[name].chosen for one in predicted[f]]) for (f, name), score in scores.items()
        ),
        means=tuple(_reading(f, mean_name(mean_of), score) for f, score in means.items()),
        mean_of=tuple(mean_of),
        differences=tuple(
            PairedDifference(
                features=first, against=against, target=target, difference=a.value - b.value,
                interval=interval(a.draws - b.draws),
            )
            for against, target, a, b in pairs
        ),
    )  # fmt: skip


def learned_by(targets: Sequence[Target], predicted: Mapping[str, Predicted], draws: Draws) -> tuple[str, ...]:
    """The numbers of which these predictions reach an R2 of LEARNED."""
    return tuple(t.name for t in targets if not t.classes and scored(t, [predicted[t.name]], draws).value >= LEARNED)


def mean_name(mean_of: Sequence[str]) -> str:
    return f"mean of {len(mean_of)}"


def _mean(scores: Sequence[Score]) -> Score:
    return Score(float(np.mean([s.value for s in scores])), np.mean([s.draws for s in scores], 0))


def _reading(features: str, target: str, score: Score, chosen: Sequence[Sequence[Counter[str]]] = ()) -> Reading:
    count = sum((one for seed in chosen for one in seed), Counter())
    share = {name: round(n / count.total(), 3) for name, n in count.most_common()} if count.total() else {}
    return Reading(
        features=features, target=target, score=score.value, interval=interval(score.draws), rmse=score.rmse,
        mae=score.mae, chosen=share if set(share) != {""} else {},
    )  # fmt: skip
