"""`synthgen sweep`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from synthgen.errors import one_line_errors


def add_to(app: typer.Typer) -> None:
    """Give the application its command."""

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
