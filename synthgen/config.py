"""Frozen, validated configurations: from YAML and from words of a command line, and back to YAML.

Every configuration of the project is a `Config`. Unknown keys are refused with the nearest known one, every field is a
command-line flag (`learning_rate` is `--learning-rate`, nested fields have a dot), and what was resolved is saved with
what it made.

What a word means is decided by its field: `2024` is a name where the field is text and a number where it is a number.
YAML 1.1 would read `010` as 8, `1:30` as 90, `yes` as true and `2024-12-01` as a date before any field is asked.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import types
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from synthgen.errors import ConfigError, must_exist

C = TypeVar("C", bound="Config")
RUN_SETTINGS = "config.yaml"  # in a run folder: what the run was begun with


class Config(BaseModel):
    """Base of every configuration: frozen, unknown keys refused, defaults validated.

    `command`: of `synthgen`, whose settings these are; a run folder records it. `several`: it can run in several
    processes, and so has a flag `--processes`.
    """

    command: ClassVar[str] = ""
    several: ClassVar[bool] = False
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def build(cls: type[C], values: Mapping[str, Any], source: str | os.PathLike | None = None) -> C:
    """A configuration of class `cls` from plain values; ConfigError names the first thing that is wrong."""
    try:
        return cls.model_validate(typed(cls, unfolded(cls, values, source), "", source))
    except ValidationError as error:
        raise _explain(cls, error, source) from None


def load(
    cls: type[C],
    path: str | os.PathLike | None = None,
    overrides: Mapping[str, Any] | None = None,
    base: Mapping[str, Any] | None = None,
) -> C:
    """Read a YAML file (or start from the defaults), lay it over `base`, and `overrides` (dotted keys) over both."""
    stated = unfolded(cls, read_words(path), path) if path is not None else {}
    values = laid_over(dict(base or {}), stated)
    for key, value in (overrides or {}).items():
        *parents, leaf = key.split(".")
        table = values
        for parent in parents:
            if not isinstance(table.setdefault(parent, {}), dict):
                table[parent] = {}
            table = table[parent]
        table[leaf] = value
    return build(cls, values, path)


class Plain(str):
    """A scalar that stood in a YAML file without quotes, as it was written."""


class Words(yaml.SafeLoader):
    """YAML whose scalars stay as they are written, and whose tables have each key once."""

    yaml_implicit_resolvers = {"<": [("tag:yaml.org,2002:merge", re.compile("^<<$"))]}  # noqa: RUF012

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen: dict[str, int] = {}
        for key, _ in node.value:
            if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                raise _twice(key.value, None, f"lines {seen[key.value]} and {key.start_mark.line + 1}")
            seen[str(key.value)] = key.start_mark.line + 1
        return super().construct_mapping(node, deep)


def _scalar(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> str:
    return Plain(node.value) if node.style is None else str(loader.construct_scalar(node))


Words.add_constructor("tag:yaml.org,2002:str", _scalar)


def _twice(key: str, source: str | os.PathLike | None, found: str | None = None) -> ConfigError:
    return ConfigError(f"'{key}' is given twice", path=source, found=found, remedy="leave one of them")


def read_words(path: str | os.PathLike) -> dict[str, Any]:
    """The keys of a YAML file with what is written there (`Plain`), to be read by a configuration's fields."""
    return _read(path, Words)


def read_table(path: str | os.PathLike) -> dict[str, Any]:
    """The keys and values of a YAML file that `to_yaml` has written; ConfigError when it holds something else."""
    return _read(path, yaml.SafeLoader)


def _read(path: str | os.PathLike, loader: type[yaml.SafeLoader]) -> dict[str, Any]:
    try:
        values = yaml.load(must_exist(path).read_text(encoding="utf-8"), loader) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = f", line {mark.line + 1}" if (mark := getattr(error, "problem_mark", None)) else ""
        raise ConfigError("is not valid YAML", path=path, found=str(error).splitlines()[0] + where) from None
    except ConfigError as error:
        raise ConfigError(error.what, path=path, found=error.found, remedy=error.remedy) from None
    if not isinstance(values, dict):
        raise ConfigError("is not a table of keys and values", path=path, found=type(values).__name__)
    return values


