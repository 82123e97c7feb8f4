"""Commands of the main job: doctor, demo, pretrain, report."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from synthgen.cli.shared import BEGIN, PRETRAINING, command, echo_json
from synthgen.errors import EXIT_BAD_INPUT

if TYPE_CHECKING:
    from pathlib import Path

    from synthgen.cli.doctor import Finding


def add_demo_to(app: typer.Typer) -> None:
    """The first commands that `--help` shows."""

    @command(app, BEGIN, "synthgen.cli.doctor:examine")
    def doctor(result: list[Finding], as_json: bool) -> None:
        """Check the installation, devices, memory, disk and processes, and report what will run well here.

        Exit code 0, or 2 when something that is needed is missing.

        Example: synthgen doctor
        """
        from synthgen.cli.doctor import healthy, print_findings

        if as_json:
            echo_json([asdict(f) for f in result])
        else:
            print_findings(result)
        if not healthy(result):
            raise typer.Exit(EXIT_BAD_INPUT)

    @command(app, BEGIN, "synthgen.experiments.demo:run_demo")
    def demo(_: dict[str, Any]) -> None:
        """Run the main job, end to end, on simulated eyes: under 10 minutes on 2 cores.

        Example: synthgen demo --out demo
        """


def add_to(app: typer.Typer) -> None:
    """Add the commands to the command line, in the order in which `--help` shows them."""

    @command(app, PRETRAINING, "synthgen.integration.pretrain:pretrain")
    def pretrain(folder: Path) -> None:
        """Pretrain a backbone on real and synthetic cubes.

        Example: synthgen pretrain --synthetic-ratio 0.5
        """
        from synthgen.integration.pretrain import print_outcome

        print_outcome(folder)

    @command(
        app,
        PRETRAINING,
        "synthgen.integration.pages.run:report_run",
        positional=("folder",),
        names={"folder": ("RUN",)},
    )
    def report(page: Path) -> None:
        """Write a run's page: curves, pictures, verdicts, settings, how to repeat it. Every training ends with it.

        Example: synthgen report runs/pretrain
        """
        typer.echo(f"{page}")
