"""The commands that compare configurations: `synthgen sweep`, `synthgen pareto`; and `synthgen figure`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from synthgen.cli.shared import GENERATOR, PASS_ON, AsJson, Debug, echo_json, pass_on
from synthgen.errors import one_line_errors


def add_to(app: typer.Typer) -> None:
    """Give the command line these commands."""
    app.command(rich_help_panel=GENERATOR, **PASS_ON)(sweep)
    app.command(rich_help_panel=GENERATOR)(pareto)
    app.command(rich_help_panel=GENERATOR)(figure)


def sweep(context: typer.Context) -> None:
    """Train, judge and time many generators.

    Example: synthgen sweep --config configs/sweep64.yaml
    """
    from synthgen.experiments.sweep.run import main as run

    pass_on(run, context)


def pareto(
    results: Annotated[Path, typer.Argument(help="folder of a sweep's records")],
    out: Annotated[Path, typer.Option(help="folder for plots, tables and findings")],
    speed: Annotated[float | None, typer.Option(help="cubes per second that are needed")] = None,
    quality: Annotated[float | None, typer.Option(help="Frechet distance that is tolerated")] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Quality against speed: plots, tables, a recommendation.

    Example: synthgen pareto benchmarks/results/sweep64 --out pareto --speed 50
    """
    with one_line_errors(debug):
        from synthgen.experiments.sweep.pareto import pareto as run

        found = run(results, out, speed, quality)
        if as_json:
            echo_json(found)
        else:
            typer.echo(found["recommendation"])
            typer.echo(f"{out / 'findings.md'}: fronts and tables")


def figure(
    data: Annotated[Path, typer.Option(help="cohort of real cubes")],
    out: Annotated[Path, typer.Option(help="picture to write; PNG and SVG, whatever its suffix")],
    generator: Annotated[str, typer.Option(help="generator folder or packaged name")] = "phantom64",
    count: Annotated[int, typer.Option(min=1, max=16, help="cubes of each kind")] = 3,
    seed: Annotated[int, typer.Option(help="another seed, other synthetic cubes")] = 0,
    steps: Annotated[int, typer.Option(min=1, help="steps of the sampler")] = 8,
    sampler: Annotated[str, typer.Option(help="euler, heun or ab2")] = "ab2",
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1; by default the best there is")] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Real and synthetic cubes side by side at six wavelengths.

    Example: synthgen figure --data eyes.h5 --out figure.png
    """
    with one_line_errors(debug):
        from synthgen.integration.pages.figure import figure as run

        found = run(data, out, generator, count, seed=seed, steps=steps, sampler=sampler, device=device)
        if as_json:
            echo_json(found)
        else:
            typer.echo(f"{', '.join(found['files'])}: bands at {', '.join(f'{nm:g}' for nm in found['bands_nm'])} nm")