def unfolded(cls: type[Config], values: Mapping[str, Any], source: str | os.PathLike | None = None) -> dict[str, Any]:
    """The tables of `values` with dotted keys (`simclr.temperature`) as keys of the tables that they name."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        head, _, rest = str(key).partition(".")
        name, value = (head, {rest: value}) if rest and _table(cls, head) else (key, value)
        if name in found:
            mine = found[name]
            if not (isinstance(mine, Mapping) and isinstance(value, Mapping)) or mine.keys() & value.keys():
                raise _twice(key, source)
            value = {**mine, **value}
        found[name] = value
    for name, value in found.items():
        inner = _table(cls, name)
        if inner is not None and isinstance(value, Mapping):
            found[name] = unfolded(inner, value, source)
    return found


def _table(cls: type[Config], name: str) -> type[Config] | None:
    """The configuration class of a field that is a table of its own."""
    return configuration_class(cls.model_fields[name].annotation) if name in cls.model_fields else None


def configuration_class(kind: Any) -> type[Config] | None:
    return kind if isinstance(kind, type) and issubclass(kind, Config) else None


YES, NO, NOTHING = ("true", "yes", "on"), ("false", "no", "off"), ("", "~", "null")
_NUMBERS: dict[Any, tuple[str, str]] = {
    int: ("is not a whole number", "digits without a leading zero, as 10 or 1000"),
    float: ("is not a number", "a finite number without a leading zero, as 10, 0.5 or 1e-3"),
    bool: ("is neither true nor false", "true or false"),
}


def typed(kind: Any, value: Any, where: str, source: str | os.PathLike | None) -> Any:
    """`value` with every word in it read as `kind` (a field's annotation) states; `where` is its dotted name.

    ConfigError for a word that is no number where a number is due. What is not a word is left for pydantic to judge.
    """
    origin, options = get_origin(kind), get_args(kind)
    if isinstance(value, Plain) and value.lower() in NOTHING:
        return None
    if origin in (Union, types.UnionType) and len(some := [k for k in options if k is not type(None)]) == 1:
        return typed(some[0], value, where, source)
    if isinstance(value, Mapping):
        cls = configuration_class(kind)
        known = {} if cls is None else {n: field.annotation for n, field in cls.model_fields.items()}
        other = options[1] if origin is dict else Any
        dotted = lambda key: f"{where}.{key}" if where else str(key)
        return {key: typed(known.get(key, other), part, dotted(key), source) for key, part in value.items()}
    if isinstance(value, list | tuple):
        each = options if ... not in options and len(options) == len(value) else (options or (Any,))[:1] * len(value)
        return [typed(k, part, where, source) for k, part in zip(each, value, strict=True)]
    if not isinstance(value, str):
        return value
    if kind in _NUMBERS:
        try:
            return _number(kind, value)
        except ValueError:
            what, expected = _NUMBERS[kind]
            raise ConfigError(f"'{where}' {what}", path=source, found=repr(str(value)), expected=expected) from None
    return _as_json(value) if kind is Any and isinstance(value, Plain) else str(value)


def _number(kind: Any, text: str) -> int | float | bool:
    """ValueError unless `text` is what `kind` (bool, int or float) takes, and cannot be meant otherwise."""
    if kind is bool:
        if text.lower() not in YES + NO:
            raise ValueError
        return text.lower() in YES
    if re.match(r"[+-]?0[\d_]", text):  # YAML 1.1 reads 010 as 8, others as 10
        raise ValueError
    if kind is float:
        return float(text)
    try:
        return int(text, 0)
    except ValueError:
        if not float(text).is_integer():
            raise
        return int(float(text))


def _as_json(text: str) -> Any:
    """What is written where anything may stand: true, false and the numbers of JSON are such, all else is text."""
    try:
        value = json.loads(text)
    except ValueError:
        return str(text)
    return value if isinstance(value, bool | int | float) else str(text)


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
