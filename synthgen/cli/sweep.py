"""The commands that compare configurations: `synthgen sweep`, `synthgen pareto`; and `synthgen figure`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from synthgen.cli.shared import GENERATOR, command, echo_json
from synthgen.runs.files import read_json

if TYPE_CHECKING:
    from synthgen.experiments.sweep.plan import Sweep


def add_to(app: typer.Typer) -> None:
    """Give the command line these commands."""

    @command(app, GENERATOR, "synthgen.experiments.sweep.run:run_sweep")
    def sweep(records: list[Path], settings: Sweep) -> None:
        """Train, judge and time many generators.

        Example: synthgen sweep --config configs/sweep64.yaml
        """
        result = [read_json(path) for path in records if path.exists()]
        done = sum(r["status"] == "done" for r in result)
        summary = f"{done} cells done, {len(result) - done} failed; see `synthgen pareto {settings.results}`"
        typer.echo(f"{settings.results}: {summary}")

    @command(
        app,
        GENERATOR,
        "synthgen.experiments.sweep.pareto:pareto",
        positional=("results",),
        names={"min_speed": ("--speed",), "max_distance": ("--quality",)},
    )
    def pareto(result: dict[str, Any], settings: Any, as_json: bool) -> None:
        """Quality against speed: plots, tables, a recommendation.

        Example: synthgen pareto benchmarks/results/sweep64 --out pareto --speed 50
        """
        if as_json:
            echo_json(result)
        else:
            typer.echo(result["recommendation"])
            typer.echo(f"{Path(settings.out) / 'findings.md'}: fronts and tables")

    @command(app, GENERATOR, "synthgen.integration.pages.figure:figure")
    def figure(result: dict[str, Any], as_json: bool) -> None:
        """Real and synthetic cubes side by side at six wavelengths.

        Example: synthgen figure --data eyes.h5 --out figure.png
        """
        if as_json:
            echo_json(result)
        else:
            typer.echo(f"{', '.join(result['files'])}: bands at {', '.join(f'{nm:g}' for nm in result['bands_nm'])} nm")
