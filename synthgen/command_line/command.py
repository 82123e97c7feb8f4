"""A function as a command: its settings, its words, what it shows."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperCommand

from synthgen.command_line.errors import WORDS, OneCommand
from synthgen.command_line.options import arguments_of, parameter
from synthgen.command_line.settings import (
    AS_JSON,
    DEBUG,
    FILE,
    OVERWRITE,
    PREFLIGHT,
    SEVERAL,
    Setting,
    flag,
    setting_of,
)
from synthgen.errors import ConfigError, one_line_errors
from synthgen.runs.processes.launch import in_processes

if TYPE_CHECKING:
    from synthgen.config import Config  # which takes longer to import than `synthgen --help` to answer

HELP = {"help_option_names": ["-h", "--help"]}


@dataclass(frozen=True)
class Command:
    """A function as a command.

    Args:
        target: `module:name` of a function, which is imported when it is needed; or the function, or a configuration.
        name: of the command. about: what it does, for `--help`.
        show: what to do with the result. Called with it and, where it has parameters of that name, with the `settings`
            and whether `--json` was given (`as_json`); in the main process alone.
        positional: names of the settings that are given by position.
        names: other names than the setting's own, by setting ("--gates" for `gates_folder`).
        several: it can run in several processes, and so has an option `--processes`.
        keeps: the setting that names a file which is not replaced without an option `--overwrite`.
    """

    target: str | Callable[..., Any]
    name: str
    about: str = ""
    show: Callable[..., None] = print
    positional: tuple[str, ...] = ()
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    several: bool = False
    keeps: str = ""

    def function(self) -> Callable[..., Any]:
        """What runs."""
        if not isinstance(self.target, str):
            return self.target
        module, _, name = self.target.partition(":")
        return getattr(importlib.import_module(module), name)

    def model(self) -> tuple[type[Config], bool]:
        """The class of the settings, and whether the function takes it as a whole."""
        from synthgen.command_line.reading import model_of

        return model_of(self.function(), self.name)

    def settings(self) -> tuple[Setting, ...]:
        """Every setting of the command, in the order of `--help`."""
        from synthgen.config import fields

        model, whole = self.model()
        result = [
            setting_of(name, *field, by_place=name in self.positional, whole=whole)
            for name, field in fields(model).items()
        ]
        result = [replace(s, names=self.names.get(s.name, s.names)) for s in result]
        first = [next(s for s in result if s.name == name) for name in self.positional]
        others = [s for s in result if not s.positional]
        if whole:
            others.insert(0, FILE)
        if self.several or (whole and model.several):
            others.append(SEVERAL)
        if whole and model.several:
            others.append(PREFLIGHT)
        if self.keeps:
            others.append(OVERWRITE)
        if "as_json" in inspect.signature(self.show).parameters:
            others.append(AS_JSON)
        return (*first, *others, DEBUG)

    def build(self, settings: Sequence[Setting] | None = None) -> TyperCommand:
        """The command as typer knows it, with these settings (by default the function's, which imports it)."""
        settings = self.settings() if settings is None else settings

        def callback(context: typer.Context, **values: Any) -> None:
            arguments = arguments_of(settings, values)
            with one_line_errors(arguments.pop("debug")):
                self._run(arguments, context.meta[WORDS])

        parameters = [inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)]
        parameters += [parameter(s) for s in settings]
        callback.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        callback.__annotations__ = {p.name: p.annotation for p in parameters}
        app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
        app.command(self.name, cls=OneCommand, help=self.about, context_settings=HELP)(callback)
        return typer.main.get_command(app)  # type: ignore[return-value]

    def main(self, words: Sequence[str] | None = None, program: str | None = None) -> None:
        """Run it with these words, by default those of the process."""
        self.build().main(list(sys.argv[1:] if words is None else words), program or self.name, standalone_mode=False)

    def read(self, words: Sequence[str]) -> Config:
        """The settings that these words make, without running anything; ConfigError for words that are not known."""
        settings = self.settings()
        return self.resolved(arguments_of(settings, self.build(settings).make_context(self.name, list(words)).params))

    def _run(self, arguments: dict[str, Any], words: Sequence[str]) -> None:
        as_json, several = arguments.pop("as_json", False), arguments.pop("processes", None)
        count = _count(several or "1")
        settings, (_, whole) = self.resolved(arguments), self.model()
        if self.keeps and not arguments.get("overwrite") and Path(out := getattr(settings, self.keeps)).is_file():
            remedy = "choose another name, or add --overwrite"
            raise ConfigError("is there already and would be lost", path=out, remedy=remedy)
        if several is not None or "RANK" in os.environ:
            in_processes([self.name, *words], count)
        if arguments.get("preflight"):
            self._preflight(settings)
            return
        given = {name: getattr(settings, name) for name in settings.model_fields_set}
        result = self.function()(settings) if whole else self.function()(**given)
        if int(os.environ.get("RANK", "0")) == 0:
            asked = inspect.signature(self.show).parameters
            known = {"settings": settings, "as_json": as_json}
            self.show(result, **{name: value for name, value in known.items() if name in asked})

    def _preflight(self, settings: Config) -> None:
        from synthgen.runs.files import json_text
        from synthgen.runs.preflight import preflight

        found = preflight(self.function(), settings)
        if int(os.environ.get("RANK", "0")) == 0:
            print(json_text(found))

    def resolved(self, arguments: Mapping[str, Any]) -> Config:
        """The settings, from texts by dotted name (None where none was given); ConfigError names the option.

        What was given wins over the file `config`. With `resume`, what neither states is as the run in `out` has it,
        whatever it was begun with.
        """
        from synthgen.command_line.reading import read

        model, whole = self.model()
        try:
            return read(model, arguments, whole)
        except ConfigError as error:
            by_option = (
                arguments if arguments.get("config") is None else [n for n in arguments if arguments[n] is not None]
            )
            raise self._named(error, by_option) from None

    def _named(self, error: ConfigError, given: Iterable[str]) -> ConfigError:
        """The error with the option's name in place of the key's, for keys that options have `given`."""
        for name in given:
            for start in (f"'{name}'", f"'{name}."):
                if error.what.startswith(start):
                    what = self.names.get(name, (flag(name),))[0] + error.what[1:].partition("'")[2]
                    return ConfigError(what, found=error.found, expected=error.expected, remedy=error.remedy)
        return error


def _count(text: str) -> int:
    """The number of processes."""
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError("--processes must be a whole number from 1", found=repr(text))
    return int(text)
