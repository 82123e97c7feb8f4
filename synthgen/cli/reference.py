"""Every command with its options, read from the code: what the reference pages are made of, and a check that a command
line which stands in a document would be understood."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass

import typer

from synthgen.cli.shared import COMMANDS
from synthgen.command_line.settings import DEBUG, Setting
from synthgen.config import Config
from synthgen.errors import InputError


@dataclass(frozen=True)
class Entry:
    """A command: its place in the story, what it does, an example, its options."""

    name: str
    group: str
    about: str
    example: str
    options: tuple[Setting, ...]


def configurations() -> dict[str, type[Config]]:
    """The commands whose function takes a configuration, which a YAML file can hold, and that configuration."""
    models = {name: command.model() for name, command in COMMANDS.items()}
    return {name: model for name, (model, whole) in models.items() if whole}


def entries(app: typer.Typer) -> Iterator[Entry]:
    """Every command of `app` in the order of `--help`."""
    for light in app.registered_commands:
        command = COMMANDS[str(light.name)]
        about, _, example = command.about.partition("Example: ")
        options = tuple(option for option in command.settings() if option != DEBUG)
        yield Entry(command.name, str(light.rich_help_panel or ""), about.strip(), example.strip(), options)


def check_command(line: str) -> None:
    """Read a line such as `synthgen gate shards --gates gates` as the command would, without running it.

    InputError or ConfigError when there is no such command or option, a word is missing or a value is refused; a file
    named by `--config` is read.
    """
    program, name, *words = shlex.split(line)
    if program != "synthgen" or (name not in COMMANDS and name != "--help"):
        raise InputError("no such command", found=line, expected=", ".join(COMMANDS))
    if name != "--help":
        COMMANDS[name].read(words)
