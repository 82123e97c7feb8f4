"""The command line: every command has an example that it understands, and `--help` tells the story in order."""

import inspect
import re
from pathlib import Path

import pytest
import typer

from synthgen import cli
from synthgen.errors import SynthgenError
from synthgen.integration import command_line
from synthgen.integration.reference import check_command, entries

ROOT = Path(__file__).parents[2]
COMMANDS = {c.name or c.callback.__name__: c.callback for c in cli.app.registered_commands}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_ends_its_words_with_an_example(name, monkeypatch):
    monkeypatch.chdir(ROOT)  # where configs/ is
    words = inspect.getdoc(COMMANDS[name]) or ""
    found = re.search(rf"Example: (synthgen {name}\b[^\n]*)$", words.rstrip())
    assert found, f"the docstring of '{name}' must end with 'Example: synthgen {name} ...'"
    check_command(cli.app, found[1])


def test_help_tells_the_story_in_order():
    order = [e.group for e in entries(cli.app) if e.group]
    groups = (
        command_line.BEGIN,
        command_line.CUBES,
        command_line.GENERATOR,
        command_line.GATES,
        command_line.PRETRAINING,
    )
    assert order == sorted(order, key=groups.index) and set(order) == set(groups)


def test_a_wrong_line_is_refused():
    for line in ("synthgen gate shards --gatez g", "synthgen gates x", "synthgen gate --gates g", "sinthgen info x"):
        with pytest.raises(SynthgenError):
            check_command(cli.app, line)
    with pytest.raises(SynthgenError, match="Did you mean --steps"):
        check_command(cli.app, "synthgen pretrain --stepz 3")


def test_json_for_machines():
    """Every command that answers a question can answer in JSON."""
    flags = {name: {o for p in typer.main.get_command(cli.app).commands[name].params for o in p.opts} for name in
             ("info", "probe", "gate", "evaluate", "doctor")}  # fmt: skip
    assert all("--json" in found for found in flags.values())
