"""Every command with its options, read from the code: what the reference pages are made of, and a check that a command
line which stands in a document would be understood."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import typer

from synthgen.config import PROCESSES, Config, fields, from_command_line
from synthgen.errors import ConfigError, InputError


@dataclass(frozen=True)
class Option:
    """An argument or an option: as it is typed, its default in words, what it means."""

    names: str
    default: str
    help: str


@dataclass(frozen=True)
class Entry:
    """A command: its place in the story, what it does, an example, its options."""

    name: str
    group: str
    about: str
    example: str
    options: tuple[Option, ...]


def configurations() -> dict[str, type[Config]]:
    """The commands that take one flag for each field of a configuration, and that configuration."""
    from synthgen.experiments.study.options import Study
    from synthgen.experiments.sweep.plan import Sweep
    from synthgen.generator.training.autoencoder import AutoencoderTraining
    from synthgen.integration.options import Pretraining
    from synthgen.integration.recipe import GeneratorTraining
    from synthgen.integration.train import WatchedDiffusion
    from synthgen.quality.calibrate import Calibration

    found = (AutoencoderTraining, WatchedDiffusion, GeneratorTraining, Calibration, Pretraining, Study, Sweep)
    return {cls.command: cls for cls in found}


def entries(app: typer.Typer) -> Iterator[Entry]:
    """Every command of `app` in the order of `--help`."""
    known = configurations()
    for name, command in _commands(app).items():
        about, _, example = (command.help or "").partition("Example: ")
        if name in known:
            options = tuple(_of_field(n, *field) for n, field in fields(known[name]).items())
            if known[name].several:
                options = (Option("--processes", "1", PROCESSES.partition(" (")[0]), *options)
        else:
            options = tuple(_of_parameter(p) for p in command.params if p.name not in ("help", "debug"))
        yield Entry(name, getattr(command, "rich_help_panel", None) or "", about.strip(), example.strip(), options)


def check_command(app: typer.Typer, line: str) -> None:
    """Parse a line such as `synthgen gate shards --gates gates` as the command would, without running it.

    InputError or ConfigError when there is no such command or option, or a word is missing.
    """
    program, name, *words = shlex.split(line)
    commands = _commands(app)
    if program != "synthgen" or (name not in commands and name != "--help"):
        raise InputError("no such command", found=line, expected=", ".join(commands))
    if name == "--help":
        return
    if name in configurations():
        check_flags(configurations()[name], words, name)
        return
    try:
        commands[name].make_context(name, list(words), resilient_parsing=False)
    except Exception as error:
        if hasattr(error, "format_message"):  # UsageError of the click that typer carries
            raise ConfigError(error.format_message(), found=line) from None
        raise


def check_flags(cls: type[Config], words: Sequence[str], prog: str) -> None:
    """ConfigError for flags that `cls` does not know or values that it refuses; files named by `--config` are read."""
    from_command_line(cls, words, prog, "")


def _commands(app: typer.Typer) -> dict[str, Any]:
    return typer.main.get_command(app).commands  # type: ignore[attr-defined]


def _of_field(name: str, annotation: Any, description: str, default: Any) -> Option:
    return Option("--" + name.replace("_", "-"), str(default), description)


def _of_parameter(parameter: Any) -> Option:
    argument = parameter.param_type_name == "argument"
    names = parameter.name.upper() if argument else ", ".join(parameter.opts)
    plain = parameter.default is None or callable(parameter.default)
    default = "required" if parameter.required else "" if plain else str(parameter.default)
    return Option(names, default, getattr(parameter, "help", None) or "")
