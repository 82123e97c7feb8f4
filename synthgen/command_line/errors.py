"""Commands as typer knows them, whose refusals are one line."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from typer.core import TyperCommand

from synthgen.errors import ConfigError, SynthgenError, one_line_errors

WORDS = "synthgen.words"  # in a context: the command's words as they were typed


class OneLineErrors:
    """For a command or a group of them: a refusal is one line and exit code 2 instead of a page of usage."""

    def main(self, args: Sequence[str] | None = None, *more: Any, **others: Any) -> Any:
        with one_line_errors("--debug" in (sys.argv[1:] if args is None else args)):
            return super().main(args, *more, **others)  # type: ignore[misc]


class OneCommand(OneLineErrors, TyperCommand):
    """One command; its words as they were typed are kept in the context."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """A section for every table of settings. Plain text, as a table of columns would cut long names short."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            if (record := parameter.get_help_record(ctx)) is not None:
                usual = "Arguments" if parameter.param_type_name == "argument" else "Options"
                sections.setdefault(getattr(parameter, "rich_help_panel", None) or usual, []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.meta[WORDS] = list(args)
        with refusals(ctx):
            return super().parse_args(ctx, args)


@contextmanager
def refusals(context: Any) -> Iterator[None]:
    """Turn what typer refuses into a ConfigError that names the nearest option."""
    try:
        yield
    except Exception as error:
        if isinstance(error, SynthgenError) or not hasattr(error, "format_message") or context.resilient_parsing:
            raise
        what, _, near = error.format_message().partition(" (Possible")[0].partition("Did you mean ")  # type: ignore[attr-defined]
        options = [o for p in context.command.get_params(context) for o in p.opts if o.startswith("-")]
        unknown = getattr(error, "option_name", None)
        if unknown is not None and unknown not in options:
            near = "".join(difflib.get_close_matches(unknown, options, n=1))
        remedy = f"did you mean {near.strip('?')}? See" if near else "see"
        what = (what[0].lower() + what[1:]).strip(" .")
        raise ConfigError(what, remedy=f"{remedy} `{context.command_path} --help`") from None
