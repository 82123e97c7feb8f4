"""Ask backbones for any targets on patients that they have not seen, beside the simple ways to know them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from pydantic import Field

from synthgen.config import Config
from synthgen.cubes.cohort.cohort import Cohort
from synthgen.cubes.cohort.covariates import Covariate, covariates_of
from synthgen.errors import ConfigError, InputError
from synthgen.experiments.dense_probe import DenseProbe, dense_figure_of, probe_dense, render_dense
from synthgen.experiments.patient_features import EXPORTED, patient_features, reader_of, untrained_like
from synthgen.experiments.probe_backbone import UNKNOWN, UNSEEN, check_unseen, probed_cubes
from synthgen.integration.artifacts import check_belongs, open_cohort
from synthgen.report.target_figure import target_figure
from synthgen.runs.files import write_json
from synthgen.runs.progress import progress
from synthgen.ssl.backbone import load_backbone
from synthgen.ssl.evaluation.ceiling import ceiling
from synthgen.ssl.evaluation.crossval import Predicted, Split, extrapolating_splits, patient_splits
from synthgen.ssl.evaluation.intervals import Draws, patient_draws
from synthgen.ssl.evaluation.panel import Panel, Reading, learned_by, make_panel, mean_name, predict
from synthgen.ssl.evaluation.targets import Target, targets_of, usual_mean

UNTRAINED, MEAN_SPECTRA, PHASOR = "untrained", "mean spectra", "phasor"
MEAN_AND_STD = "mean and standard deviation of spectra"
SPECTRA = (MEAN_SPECTRA, MEAN_AND_STD, PHASOR)
CEILING = "trained with labels"
RECORD, PICTURE, DENSE_PICTURE = "probe.json", "probe.png", "dense.png"

V = TypeVar("V")


class TargetProbe(Config):
    """Everything that `synthgen probe --targets` reports."""

    seen: str = Field(description=f"{UNSEEN}, or {UNKNOWN} where the backbone does not state its training patients")
    n_patients: int
    n_cubes: int
    folds: int
    repeats: int
    extrapolate: str | None = Field(None, description="trained on patients up to this value, judged on those above")
    panel: Panel
    dense: DenseProbe | None = Field(None, description="vessels and disc from a few labelled cubes")
    seconds: dict[str, float] = Field(description="what took how long")


def probe_targets(
    backbone: str | os.PathLike,
    data: str | os.PathLike,
    targets: str,
    *,
    beside: Sequence[str | os.PathLike] = (),
    table: str | os.PathLike | None = None,
    log: str = "",
    mean_of: str = "",
    patients: str = "auto",
    read: str = "best",
    folds: int = 5,
    repeats: int = 5,
    untrained: int = 3,
    ceiling_steps: int = 0,
    dense: str = "",
    extrapolate: str = "",
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> TargetProbe:
    """Ridge regression on patients' mean features, cross-validated by patient; see `crossval` and `intervals`.

    Beside the backbone, on the same patients and folds: what it exports as it is, untrained networks of the same
    architecture, mean spectra, mean and standard deviation of spectra, the first harmonic of the spectra, and with
    `ceiling_steps` the same architecture trained with labels on half of the patients. The arguments are explained at
    `synthgen.experiments.probe.probe`.

    Raises LeakError naming the patients when a backbone has seen one of them, InputError for targets that are not there
    or cannot be asked for.
    """
    if extrapolate and ceiling_steps:
        raise ConfigError("the ceiling is no extrapolation", remedy="leave out --ceiling-steps or --extrapolate")
    trained = {_name(path): load_backbone(path, device) for path in (backbone, *beside)}
    if len(trained) <= len(beside):
        raise ConfigError("two backbones have one name", found=", ".join(map(_name, (backbone, *beside))))
    cohort = open_cohort(data)
    first = next(iter(trained.values()))
    index = probed_cubes(cohort, first, patients)
    for path, one in zip((backbone, *beside), trained.values(), strict=True):
        check_belongs(cohort, one.wavelengths, one.size, "backbone", path)
        check_unseen(one.provenance, cohort.patient_id[index].tolist())
    names, patient = np.unique(cohort.patient_id[index], return_inverse=True)
    covariates = _covariates(cohort, table, index)
    asked, left_out = targets_of(covariates, patient, None if targets == "all" else _words(targets), _words(log))
    splits, own_mean = _splits(covariates, patient, extrapolate, folds, repeats, seed)
    clock = {"start": time.monotonic()}
    fresh = {f"{UNTRAINED} {s}": untrained_like(first, cohort, index, seed + s) for s in range(untrained)}
    readers = {name: reader_of(one) for name, one in (trained | fresh).items()}
    _chosen(readers[_name(backbone)](torch.from_numpy(cohort.cubes(index[:1])).to(device)), read)
    networks, spectra = patient_features(cohort, index, patient, readers, device)
    plain = {
        MEAN_SPECTRA: spectra["mean"],
        MEAN_AND_STD: np.concatenate([spectra["mean"], spectra["std"]], 1),
        PHASOR: spectra["phasor"],
    }
    clock["features"] = time.monotonic()
    predicted: dict[str, list[dict[str, Predicted]]] = {}
    asking = partial(predict, targets=asked, splits=splits, own_mean=own_mean)
    work = [(name, [networks[name]], read) for name in trained]
    if read == "best":
        work.insert(1, (f"{next(iter(trained))}, {EXPORTED}", [networks[next(iter(trained))]], EXPORTED))
    work += [(UNTRAINED, [networks[name] for name in fresh], read)] if fresh else []
    work += [(name, [{"": features}], "best") for name, features in plain.items()]
    with progress("ridge regression", len(work), "kind of features") as bar:
        for name, seeds, how in work:
            predicted[name] = [asking(_chosen(candidates, how)) for candidates in seeds]
            bar.advance()
    clock["ridge"] = time.monotonic()
    draws = patient_draws(len(names), seed)
    if ceiling_steps:
        look = lambda rows: cohort.cubes(index[rows])
        predicted[CEILING] = [
            ceiling(look, patient, asked, first.name, first.size, first.statistics, steps=ceiling_steps, seed=seed,
                    device=device)
        ]  # fmt: skip
        clock["ceiling"] = time.monotonic()
    found = None
    if dense:
        both = {name: [one] for name, one in trained.items()} | ({UNTRAINED: list(fresh.values())} if fresh else {})
        found = probe_dense(cohort, index, both, _counts(dense), seed, device)
        clock["dense"] = time.monotonic()
    panel = make_panel(asked, left_out, predicted, draws, _mean_of(mean_of, asked, predicted, draws, covariates))
    clock["intervals"] = time.monotonic()
    times = list(clock.items())
    return TargetProbe(
        seen=UNSEEN if all(one.provenance is not None for one in trained.values()) else UNKNOWN,
        n_patients=len(names),
        n_cubes=len(index),
        folds=folds,
        repeats=repeats,
        extrapolate=extrapolate or None,
        panel=panel,
        dense=found,
        seconds={name: round(end - start, 1) for (_, start), (name, end) in pairwise(times)},
    )


def write_probe(found: TargetProbe, out: str | os.PathLike) -> Path:
    """Write `probe.json`, `probe.png` and with a dense part `dense.png` into `out`; returns the path of the first
    picture."""
    write_json(Path(out) / RECORD, found.model_dump(mode="json"))
    own = [name for name in found.panel.features if name not in (UNTRAINED, *SPECTRA, CEILING)]
    target_figure(Path(out) / PICTURE, *figure_of(found), own=len(own))
    if found.dense is not None:
        target_figure(
            Path(out) / DENSE_PICTURE,
            *dense_figure_of(found.dense),
            own=sum(EXPORTED not in name for name in own),
            label="Dice of other patients' cubes",
        )
    return Path(out) / PICTURE


def figure_of(found: TargetProbe) -> tuple[list[str], dict[str, list[tuple[float, float, float]]], str]:
    """Lines, bars (score, low, high) and the note below them, as `target_figure` takes them."""
    panel = found.panel
    lines = [f"{t.name} (AUROC)" if t.classes else t.name + " (log)" * t.log for t in panel.targets]
    bars = {f: [panel.reading(f, t.name) for t in panel.targets] for f in panel.features}
    if panel.mean_of:
        lines.insert(0, mean_name(panel.mean_of))
        bars = {f: [panel.mean(f), *rest] for f, rest in bars.items()}
    note = f"{found.n_patients} patients, {found.n_cubes} cubes, {found.folds} folds by patient, {found.repeats} times"
    note += f"; learned up to {found.extrapolate}, judged above" if found.extrapolate else ""
    return lines, {f: [(r.score, *r.interval) for r in rest] for f, rest in bars.items()}, note


def render_targets(found: TargetProbe) -> None:
    """Print the table of scores, the mean, and the differences of the mean."""
    from rich.console import Console
    from rich.table import Table

    panel, console = found.panel, Console()
    table = Table(title="R2, AUROC of classes [95 % interval] ± root mean squared error", title_justify="left")
    for name in ("target", *panel.features):
        table.add_column(name)
    if panel.mean_of:
        mean = (_in_words(panel.mean(f)) for f in panel.features)
        table.add_row(mean_name(panel.mean_of), *mean, end_section=True)
    for target in panel.targets:
        row = (_in_words(panel.reading(f, target.name)) for f in panel.features)
        table.add_row(f"{target.name}{' (log)' * target.log}\n{target.unit}", *row)
    table.caption = f"{found.n_patients} patients, {found.n_cubes} cubes, {found.seen}"
    console.print(table)
    for d in panel.differences:
        if d.target == mean_name(panel.mean_of):
            line = f"{d.target}: {d.features} minus {d.against} {d.difference:+.3f}"
            console.print(f"{line} [{d.interval[0]:+.3f}, {d.interval[1]:+.3f}]: {d.conclusion}.", highlight=False)
    if found.dense is not None:
        render_dense(found.dense)
    if panel.left_out:
        reasons = "; ".join(f"{name} ({why})" for name, why in panel.left_out.items())
        console.print(f"Not asked: {reasons}", highlight=False, soft_wrap=True)


def _in_words(reading: Reading) -> str:
    cell = f"{reading.score:.2f}\n[{reading.interval[0]:.2f}, {reading.interval[1]:.2f}]"
    return cell + (f"\n± {reading.rmse:.2g}" if reading.rmse is not None else "")


def _covariates(cohort: Cohort, table: str | os.PathLike | None, index: np.ndarray) -> dict[str, Covariate]:
    """Everything that is known of the cubes of `index`: label, eye and visit too."""
    own = {"label": cohort.label, "eye": cohort.eye, "visit": cohort.visit}
    found = {name: Covariate(values) for name, values in own.items() if values is not None}
    found |= covariates_of(cohort, table)
    return {name: Covariate(one.values[index], one.unit, one.log) for name, one in found.items()}


def _splits(
    covariates: Mapping[str, Covariate], patient: np.ndarray, extrapolate: str, folds: int, repeats: int, seed: int
) -> tuple[Callable[[Target], list[Split]], bool]:
    """How a target's patients are held out, and whether the reference is those patients' own mean."""
    if not extrapolate:
        return lambda t: patient_splits(len(t.rows), folds, repeats, seed, t.strata), False
    name, _, text = extrapolate.partition(":")
    try:
        above = float(text)
    except ValueError:
        raise ConfigError("--extrapolate is not understood", found=extrapolate, expected="a number: age:65") from None
    if name not in covariates or not covariates[name].is_number:
        numbers = sorted(k for k, v in covariates.items() if v.is_number)
        raise InputError(f"has no number '{name}'", expected=f"one of {', '.join(numbers)}")
    with np.errstate(invalid="ignore"):
        known, values = covariates[name].known, covariates[name].values
        value = np.bincount(patient, np.where(known, values, 0)) / np.bincount(patient, known)
    if min((value <= above).sum(), (value > above).sum()) < folds:
        low, high = (int((side(value, above)).sum()) for side in (np.less_equal, np.greater))
        raise InputError(f"too few patients on one side of {extrapolate}", found=f"{low} up to it, {high} above")
    return lambda t: extrapolating_splits(value[t.rows], above, folds, repeats, seed), True


def _chosen(candidates: Mapping[str, V], how: str) -> Mapping[str, V]:
    if how == "best":
        return candidates
    if how not in candidates:
        raise InputError("the backbone is not read like that", found=how, expected=f"best, {'; '.join(candidates)}")
    return {how: candidates[how]}


def _mean_of(
    given_names: str,
    asked: Sequence[Target],
    predicted: Mapping[str, list[dict[str, Predicted]]],
    draws: Draws,
    covariates: Mapping[str, Covariate],
) -> tuple[str, ...]:
    numbers = [t.name for t in asked if not t.classes]
    if given_names:
        unknown = sorted(set(_words(given_names)) - set(numbers))
        if unknown:
            raise InputError("is no number among the targets", found=", ".join(unknown), expected=", ".join(numbers))
        return tuple(_words(given_names))
    if CEILING in predicted:
        return learned_by(asked, predicted[CEILING][0], draws)
    return usual_mean(numbers, covariates)


def _counts(text: str) -> list[int]:
    try:
        return sorted({int(word) for word in _words(text)})
    except ValueError:
        raise ConfigError("--dense is not understood", found=text, expected="numbers of cubes: 4,16,64") from None


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _name(path: str | os.PathLike) -> str:
    """A backbone by the folder of its run."""
    path = Path(path).resolve()
    return path.parent.name if path.is_file() else path.name
