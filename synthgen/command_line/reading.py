"""What the words of a command line mean to the function that they are for."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import yaml
from pydantic import create_model

from synthgen.config import (
    NOTHING,
    RUN_SETTINGS,
    Config,
    Words,
    configuration_class,
    fields,
    load,
    read_table,
    read_words,
    typed,
    unfolded,
)
from synthgen.errors import ConfigError

_NESTED = {tuple, list, dict}


def model_of(function: Callable[..., Any], name: str) -> tuple[type[Config], bool]:
    """The class of a function's settings, and whether the function takes it as a whole.

    Args:
        function: or a configuration. name: of a class that is made of the function's parameters.
    """
    if configuration_class(function) is not None:
        return function, True  # type: ignore[return-value]
    hints, parameters = get_type_hints(function, include_extras=True), inspect.signature(function).parameters
    if (whole := configuration_class(hints.get(next(iter(parameters), "")))) is not None:
        return whole, True
    base, made = Config, {}
    for key, p in parameters.items():
        if get_origin(hint := hints.get(key)) is not Annotated:
            continue
        if p.kind is p.VAR_KEYWORD:  # `**settings: Annotated[Any, Ingestion]`
            base = get_args(hint)[1]
        else:
            made[key] = (hint, ... if p.default is p.empty else p.default)
    return create_model(name, __base__=base, **made), False


def read(model: type[Config], arguments: Mapping[str, Any], whole: bool) -> Config:
    """The settings of class `model` from texts by dotted name (None where none was given); see `Command.resolved`."""
    known, path = fields(model), arguments.get("config") if whole else None
    given = {name: value for name, value in arguments.items() if value is not None and name in known}
    given = {name: from_text(known[name][0], value) for name, value in given.items()}
    return load(model, path, given, _begun(model, path, given) if whole else None)


def from_text(kind: Any, text: str) -> Any:
    """An option's value: text as it stands, lists and tables as in a file, other words for the field to read."""
    origins = {get_origin(option) or option for option in get_args(kind) or (kind,)}
    if isinstance(text, str) and (origins & _NESTED or get_origin(kind) in _NESTED):
        try:
            return yaml.load(text, Words)
        except yaml.YAMLError:
            return text
    return None if type(None) in origins and text in NOTHING[1:] else text


def _begun(cls: type[Config], path: str | None, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The saved settings of the run that is to be resumed; nothing without `resume`, or where no run was begun.

    ConfigError when its folder is not there: nothing is simulated or loaded before that is reported.
    """
    if not {"out", "resume"} <= cls.model_fields.keys():
        return {}
    asked = {**(unfolded(cls, read_words(path), path) if path is not None else {}), **overrides}
    if typed(bool, asked.get("resume"), "resume", path) is not True:
        return {}
    out = Path(str(asked.get("out", cls.model_fields["out"].default)))
    if not out.is_dir():
        raise ConfigError("there is no run to resume", path=out, remedy="check --out, or begin without --resume")
    return read_table(out / RUN_SETTINGS) if (out / RUN_SETTINGS).is_file() else {}
