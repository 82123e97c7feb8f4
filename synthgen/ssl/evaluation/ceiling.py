"""The ceiling: a network of the same architecture trained with labels on the targets, from scratch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthgen.cubes.reflectance import BandStatistics
from synthgen.runs.guard import OTHER_SEED, StepGuard
from synthgen.runs.progress import progress
from synthgen.runs.randomness import stream
from synthgen.science.schedules import set_learning_rate, warm_cosine
from synthgen.ssl.backbone import feature_count, make_backbone, standardise
from synthgen.ssl.evaluation.crossval import Predicted, patient_splits
from synthgen.ssl.evaluation.targets import Target

FOLDS = 2  # half of the patients to learn from: five times as many trainings would cost more than the pretraining
BATCH, RATE, DECAY, WARM = 64, 2e-3, 0.05, 100  # AdamW, a warm-up and a cosine to zero
SHIFT = 1 / 16  # of the width: how far a view may be moved
Read = Callable[[np.ndarray], Tensor]  # from rows [n] of the asked cubes to what a network sees of them [n, C, H, W]


def ceiling(
    read: Callable[[np.ndarray], np.ndarray],
    patient: np.ndarray,
    targets: Sequence[Target],
    name: str,
    size: int,
    statistics: BandStatistics,
    *,
    steps: int,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> dict[str, Predicted]:
    """Train the timm network `name` for `steps` steps on half of the patients, all targets at once, and let it judge
    the others, both ways round; each patient by the mean over the cubes.

    Numbers are standardised and learned by squared error, as are the indicators of classes; a target's unknown values
    count nothing. Views are flipped left to right and moved a little, so what depends on that cannot be learned.

    Args:
        read: from rows [m] to reflectance float32 [m, C, H, W].
        patient: int [n], whose cube each is. size, statistics: as of the backbone.
    """
    y, known = _table(targets, int(patient.max()) + 1)
    predicted, reference = np.full(y.shape, np.nan), np.full(y.shape, np.nan)
    see = lambda some: standardise(torch.from_numpy(read(some)).to(device), statistics)
    for fold, (train, test) in enumerate(patient_splits(len(y), FOLDS, 1, seed)[0]):
        mean, std = y[train].mean(0, where=known[train]), y[train].std(0, where=known[train])
        std = np.where(std > 0, std, 1)
        normal = torch.from_numpy(np.where(known, (y - mean) / std, 0)).float()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + fold)
            body = make_backbone(name, len(statistics.mean), size)
            model = nn.Sequential(body, nn.Linear(feature_count(body), y.shape[1])).to(device)
        rows = np.flatnonzero(np.isin(patient, train))
        batch = (model, see, rows, patient, normal, torch.from_numpy(known), stream("ceiling", seed, fold))
        train_supervised(model, lambda batch=batch: _loss(*batch), steps, "the network with labels")
        judged = np.flatnonzero(np.isin(patient, test))
        parts = np.array_split(judged, max(1, len(judged) // BATCH))
        with torch.no_grad():
            outputs = np.concatenate([model.eval()(see(some)).double().cpu().numpy() for some in parts])
        count = np.bincount(patient[judged], minlength=len(y))[test]
        sums = np.stack([np.bincount(patient[judged], column, minlength=len(y))[test] for column in outputs.T], 1)
        predicted[test] = mean + std * sums / count[:, None]
        reference[test] = mean
    return _by_target(targets, predicted, reference)


def _table(targets: Sequence[Target], patients: int) -> tuple[np.ndarray, np.ndarray]:
    """All targets side by side [N, K], 0 where unknown, and where they are known bool [N, K]."""
    columns, known = [], []
    for target in targets:
        column, there = np.zeros((patients, target.y.shape[1])), np.zeros((patients, target.y.shape[1]), dtype=bool)
        column[target.rows], there[target.rows] = target.y, True
        columns.append(column)
        known.append(there)
    return np.concatenate(columns, 1), np.concatenate(known, 1)


def _by_target(targets: Sequence[Target], predicted: np.ndarray, reference: np.ndarray) -> dict[str, Predicted]:
    found, at = {}, 0
    for target in targets:
        columns = slice(at, at := at + target.y.shape[1])
        rows = target.rows
        found[target.name] = Predicted(predicted[None, rows, columns], reference[None, rows, columns], [Counter()])
    return found


def _loss(
    model: nn.Module, see: Read, rows: np.ndarray, patient: np.ndarray, y: Tensor, known: Tensor,
    random: torch.Generator,
) -> Tensor:  # fmt: skip
    """Squared error of a batch of `rows`, over the targets that are known."""
    some = rows[torch.randint(len(rows), (min(BATCH, len(rows)),), generator=random).numpy()]
    x, who = see(some), patient[some]
    flip = (torch.rand(len(x), 1, 1, 1, generator=random) < 0.5).to(x.device)
    far = int(x.shape[-1] * SHIFT)
    down, right = torch.randint(-far, far + 1, (2,), generator=random).tolist()
    predicted = model(torch.roll(torch.where(flip, x.flip(3), x), (down, right), (2, 3)))
    counts = known[who].to(predicted)
    error = F.mse_loss(predicted, y[who].to(predicted), reduction="none") * counts
    return error.sum() / counts.sum().clamp_min(1)


def train_supervised(
    model: nn.Module, loss: Callable[[], Tensor], steps: int, what: str, *, rate: float = RATE, warm: int = WARM
) -> None:
    """`steps` steps of AdamW down the gradient of `loss`, which draws a batch at each call: warm-up, cosine to 0.

    NonFiniteError names `what` is trained.
    """
    optimizer = torch.optim.AdamW(model.parameters(), rate, weight_decay=DECAY)
    guard = StepGuard(what, optimizer, (model,), remedy=OTHER_SEED)
    model.train()
    with progress(f"train {what}", steps, "step") as bar:
        for step in range(steps):
            set_learning_rate(optimizer, warm_cosine(step, warm, steps, rate))
            guard(step, loss())
            bar.advance()
