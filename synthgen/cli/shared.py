"""What the commands share: the groups in which `synthgen --help` shows them, and how a command hands its words on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

from synthgen.cli.completion import PassOn
from synthgen.runs.files import json_text

BEGIN = "Begin"
CUBES = "1. Cubes"
GENERATOR = "2. Generator"
GATES = "3. Gates and synthetic cubes"
PRETRAINING = "4. Pretraining"

PASS_ON: dict[str, Any] = {  # of a command that hands its words to a configuration, which has a `--help` of its own
    "cls": PassOn,
    "add_help_option": False,
    "context_settings": {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
}
Debug = Annotated[bool, typer.Option("--debug", help="show the traceback of an error")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]


def pass_on(run: Callable[[list[str]], Any], context: typer.Context) -> None:
    """Hand every word after the command's name to `run`, which has one flag for each field of a configuration.

    Where it prints its help, the command's example follows.
    """
    words = list(context.args)
    try:
        run(words)
    except SystemExit as end:
        if not end.code and {"-h", "--help"} & set(words):
            typer.echo(f"\nexample: {(context.command.help or '').partition('Example: ')[2].strip()}")
        raise


def echo_json(value: Any) -> None:
    """Print a value as JSON on standard output."""
    typer.echo(json_text(value, indent=2))
