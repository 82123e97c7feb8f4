"""Commands of the main job: doctor, demo, pretrain, report. Every command imports what it needs when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from synthgen.cli.shared import BEGIN, PASS_ON, PRETRAINING, AsJson, Debug, echo_json, pass_on
from synthgen.errors import one_line_errors


def add_demo_to(app: typer.Typer) -> None:
    """The first commands that `--help` shows."""
    app.command(rich_help_panel=BEGIN)(doctor)
    app.command(rich_help_panel=BEGIN)(demo)


def add_to(app: typer.Typer) -> None:
    """Add the commands to the command line, in the order in which `--help` shows them."""
    app.command(rich_help_panel=PRETRAINING, **PASS_ON)(pretrain)
    app.command(rich_help_panel=PRETRAINING)(report)


def doctor(
    folder: Annotated[Path, typer.Option(help="where runs will be written")] = Path("."),
    measure: Annotated[bool, typer.Option("--measure/--no-measure", help="time the packaged generator")] = True,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Check the installation, devices, memory, disk and processes, and say what will run well here.

    Exit code 0, or 2 when something that is needed is missing.

    Example: synthgen doctor
    """
    with one_line_errors(debug):
        from dataclasses import asdict

        from synthgen.cli.doctor import examine, healthy, print_findings
        from synthgen.errors import EXIT_BAD_INPUT

        found = examine(folder, measure=measure)
        if as_json:
            echo_json([asdict(f) for f in found])
        else:
            print_findings(found)
        if not healthy(found):
            raise typer.Exit(EXIT_BAD_INPUT)


def demo(
    out: Annotated[Path, typer.Option(help="folder for everything the demo makes")] = Path("demo"),
    training_seconds: Annotated[float, typer.Option(help="for each of the generator's two trainings")] = 45,
    steps: Annotated[int, typer.Option(min=1, help="steps of each of the two pretrainings")] = 85,
    seed: int = 0,
    debug: Debug = False,
) -> None:
    """Run the main job, end to end, on simulated eyes: under 10 minutes on 2 cores.

    Example: synthgen demo --out demo
    """
    with one_line_errors(debug):
        from synthgen.experiments.demo import run_demo

        run_demo(out, training_seconds=training_seconds, steps=steps, seed=seed)


def pretrain(context: typer.Context) -> None:
    """Pretrain a backbone on real and synthetic cubes.

    Example: synthgen pretrain --synthetic-ratio 0.5
    """
    from synthgen.integration.pretrain import main as run

    pass_on(run, context)


def report(
    run: Annotated[Path, typer.Argument(help="folder of a run, finished or not, or of several runs")],
    debug: Debug = False,
) -> None:
    """Write a run's page: curves, pictures, verdicts, settings, how to repeat it. Every training ends with it.

    Example: synthgen report runs/pretrain
    """
    with one_line_errors(debug):
        from synthgen.integration.pages.run import report_run

        typer.echo(f"{report_run(run)}")
