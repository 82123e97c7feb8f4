"""The reference pages of the documentation, written from the code whenever the site is built."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import typer

from synthgen.cli.reference import configurations, entries
from synthgen.config import fields


def commands_page(app: typer.Typer) -> str:
    """Every command in the order of `synthgen --help`, with its example and options, as Markdown."""
    parts = [
        "# Commands\n\nWritten from the code when this site was built. `synthgen --install-completion` completes "
        "commands and options on the tab key. Every command takes `--help`; `--debug` shows an error's traceback.\n"
    ]
    group = None
    for entry in entries(app):
        if entry.group != group:
            group = entry.group
            parts.append(f"## {group or 'More'}\n")
        parts.append(f"### synthgen {entry.name}\n\n{entry.about}\n\n```bash\n{entry.example}\n```\n")
        if entry.name in configurations():
            parts.append(f"Options: one for each [key of its configuration](configuration.md#{entry.name}).\n")
        else:
            rows = [(", ".join(o.names), "required" if o.required else o.default, o.help) for o in entry.options]
            parts.append(_table(rows, "option"))
    return "\n".join(parts)


def configuration_page() -> str:
    """Every configuration: keys, defaults, meanings, as Markdown."""
    parts = [
        "# Configuration\n\nWritten from the code when this site was built. Each key can stand in the YAML file given "
        "with `--config` (keys with a dot in a section of that name) or on the command line, where `_` is `-`; the "
        "command line wins. Unknown keys are refused. What was resolved is saved as `config.yaml` with what it made.\n"
    ]
    for name, cls in configurations().items():
        about = (cls.__doc__ or "").strip().splitlines()[0]
        rows = [(key, str(default), meaning) for key, (_, meaning, default) in fields(cls).items()]
        parts.append(f"## {name}\n\n{about}\n\n{_table(rows, 'key')}")
    return "\n".join(parts)


def recipe_page(folder: Path) -> str:
    """The recipes of a folder as they are, comments and all, as Markdown."""
    parts = ["# Recipes\n\nThe files of `configs/`, as they are.\n"]
    for path in sorted(folder.glob("*.yaml")):
        parts.append(f"## {path.name}\n\n```yaml\n{path.read_text(encoding='utf-8').strip()}\n```\n")
    return "\n".join(parts)


def _table(rows: Iterable[tuple[str, str, str]], what: str) -> str:
    """Rows of a name, its default in words and its meaning."""
    lines = [f"| {what} | default | meaning |", "| --- | --- | --- |"]
    for name, default, meaning in rows:
        shown = f"`{default}`" if default not in ("", "required") else default
        cells = (f"`{name}`", shown, meaning)
        lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    return "\n".join(lines) + "\n"
