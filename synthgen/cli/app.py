"""The `synthgen` command. Every command imports what it needs when it runs, so that `--help` answers at once."""

from __future__ import annotations

import sys

import typer

from synthgen.cli import data as commands_data
from synthgen.cli import export as commands_export
from synthgen.cli import generator as commands_generator
from synthgen.cli import pretrain as commands_ssl
from synthgen.cli import study as commands_study
from synthgen.cli import sweep as commands_sweep
from synthgen.errors import one_line_errors

app = typer.Typer(
    name="synthgen",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Synthetic hyperspectral retinal cubes for self-supervised pretraining.\n\n"
    "In order: phantom or ingest, info, train-generator, calibrate, sample, gate, pretrain, probe. "
    "`synthgen demo` runs them all on simulated eyes.",
)
commands_ssl.add_demo_to(app)
commands_data.add_to(app)
commands_generator.add_to(app)
commands_sweep.add_to(app)
commands_generator.add_gates_to(app)
commands_ssl.add_to(app)
commands_study.add_to(app)
commands_export.add_to(app)


def main() -> None:
    """Entry point: bad input is one line on standard error and exit code 2."""
    with one_line_errors("--debug" in sys.argv):
        app()


if __name__ == "__main__":
    main()
