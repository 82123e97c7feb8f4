"""How a command is added to `synthgen`, and the groups in which `--help` shows them.

A command is a function that shows a result; the decorator `command` says which function of the library gives it. What
that function accepts becomes the command's options. Reading them imports the library, which takes seconds, so what
was read is kept in the user's cache until the code changes: help and the tab key answer at once from then on.
"""

from __future__ import annotations

import hashlib
import inspect
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from synthgen.command_line.command import Command
from synthgen.command_line.errors import OneLineErrors, refusals
from synthgen.command_line.settings import Setting
from synthgen.errors import SynthgenError
from synthgen.runs.files import json_text, read_json, write_json

BEGIN = "Begin"
CUBES = "1. Cubes"
GENERATOR = "2. Generator"
GATES = "3. Gates and synthetic cubes"
PRETRAINING = "4. Pretraining"

PACKAGE = Path(__file__).parents[1]
COMMANDS: dict[str, Command] = {}  # by name, in the order of `--help`
GATES_FOLDER = {"gates_folder": ("--gates", "--gates-folder")}


class Commands(OneLineErrors, TyperGroup):
    """`synthgen`: a command gets its options when it is called, so that `synthgen --help` imports no library."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        with refusals(ctx):
            name, _, rest = super().resolve_command(ctx, args)
        return name, COMMANDS[str(name)].build(kept_settings(COMMANDS[str(name)])), rest


def command(
    app: typer.Typer,
    panel: str,
    target: str,
    *,
    positional: tuple[str, ...] = (),
    names: Mapping[str, tuple[str, ...]] | None = None,
    several: bool = False,
    keeps: str = "",
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add a command that runs `target` ("module:function") and shows what it returns by the decorated function.

    The command has that function's name and docstring; the rest is as for `synthgen.command_line.Command`.
    """

    def add(show: Callable[..., None]) -> Callable[..., None]:
        name, about = show.__name__.replace("_", "-"), inspect.getdoc(show) or ""
        COMMANDS[name] = Command(target, name, about, show, positional, names or {}, several, keeps)
        app.command(name, help=about, rich_help_panel=panel)(lambda: None)
        return show

    return add


def kept_settings(of: Command) -> tuple[Setting, ...]:
    """The settings of a command, from the cache where the code is as it was."""
    path = cache_folder() / f"{of.name}.json"
    if path.exists():
        try:
            return tuple(Setting.of(one) for one in read_json(path))
        except (SynthgenError, TypeError):
            pass  # damaged: read anew
    result = of.settings()
    try:
        for old in path.parents[1].glob("*/*.json"):
            if old.parent != path.parent:
                old.unlink(missing_ok=True)
        write_json(path, [asdict(one) for one in result])
    except (SynthgenError, OSError):
        pass  # no place to keep them: the next time takes as long
    return result


def cache_folder() -> Path:
    """Where settings are kept: a name for this installation and the newest of its files."""
    newest = max(path.stat().st_mtime_ns for path in PACKAGE.rglob("*.py"))
    place = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    return place / "synthgen" / hashlib.sha256(f"{PACKAGE} {newest}".encode()).hexdigest()[:12]


def echo_json(value: Any) -> None:
    """Print a value as JSON on standard output."""
    typer.echo(json_text(value, indent=2))
