"""Frozen, validated configurations: from YAML, from the command line, and back to YAML.

Every configuration of the project is a `Config`. Unknown keys are refused with the nearest known one, every field is a
command-line flag (`learning_rate` is `--learning-rate`, nested fields have a dot), and what was resolved is saved with
what it made.
"""

from __future__ import annotations

import argparse
import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from synthgen.errors import ConfigError, must_exist

C = TypeVar("C", bound="Config")
RUN_SETTINGS = "config.yaml"  # in a run folder: what the run was begun with


class Config(BaseModel):
    """Base of every configuration: frozen, unknown keys refused, defaults validated."""

    command: ClassVar[str] = ""  # of `synthgen`, whose settings these are; a run folder records it

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _words(cls, values: Any) -> Any:
        """YAML 1.1 reads the words on and off as true and false; where a field takes words they become words again."""
        if not isinstance(values, Mapping):
            return values
        words = {True: "on", False: "off"}
        spoken = {
            name: words[value]
            for name, value in values.items()
            if isinstance(value, bool)
            and name in cls.model_fields
            and words[value] in get_args(cls.model_fields[name].annotation)
        }
        return {**values, **spoken}

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def build(cls: type[C], values: Mapping[str, Any], source: str | os.PathLike | None = None) -> C:
    """A configuration of class `cls` from plain values; ConfigError names the first thing that is wrong."""
    try:
        return cls.model_validate(dict(values))
    except ValidationError as error:
        raise _explain(cls, error, source) from None


def load(
    cls: type[C],
    path: str | os.PathLike | None = None,
    overrides: Mapping[str, Any] | None = None,
    base: Mapping[str, Any] | None = None,
) -> C:
    """Read a YAML file (or start from the defaults), lay it over `base`, and `overrides` (dotted keys) over both."""
    values = laid_over(dict(base or {}), read_table(path) if path is not None else {})
    for key, value in (overrides or {}).items():
        *parents, leaf = key.split(".")
        table = values
        for parent in parents:
            if not isinstance(table.setdefault(parent, {}), dict):
                table[parent] = {}
            table = table[parent]
        table[leaf] = value
    return build(cls, values, path)


def read_table(path: str | os.PathLike) -> dict[str, Any]:
    """The keys and values of a YAML file; ConfigError when it holds something else."""
    try:
        values = yaml.safe_load(must_exist(path).read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError("is not valid YAML", path=path, found=str(error).splitlines()[0]) from None
    if not isinstance(values, dict):
        raise ConfigError("is not a table of keys and values", path=path, found=type(values).__name__)
    return values


def laid_over(base: dict[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `values` over it, table by table."""
    for key, value in values.items():
        below = base.get(key)
        base[key] = laid_over(dict(below), value) if isinstance(below, dict) and isinstance(value, dict) else value
    return base


def fields(cls: type[Config], prefix: str = "") -> dict[str, tuple[Any, str, Any]]:
    """Every leaf field of a configuration class: dotted name -> (annotation, description, default)."""
    found: dict[str, tuple[Any, str, Any]] = {}
    for name, field in cls.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, Config):
            found.update(fields(inner, f"{prefix}{name}."))
        else:
            default = "required" if field.is_required() else field.get_default(call_default_factory=True)
            found[prefix + name] = (inner, field.description or "", default)
    return found


def add_flags(parser: argparse.ArgumentParser, cls: type[Config]) -> None:
    """Give the parser `--config` and one flag for each field of `cls`."""
    parser.add_argument("--config", metavar="FILE", help="YAML file with any of the fields below")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    for name, (annotation, description, default) in fields(cls).items():
        choices = [a for a in get_args(annotation) if isinstance(a, str)]
        alone: dict[str, Any] = {"nargs": "?", "const": "true"} if annotation is bool else {}
        parser.add_argument(
            "--" + name.replace("_", "-"),
            dest=name,
            metavar="|".join(choices) if choices else name.rsplit(".", 1)[-1].upper(),
            default=argparse.SUPPRESS,
            **alone,
            help=f"{description} (default: {default})".replace("%", "%%").strip(),
        )


def from_command_line(cls: type[C], argv: Sequence[str], prog: str, description: str) -> tuple[C, argparse.Namespace]:
    """Parse `--config FILE` and one flag per field; flags win over the file.

    With `--resume` what neither says is as the run in `--out` has it, whatever it was begun with.

    Returns:
        the configuration and the namespace (with `config` and `debug`). Flag values go through YAML, so that `[1, 2]`,
        `true`, `null` and numbers mean what they mean in a file; a yes-or-no flag needs no value.
    """
    parser = _Parser(prog=prog, description=description, allow_abbrev=False)
    add_flags(parser, cls)
    args = parser.parse_args(list(argv))
    known = fields(cls)
    overrides = {name: _from_text(value) for name, value in vars(args).items() if name in known}
    return load(cls, args.config, overrides, _begun(cls, args.config, overrides)), args


def _begun(cls: type[Config], path: str | None, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The saved settings of the run that is to be resumed; nothing without `resume`, or where no run was begun."""
    if not {"out", "resume"} <= cls.model_fields.keys():
        return {}
    asked = {**(read_table(path) if path is not None else {}), **overrides}
    saved = Path(str(asked.get("out", cls.model_fields["out"].default))) / RUN_SETTINGS
    return read_table(saved) if asked.get("resume") is True and saved.is_file() else {}


def _from_text(text: str) -> Any:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    if isinstance(value, str):
        try:
            return float(value)  # YAML 1.1 reads 1e-3 as a string
        except ValueError:
            return value
    return value


class _Parser(argparse.ArgumentParser):
    """argparse whose refusal is a ConfigError (one line, exit code 2) instead of a page of usage."""

    def error(self, message: str):
        remedy = f"see `{self.prog} --help`"
        if message.startswith("unrecognized arguments: "):
            unknown = message.split(": ", 1)[1].split()[0].split("=")[0]
            close = difflib.get_close_matches(unknown, self._option_string_actions, n=1)
            if close:
                remedy = f"did you mean {close[0]}? See `{self.prog} --help`"
        raise ConfigError(message, remedy=remedy)


def _explain(cls: type[Config], error: ValidationError, source: str | os.PathLike | None) -> ConfigError:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"]) or cls.__name__
    if first["type"] == "extra_forbidden":
        close = difflib.get_close_matches(key, fields(cls), n=1, cutoff=0.5)
        remedy = f"did you mean '{close[0]}'?" if close else f"known keys: {', '.join(fields(cls))}"
        return ConfigError(f"unknown key '{key}'", path=source, remedy=remedy)
    message = first["msg"].removeprefix("Value error, ")
    found = None if first["type"] == "missing" or not first["loc"] else repr(first["input"])
    return ConfigError(f"'{key}': {message[0].lower()}{message[1:]}", path=source, found=found)
