"""Tab completion for the commands that have one flag per field of a configuration.

Their flags are those of classes whose import takes seconds, so they are kept in the user's cache until the code
changes. The first tab waits, the next ones do not.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from typer.core import CompletionItem, TyperCommand

from synthgen.errors import SynthgenError
from synthgen.runs.files import read_json, write_json

PACKAGE = Path(__file__).parents[1]
Flags = dict[str, list[list[str]]]  # by command: [flag, what it means]


class PassOn(TyperCommand):
    """A command whose words are understood by a configuration; it completes that configuration's flags."""

    def shell_complete(self, ctx: Any, incomplete: str) -> list[CompletionItem]:
        """Flags that begin like the word; nothing for a value, which the shell completes as a file."""
        if not incomplete.startswith("-"):
            return []
        return [
            CompletionItem(flag, help=about) for flag, about in flags()[str(self.name)] if flag.startswith(incomplete)
        ]


def flags() -> Flags:
    """The flags of every such command, from the cache where the code is as it was."""
    path = cache_file()
    if path.exists():
        try:
            return read_json(path)
        except SynthgenError:
            pass  # damaged: collected anew
    found = collected()
    try:
        for old in path.parent.glob("flags_*.json"):
            old.unlink(missing_ok=True)
        write_json(path, found)
    except (SynthgenError, OSError):
        pass  # no place to keep them: the next tab waits as well
    return found


def collected() -> Flags:
    """The flags by the configurations themselves."""
    from synthgen.cli.reference import configurations
    from synthgen.config import PROCESSES, fields

    shared = [["--config", "YAML file"], ["--debug", "show the traceback of an error"], ["--help", "show all of them"]]
    several = [["--processes", PROCESSES]]
    return {
        name: [
            *([f"--{key.replace('_', '-')}", about] for key, (_, about, _) in fields(cls).items()),
            *(several if cls.several else []),
            *shared,
        ]
        for name, cls in configurations().items()
    }


def cache_file() -> Path:
    """Where they are kept: a name for this installation and the newest of its files."""
    newest = max(path.stat().st_mtime_ns for path in PACKAGE.rglob("*.py"))
    place = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    key = hashlib.sha256(f"{PACKAGE} {newest}".encode()).hexdigest()[:12]
    return place / "synthgen" / f"flags_{key}.json"
