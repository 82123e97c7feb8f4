"""Settings as what typer makes arguments and options of, and the values given for them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import typer

from synthgen.command_line.settings import Setting


def parameter(setting: Setting) -> inspect.Parameter:
    """A setting as what typer makes an argument or an option of; its value is text, yes or no, or None."""
    notes = [f"one of {', '.join(setting.choices)}"] if setting.choices else []
    notes += [f"default: {setting.default}"] if setting.default else []
    about: dict[str, Any] = {"help": setting.help + (f" ({'; '.join(notes)})" if notes else ""), "show_default": False}
    default = ... if setting.required else None
    if setting.positional:
        kind: Any = list[str] if setting.positional == "several" else str
        made: Any = typer.Argument(default, metavar=setting.names[0], **about)
    elif setting.kind == "SWITCH":
        kind, (name,) = bool | None, setting.names
        made = typer.Option(None, f"{name}/--no-{name[2:]}" if setting.opposite else name, **about)
    else:
        kind = str if setting.required else str | None
        if setting.choices:
            about["autocompletion"] = lambda incomplete: [c for c in setting.choices if c.startswith(incomplete)]
        made = typer.Option(default, *setting.names, metavar=setting.kind, **about)
    if not setting.positional:
        made.rich_help_panel = setting.panel
    return inspect.Parameter(_python(setting.name), inspect.Parameter.KEYWORD_ONLY, default=made, annotation=kind)


def arguments_of(settings: Sequence[Setting], values: Mapping[str, Any]) -> dict[str, Any]:
    """The value given for each setting, None where none was, from the values by the names of `parameter`."""
    return {s.name: values[_python(s.name)] for s in settings}


def _python(name: str) -> str:
    return name.replace(".", "__")
