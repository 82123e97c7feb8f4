"""The commands that answer whether it helped: `synthgen probe` and `synthgen study`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from synthgen.cli.shared import PASS_ON, PRETRAINING, AsJson, Debug, pass_on
from synthgen.errors import one_line_errors


def add_to(app: typer.Typer) -> None:
    """Give the command line these commands."""
    app.command(rich_help_panel=PRETRAINING)(probe)
    app.command(rich_help_panel=PRETRAINING, **PASS_ON)(study)


def study(context: typer.Context) -> None:
    """Do synthetic cubes help? Arms, seeds, a conclusion.

    Example: synthgen study --config configs/study.yaml
    """
    from synthgen.experiments.study.run import main as run

    pass_on(run, context)


def probe(
    backbone: Annotated[Path, typer.Option(help="backbone.safetensors or the run folder that holds it")],
    data: Annotated[Path, typer.Option(help="cohort file with labels or covariates")],
    targets: Annotated[
        str | None, typer.Option(help="ask for these instead of the label: names, commas between, or all")
    ] = None,
    label: Annotated[
        str, typer.Option(help="which field of the cohort, or column of the table, is the label")
    ] = "label",
    table: Annotated[
        Path | None, typer.Option(help="CSV with a column patient and any others: age, camera, the label")
    ] = None,
    patients: Annotated[
        str, typer.Option(help="auto, test (those kept for it) or all; all must be unseen in training")
    ] = "auto",
    skip_unlabelled: Annotated[
        bool, typer.Option("--skip-unlabelled", help="leave out patients without a label")
    ] = False,
    beside: Annotated[list[Path] | None, typer.Option(help="with --targets: a further backbone")] = None,
    log: Annotated[str, typer.Option(help="targets whose logarithm is asked for, commas between")] = "",
    mean_of: Annotated[
        str, typer.Option(help="targets of the mean; by default what the ceiling learns, or the phantom's eight")
    ] = "",
    read: Annotated[
        str, typer.Option(help="of networks: best (chosen inside the folds), exported, 'stage 1, mean' ...")
    ] = "best",
    untrained: Annotated[int, typer.Option(min=0, help="with --targets: untrained networks beside it")] = 3,
    ceiling_steps: Annotated[
        int, typer.Option(min=0, help="with --targets: steps of the same network with labels; 0: without it")
    ] = 0,
    extrapolate: Annotated[
        str, typer.Option(help="with --targets: age:65 learns from patients up to it and judges the others")
    ] = "",
    out: Annotated[Path | None, typer.Option(help="with --targets: folder for probe.json and probe.png")] = None,
    rgb_steps: Annotated[int, typer.Option(min=0, help="steps of the network on three bands; 0: without it")] = 60,
    folds: Annotated[int, typer.Option(min=2, help="of the cross-validation by patient")] = 5,
    repeats: Annotated[int | None, typer.Option(min=1, help="with other folds each time; 3, or 5 of --targets")] = None,
    seed: int = 0,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1; by default the best there is")] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Ask a backbone for the label, on unseen patients, and what else it tells.

    With --targets: numbers and classes by nested cross-validation, beside untrained networks and spectra.

    Example: synthgen probe --backbone runs/x --data eyes.h5 --targets age,melanin --out runs/x/probe
    """
    with one_line_errors(debug):
        from synthgen.experiments.probe_backbone import probe_backbone, render_table
        from synthgen.runs.device import pick_device

        if targets is not None:
            from synthgen.experiments.target_probe import probe_targets, render_targets, write_probe

            found = probe_targets(
                backbone, data, targets, beside=beside or (), table=table, log=log, mean_of=mean_of, patients=patients,
                read=read, folds=folds, repeats=repeats or 5, untrained=untrained, ceiling_steps=ceiling_steps,
                extrapolate=extrapolate, seed=seed, device=pick_device(device),
            )  # fmt: skip
            picture = write_probe(found, out) if out is not None else None
            if as_json:
                typer.echo(found.model_dump_json(indent=2))
            else:
                render_targets(found)
                typer.echo(f"{picture}" if picture else "", nl=picture is not None)
            return
        report = probe_backbone(
            backbone, data, label, table=table, patients=patients, skip_unlabelled=skip_unlabelled,
            rgb_steps=rgb_steps, seed=seed, folds=folds, repeats=repeats or 3, device=pick_device(device),
        )  # fmt: skip
        if as_json:
            typer.echo(report.model_dump_json(indent=2))
        else:
            render_table(report)
