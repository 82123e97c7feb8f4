"""`synthgen sweep` and `synthgen pareto`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from synthgen.errors import one_line_errors


def add_to(app: typer.Typer) -> None:
    """Give the application its commands."""

    @app.command()
    def sweep(
        config: Annotated[Path, typer.Option(help="YAML file: a grid or named variants")],
        debug: Annotated[bool, typer.Option("--debug", help="show the traceback of an error")] = False,
    ) -> None:
        """Train, time and judge many generators. Example: synthgen sweep --config configs/sweep64.yaml"""
        with one_line_errors(debug):
            from synthgen.config import load
            from synthgen.integration.sweep import run_sweep
            from synthgen.integration.sweep_plan import Sweep

            for path in run_sweep(load(Sweep, config)):
                typer.echo(path)

    @app.command()
    def pareto(
        results: Annotated[Path, typer.Argument(help="folder of a sweep's records")],
        out: Annotated[Path, typer.Option(help="folder for plots, table and findings")],
        min_speed: Annotated[float | None, typer.Option(help="cubes per second that are needed")] = None,
        max_distance: Annotated[float | None, typer.Option(help="Frechet distance that is tolerated")] = None,
        debug: Annotated[bool, typer.Option("--debug", help="show the traceback of an error")] = False,
    ) -> None:
        """Quality against speed. Example: synthgen pareto results/sweep64 --out docs/sweep64 --min-speed 100"""
        with one_line_errors(debug):
            from synthgen.integration.pareto import pareto as run

            typer.echo(run(results, out, min_speed, max_distance))
