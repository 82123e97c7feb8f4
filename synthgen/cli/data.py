"""Commands on cubes: simulate, read, describe, draw."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from synthgen.cli.shared import CUBES, GATES_FOLDER, command, echo_json

if TYPE_CHECKING:
    from pathlib import Path

    from synthgen.cubes.cohort.cohort import Cohort
    from synthgen.cubes.ingest.report import IngestReport


def add_to(app: typer.Typer) -> None:
    """Add the commands to the command line, in the order in which `--help` shows them."""

    @command(
        app,
        CUBES,
        "synthgen.cubes.phantom.cohort:simulate_cohort",
        positional=("path",),
        names={
            "path": ("OUT",),
            "wavelengths": ("--bands",),
            "fwhm_nm": ("--fwhm",),
        },
        keeps="path",
    )
    def phantom(cohort: Cohort) -> None:
        """Simulate a cohort of eyes.

        Example: synthgen phantom eyes.h5 --patients 100 --size 64 --seed 0
        """
        typer.echo(f"{cohort.path}: {len(cohort)} cubes of {len(cohort.patients)} patients")

    @command(
        app,
        CUBES,
        "synthgen.cubes.ingest.run:ingest",
        positional=("sources", "out"),
        names={"sources": ("SOURCES...",)},
        keeps="out",
    )
    def ingest(report: IngestReport) -> None:
        """Read real cubes into a cohort file; after Ctrl-C or a crash the same command goes on.

        Exit code 0, or 2 when nothing was written or nothing was taken from most of the files.

        Example: synthgen ingest scans/ eyes.h5 --size 224 --bands 450:900:30 --patient-pattern '(P[0-9]+)_'
        """
        from synthgen.cubes.ingest.report import print_table

        typer.echo("\n".join(report.lines()))
        print_table(report)
        report.raise_if_most_refused()

    @command(app, CUBES, "synthgen.cubes.readers.describe:describe", positional=("path",), names={"path": ("FILE",)})
    def info(result: dict[str, Any], as_json: bool) -> None:
        """Describe what a file or folder holds.

        Example: synthgen info cohort.h5
        """
        from synthgen.cubes.readers.describe import render

        if as_json:
            echo_json(result)
        else:
            typer.echo(render(result))

    @command(app, CUBES, "synthgen.integration.pages.viewer:view", positional=("file",), names=GATES_FOLDER)
    def view(page: Path) -> None:
        """Show cubes: a picture of one, or a page with several, alone or beside synthetic ones.

        Example: synthgen view eyes.h5 --generator phantom64 --out eyes.html
        """
        typer.echo(f"{page}")
