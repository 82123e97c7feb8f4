"""Commands around what is taken elsewhere: the safety of the augmentations, the export of a backbone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from synthgen.errors import one_line_errors

Debug = Annotated[bool, typer.Option("--debug", help="show the traceback of an error")]


def add_to(app: typer.Typer) -> None:
    """Give `app` the commands of this module."""
    app.command()(augmentations)


def augmentations(
    data: Annotated[Path | None, typer.Option(help="cohort file; simulated eyes by default")] = None,
    config: Annotated[Path | None, typer.Option(help="recipe (YAML) with a table 'augmentation'")] = None,
    cubes: Annotated[int, typer.Option(min=2, help="cubes looked at, at most")] = 48,
    views: Annotated[int, typer.Option(min=2, help="views of each cube")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="of the views")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    debug: Debug = False,
) -> None:
    """Say how much of a weak spectral difference each augmentation takes. Exit code 0 safe, 3 too much.

    Example: synthgen augmentations --data eyes.h5
    """
    with one_line_errors(debug):
        import json

        from synthgen.integration.augmentation_safety import augmentation_safety, print_safety, raise_unless_safe

        safety = augmentation_safety(data, config, cubes, views, seed)
        if as_json:
            typer.echo(json.dumps(safety.model_dump(mode="json") | {"too_much": safety.too_much}, indent=2))
        else:
            print_safety(safety)
        raise_unless_safe(safety)
