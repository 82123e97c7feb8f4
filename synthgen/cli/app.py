"""The `synthgen` command. What a command runs is imported when it is called, so that `--help` answers at once."""

from __future__ import annotations

import typer

from synthgen.cli import data, export, generator, pretrain, study, sweep
from synthgen.cli.shared import Commands
from synthgen.command_line.command import HELP

app = typer.Typer(
    name="synthgen",
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings=HELP,
    help="Synthetic hyperspectral retinal cubes for self-supervised pretraining.\n\n"
    "In order: phantom or ingest, info, train-generator, calibrate, sample, gate, pretrain, probe. "
    "`synthgen demo` runs them all on simulated eyes.",
)
pretrain.add_demo_to(app)
data.add_to(app)
generator.add_to(app)
sweep.add_to(app)
generator.add_gates_to(app)
pretrain.add_to(app)
study.add_to(app)
export.add_to(app)


def main() -> None:
    """Entry point: bad input is one line on standard error and exit code 2."""
    app(prog_name="synthgen")


if __name__ == "__main__":
    main()
