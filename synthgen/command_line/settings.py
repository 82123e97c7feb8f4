"""One argument or option: what it is called, what `--help` shows of it, and what its text means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

PROCESSES = "processes on this machine that share the work, one for each GPU"


@dataclass(frozen=True)
class Setting:
    """One argument or option: its names as they are typed, and what `--help` shows of it."""

    name: str  # of the field, dotted
    names: tuple[str, ...]
    help: str
    default: str = ""  # in words; nothing where there is none
    choices: tuple[str, ...] = ()
    required: bool = False
    kind: Literal["TEXT", "INT", "FLOAT", "WORD", "SWITCH"] = "TEXT"  # a switch is given without a value
    opposite: bool = False  # a switch with a `--no-...`, as it is on by default or a file may turn it on
    positional: Literal["", "one", "several"] = ""

    @classmethod
    def of(cls, kept: Mapping[str, Any]) -> Setting:
        """One that was kept as JSON; TypeError for anything else."""
        values: dict[str, Any] = {k: tuple(value) if isinstance(value, list) else value for k, value in kept.items()}
        return cls(**values)

    @property
    def panel(self) -> str | None:
        """The table of settings that a dotted name belongs to."""
        return self.name.rpartition(".")[0] or None


DEBUG = Setting(name="debug", names=("--debug",), help="show the traceback of an error", kind="SWITCH")
AS_JSON = Setting(name="as_json", names=("--json",), help="print JSON", kind="SWITCH")
SEVERAL = Setting(name="processes", names=("--processes",), help=PROCESSES, default="1")
PREFLIGHT = Setting(
    name="preflight",
    names=("--preflight",),
    help="only a few steps, in a folder that is taken away again, then the time and memory that the training will take",
    kind="SWITCH",
)
FILE = Setting(name="config", names=("--config",), help="YAML file with any of the settings below")
OVERWRITE = Setting(
    name="overwrite", names=("--overwrite",), help="replace a file that is already there", kind="SWITCH"
)


def setting_of(name: str, kind: Any, about: str, default: Any, *, by_place: bool, whole: bool) -> Setting:
    """The setting of a field with this annotation, description and default ("required" where there is none).

    Args:
        by_place: an argument. whole: it is of a configuration, which a file can hold as well.
    """
    return Setting(
        name=name,
        names=(name.upper() if by_place else flag(name),),
        help=about,
        default="" if default == "required" else _shown(default),
        choices=_choices(kind),
        required=default == "required" and not whole,
        kind="WORD" if _choices(kind) else _kind(kind),
        opposite=kind is bool and (whole or default is True),
        positional="" if not by_place else "several" if get_origin(kind) is Sequence else "one",
    )


def flag(name: str) -> str:
    """The option of a field."""
    return "--" + name.replace("_", "-")


def _choices(kind: Any) -> tuple[str, ...]:
    """The words of a Literal, alone or beside None."""
    if get_origin(kind) is Literal:
        return tuple(word for word in get_args(kind) if isinstance(word, str))
    return tuple(word for part in get_args(kind) if get_origin(part) is Literal for word in _choices(part))


def _kind(annotation: Any) -> Literal["TEXT", "INT", "FLOAT", "SWITCH"]:
    """What an option takes, for `--help`."""
    if annotation is bool:
        return "SWITCH"
    parts = {part for part in get_args(annotation) or (annotation,) if part is not type(None)}
    return "INT" if parts == {int} else "FLOAT" if parts == {float} else "TEXT"


def _shown(default: Any) -> str:
    """A default as it would be typed; nothing for what is not there, not asked for or empty."""
    if default is None or default is False or default in ((), {}, ""):
        return ""
    if isinstance(default, tuple | list):
        return f"[{', '.join(map(_shown, default))}]"
    return "on" if default is True else str(default)
