"""Ask a backbone for the label: beside a random one and beside mean spectra, on patients that it has not seen."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np
import torch

from synthgen.cubes.cohort import Cohort
from synthgen.cubes.splits import load_or_make_split
from synthgen.errors import InputError
from synthgen.integration.supply import check_belongs, check_no_leak, open_cohort
from synthgen.ssl.backbone import load_backbone, make_backbone
from synthgen.ssl.probe import ProbeResult, embed, lda_on_mean_spectra, probe
from synthgen.ssl.probe import compare as paired


def compare(
    backbone: str | os.PathLike,
    data: str | os.PathLike,
    *,
    patients: str = "auto",
    seed: int = 0,
    device: torch.device | None = None,
) -> dict[str, ProbeResult]:
    """Probe a pretrained backbone, the same network with random weights, and LDA on mean spectra, on the same folds.

    Args:
        backbone: `backbone.safetensors` or the folder that holds it.
        data: cohort with labels.
        patients: "test" (the cohort's test patients), "all", or "auto": test when the backbone was trained on this
            cohort, else all.

    Raises LeakError naming the patients when the backbone, its generator or its gates have seen one of them.
    """
    trained = load_backbone(backbone, device or "cpu")
    cohort = open_cohort(data)
    check_belongs(cohort, trained.wavelengths, trained.size, "backbone", backbone)
    index = _index(cohort, patients, trained.provenance is not None and trained.provenance.cohort_hash)
    who = cohort.patient_id[index]
    check_no_leak(trained.provenance, sorted(set(who)), "backbone")
    if cohort.label is None:
        raise InputError("has no labels to probe for", path=cohort.path, remedy="ingest it with --patient-table")
    labels, cubes = cohort.label[index], cohort.cubes(index)
    torch.manual_seed(seed)
    random = make_backbone(trained.name, trained.bands, trained.size).to(device or "cpu").eval()
    return {
        "pretrained": probe(embed(trained.model, trained.statistics, cubes), labels, who, seed=seed),
        "random weights": probe(embed(random, trained.statistics, cubes), labels, who, seed=seed),
        "mean spectra + LDA": lda_on_mean_spectra(cubes, labels, who, seed=seed),
    }


def render_table(results: Mapping[str, ProbeResult]) -> None:
    """Print the comparison as a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="AUROC per patient [95 % interval]", title_justify="left")
    for name in ("features", "linear probe", "kNN"):
        table.add_column(name)
    for name, found in results.items():
        table.add_row(
            name, _with_interval(found.auroc, found.interval), _with_interval(found.knn_auroc, found.knn_interval)
        )
    first = next(iter(results.values()))
    table.caption = f"{first.n_patients} patients, {first.n_cubes} cubes, none of them seen in pretraining"
    Console().print(table)


def in_words(results: Mapping[str, ProbeResult]) -> str:
    """One honest sentence, from the paired comparison on the same patients: does pretraining help here?"""
    found = paired(results["pretrained"], results["random weights"])
    low, high = found.interval
    said = f"Pretrained minus random: {found.difference:+.2f} AUROC [{low:+.2f}, {high:+.2f}], paired over patients"
    return f"{said}: {found.conclusion}."


def _with_interval(value: float, interval: tuple[float, float]) -> str:
    return f"{value:.2f} [{interval[0]:.2f}, {interval[1]:.2f}]"


def _index(cohort: Cohort, patients: str, trained_on: str | bool) -> np.ndarray:
    if patients == "auto":
        patients = "test" if trained_on == cohort.content_hash else "all"
    if patients == "all":
        return np.arange(len(cohort))
    if patients != "test":
        raise InputError("unknown choice of patients", found=patients, expected="auto, test or all")
    return cohort.index_of(load_or_make_split(cohort).test)
