"""`synthgen probe`: what a backbone predicts of patients that it has not seen; the label, or any targets."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from synthgen.experiments.probe_backbone import RGB_STEPS, ProbeReport, probe_backbone
from synthgen.experiments.target_probe import TargetProbe, probe_targets, write_probe
from synthgen.runs.processes.device import Device, pick_device


def probe(
    backbone: Annotated[str | os.PathLike, Field(description="backbone.safetensors or the run folder that holds it")],
    data: Annotated[str | os.PathLike, Field(description="cohort file with labels or covariates")],
    *,
    label: Annotated[
        str, Field(description="which field of the cohort, or column of the table, is the label: 0 or 1 per cube")
    ] = "label",
    targets: Annotated[
        str | None, Field(description="ask for these instead of the label: names with commas between, or all")
    ] = None,
    table: Annotated[
        str | os.PathLike | None,
        Field(description="CSV with a column patient and any others: age [years], camera, the label"),
    ] = None,
    patients: Annotated[
        Literal["auto", "test", "all"],
        Field(
            description="test (those kept for it) or all; auto: test where the backbone was trained on this cohort, "
            "else all; all must be unseen in training"
        ),
    ] = "auto",
    skip_unlabelled: Annotated[bool, Field(description="leave out patients without a label")] = False,
    rgb_steps: Annotated[
        int, Field(ge=0, description="training steps of the network on three bands, per fold; 0: without it")
    ] = RGB_STEPS,
    beside: Annotated[str, Field(description="with targets: further backbones, commas between")] = "",
    log: Annotated[str, Field(description="targets whose logarithm is asked for, commas between")] = "",
    mean_of: Annotated[
        str, Field(description="targets of the mean; by default what the ceiling learns, the phantom's eight, or all")
    ] = "",
    read: Annotated[
        str,
        Field(description="with targets, how networks are read: best (chosen in the folds), exported, 'stage 1, mean'"),
    ] = "best",
    untrained: Annotated[int, Field(ge=0, description="with targets: untrained networks beside it")] = 3,
    ceiling_steps: Annotated[
        int, Field(ge=0, description="with targets: steps of the same network trained with labels; 0: without it")
    ] = 0,
    dense: Annotated[
        str,
        Field(description="with targets: vessels and disc too, trained on so many labelled cubes: 4,16,64"),
    ] = "",
    extrapolate: Annotated[
        str, Field(description="with targets: age:65 learns from patients up to it and judges the others")
    ] = "",
    out: Annotated[str | None, Field(description="with targets: folder for the record and the pictures")] = None,
    folds: Annotated[int, Field(ge=2, description="of the cross-validation by patient")] = 5,
    repeats: Annotated[
        int | None, Field(ge=1, description="with other folds each time; 3, or 5 where there are targets")
    ] = None,
    seed: Annotated[int, Field(ge=0, description="of folds, networks that are trained here, and draws")] = 0,
    device: Device = None,
) -> ProbeReport | TargetProbe:
    """Ask for the label (`probe_backbone`) or, with `targets`, for these (`probe_targets`); see there."""
    if targets is None:
        return probe_backbone(
            backbone, data, label, table=table, patients=patients, skip_unlabelled=skip_unlabelled,
            rgb_steps=rgb_steps, folds=folds, repeats=repeats or 3, seed=seed, device=device,
        )  # fmt: skip
    others = [name.strip() for name in beside.split(",") if name.strip()]
    found = probe_targets(
        backbone, data, targets, beside=others, table=table, log=log, mean_of=mean_of, patients=patients, read=read,
        folds=folds, repeats=repeats or 5, untrained=untrained, ceiling_steps=ceiling_steps, dense=dense,
        extrapolate=extrapolate, seed=seed, device=pick_device(device),
    )  # fmt: skip
    if out is not None:
        write_probe(found, Path(out))
    return found
