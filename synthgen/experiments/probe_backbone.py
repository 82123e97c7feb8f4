"""Probe a backbone for the label on patients that it has not seen: beside a random one, mean spectra and three bands.

And what else it predicts: age, camera and whatever else the cohort or a table knows, and who the patient is.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from pydantic import Field

from synthgen.config import Config
from synthgen.contracts import Provenance
from synthgen.cubes.cohort.cohort import Cohort
from synthgen.cubes.cohort.covariates import covariates_of
from synthgen.cubes.cohort.splits import load_or_make_split
from synthgen.cubes.phantom.demographics import UNITS
from synthgen.errors import InputError, LeakError
from synthgen.integration.artifacts import check_belongs, open_cohort
from synthgen.runs.processes.device import pick_device
from synthgen.ssl.backbone import Backbone, load_backbone, make_backbone
from synthgen.ssl.evaluation.confounders import ConfounderReport, confounder_report
from synthgen.ssl.evaluation.confounders import render as confounders_in_words
from synthgen.ssl.evaluation.probe import ProbeResult, embed, fit_lda, probe
from synthgen.ssl.evaluation.probe import compare as paired
from synthgen.ssl.evaluation.rgb_baseline import rgb_bands, rgb_network
from synthgen.ssl.evaluation.spectra import mean_spectra

PRETRAINED, RANDOM, SPECTRA, RGB = "pretrained", "random weights", "mean spectra + LDA", "RGB network"
UNSEEN, UNKNOWN = "none of them seen in pretraining", "provenance unknown: pretraining may have seen them"
BLOCK = 64  # cubes in memory at a time
RGB_STEPS = 60


class ProbeReport(Config):
    """Everything that `synthgen probe` reports."""

    label: str
    seen: str = Field(description=f"{UNSEEN}, or {UNKNOWN} where the backbone does not state its training patients")
    results: dict[str, ProbeResult] = Field(description="the backbone's first, then the simple ones beside it")
    confounders: ConfounderReport
    conclusion: str
    uncertified: str | None = Field(None, description="the gates' stamp on the backbone, where they did not pass")


class Asked(NamedTuple):
    """Whom to probe: cubes by their index in the cohort, labels 0 or 1 [n], patients [n]; fields by name [n]."""

    index: np.ndarray
    labels: np.ndarray
    patients: np.ndarray
    fields: dict[str, np.ndarray]


def probe_backbone(
    backbone: str | os.PathLike,
    data: str | os.PathLike,
    label: str = "label",
    *,
    table: str | os.PathLike | None = None,
    patients: str = "auto",
    skip_unlabelled: bool = False,
    rgb_steps: int = RGB_STEPS,
    folds: int = 5,
    repeats: int = 3,
    seed: int = 0,
    device: str | None = None,
) -> ProbeReport:
    """Probe a pretrained backbone; beside it the same network with random weights, LDA on mean spectra, and a network
    trained on the label and three bands. All on the same folds. The arguments are explained at
    `synthgen.experiments.probe.probe`.

    Raises LeakError naming the patients when the backbone, its generator or its gates have seen one of them, InputError
    for labels that cannot be probed.
    """
    where, cohort = pick_device(device), open_cohort(data)
    trained = load_backbone(backbone, where)
    check_belongs(cohort, trained.wavelengths, trained.size, "backbone", backbone)
    asked = whom_to_ask(cohort, trained, label, table, patients, skip_unlabelled)
    torch.manual_seed(seed)
    random = make_backbone(trained.name, trained.bands, trained.size, trained.reading).to(where).eval()
    three = rgb_bands(cohort.wavelengths) if rgb_steps and cohort.bands >= 3 else []
    features, plain, spectra, colours = [], [], [], []
    for start in range(0, len(asked.index), BLOCK):
        cubes = cohort.cubes(asked.index[start : start + BLOCK])
        features.append(embed(trained.model, trained.statistics, cubes))
        plain.append(embed(random, trained.statistics, cubes))
        spectra.append(mean_spectra(cubes))
        colours += [cubes[:, three]] if three else []
    how: dict[str, Any] = {"seed": seed, "folds": folds, "repeats": repeats}
    who = (asked.labels, asked.patients)
    results = {
        PRETRAINED: probe(np.concatenate(features), *who, **how),
        RANDOM: probe(np.concatenate(plain), *who, **how),
        SPECTRA: probe(np.concatenate(spectra), *who, fit=fit_lda, **how),
    }
    if three:
        results[RGB] = rgb_network(np.concatenate(colours), *who, seed, steps=rgb_steps, folds=folds, device=where)
    stamp = trained.extra.get("gates")
    return ProbeReport(
        label=label,
        seen=UNKNOWN if trained.provenance is None else UNSEEN,
        results=results,
        confounders=confounder_report(
            np.concatenate(features), *who, asked.fields, results[PRETRAINED], seed, folds=folds
        ),
        conclusion=in_words(results),
        uncertified=stamp if stamp not in (None, "pass") else None,
    )


def whom_to_ask(
    cohort: Cohort,
    trained: Backbone,
    label: str = "label",
    table: str | os.PathLike | None = None,
    patients: str = "auto",
    skip_unlabelled: bool = False,
) -> Asked:
    """The cubes to probe on, with labels and whatever else is known of them; see `probe_backbone`."""
    index = probed_cubes(cohort, trained, patients)
    fields = {name: found.values for name, found in covariates_of(cohort, table).items()}
    fields = ({} if cohort.eye is None else {"eye": cohort.eye}) | fields
    if label in fields:
        labels = fields.pop(label)
    elif label == "label" and cohort.label is not None:
        labels = cohort.label
    else:
        raise InputError(
            "has no labels to probe for" if label == "label" else f"has no label '{label}'",
            path=cohort.path,
            found=f"fields {', '.join(sorted(fields))}" if fields else None,
            expected="one 0 or 1 per cube",
            remedy="ingest it with --patient-table, or give a table with --table",
        )
    if set(UNITS) - {label} <= fields.keys():  # simulated eyes: no camera's cohort knows what they were drawn from
        fields = {name: values for name, values in fields.items() if name == "age" or name not in UNITS}
    if labels.dtype.kind not in "uifb":
        kinds = sorted(set(labels.tolist()))
        raise InputError(f"the label '{label}' is a text", found=", ".join(kinds[:4]), expected="0 or 1 for every cube")
    if skip_unlabelled:
        index = index[~np.isnan(labels[index])]
    who = cohort.patient_id[index]
    check_unseen(trained.provenance, who.tolist())
    return Asked(index, labels[index], who, {name: values[index] for name, values in fields.items()})


def check_unseen(provenance: Provenance | None, patients: list[str]) -> None:
    """LeakError that names the patients to be probed whom the backbone has seen, and where it saw them.

    Without provenance nothing is known, and nothing is refused: the report must then state it.
    """
    seen = provenance.seen(patients) if provenance is not None else []
    if not seen or provenance is None:
        return
    own = set(provenance.model_copy(update={"also": ()}).seen(patients))
    named = [f"{p} (by {'the pretraining' if p in own else 'the generator or the gates'})" for p in seen[:5]]
    raise LeakError(
        f"the backbone has seen {len(seen)} of the {len(set(patients))} patients to be probed",
        found=", ".join(named) + (", ..." if len(seen) > 5 else ""),
        expected="none",
        remedy="probe other patients (--patients test), or train generator, gates and backbone without these",
    )


def render_table(report: ProbeReport) -> None:
    """Print the results, what else the features predict, and the conclusion."""
    from rich.console import Console
    from rich.table import Table

    results = report.results
    table = Table(title="AUROC per patient [95 % interval]", title_justify="left")
    for name in ("features", "linear probe", "kNN"):
        table.add_column(name)
    for name, found in results.items():
        table.add_row(
            name, _with_interval(found.auroc, found.interval), _with_interval(found.knn_auroc, found.knn_interval)
        )
    first = next(iter(results.values()))
    table.caption = f"{first.n_patients} patients, {first.n_cubes} cubes, {report.seen}"
    console = Console()
    console.print(table)
    text = confounders_in_words(report.confounders)
    if text:
        console.print("What else the features predict (0.5 is nothing):", highlight=False)
        console.print(text, highlight=False, soft_wrap=True)
    console.print(report.conclusion, highlight=False, soft_wrap=True)
    if report.uncertified:
        console.print(f"Its synthetic cubes are stamped '{report.uncertified}'.", highlight=False)


def in_words(results: Mapping[str, ProbeResult]) -> str:
    """One honest sentence, from the paired comparison on the same patients: does pretraining help here?"""
    found = paired(results[PRETRAINED], results[RANDOM])
    low, high = found.interval
    text = f"Pretrained minus random: {found.difference:+.2f} AUROC [{low:+.2f}, {high:+.2f}], paired over patients"
    return f"{text}: {found.conclusion}."


def _with_interval(value: float | None, interval: tuple[float, float] | None) -> str:
    return "" if value is None or interval is None else f"{value:.2f} [{interval[0]:.2f}, {interval[1]:.2f}]"


def probed_cubes(cohort: Cohort, trained: Backbone, patients: str = "auto") -> np.ndarray:
    """Indices of the cubes to probe on; see `probe_backbone` for `patients`."""
    if patients == "auto":
        own = trained.provenance is not None and trained.provenance.cohort_hash == cohort.content_hash
        patients = "test" if own else "all"
    if patients == "all":
        return np.arange(len(cohort))
    if patients != "test":
        raise InputError("unknown choice of patients", found=patients, expected="auto, test or all")
    return cohort.index_of(load_or_make_split(cohort).test)
