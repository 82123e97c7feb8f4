"""The command line: every command has an example that it understands, and `--help` tells the story in order."""

import inspect
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from synthgen.cli import app as cli
from synthgen.cli import completion
from synthgen.cli import shared as command_line
from synthgen.cli.reference import check_command, configurations, entries
from synthgen.errors import SynthgenError

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
             ("info", "probe", "gate", "evaluate", "doctor", "pareto", "figure")}  # fmt: skip
    assert all("--json" in found for found in flags.values())


@pytest.mark.parametrize("name", configurations())
def test_help_of_a_command_that_hands_its_words_on_ends_with_its_example(name, capsys):
    with pytest.raises(SystemExit) as end:
        cli.app([name, "--help"])
    lines = capsys.readouterr().out.rstrip().splitlines()
    assert not end.value.code and lines[-1].startswith(f"example: synthgen {name} --")


def asked(tmp_path, words):
    """What bash sets before it asks for the words after `synthgen`, the last one unfinished."""
    return {
        "XDG_CACHE_HOME": str(tmp_path),
        "_SYNTHGEN_COMPLETE": "complete_bash",
        "COMP_WORDS": shlex.join(["synthgen", *words]),
        "COMP_CWORD": str(len(words)),
    }


@pytest.fixture
def completed(tmp_path, monkeypatch, capsys):
    """What bash is told for the words after `synthgen`."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["synthgen"])

    def call(*words):
        for name, value in asked(tmp_path, words).items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit):
            cli.app(prog_name="synthgen")
        said = capsys.readouterr()
        assert not said.err
        return said.out.split()

    return call


@pytest.mark.slow
def test_the_tab_key_knows_commands_and_the_options_of_all(completed, tmp_path):
    assert completed("train-") == ["train-autoencoder", "train-diffusion", "train-generator"]
    assert completed("pareto", "--sp") == ["--speed"]
    assert completed("pretrain", "--syn") == ["--synthetic-ratio"]
    (kept,) = (tmp_path / "synthgen").iterdir()
    assert json.loads(kept.read_text()) == completion.collected()
    kept.write_text("half of a fi")
    assert completed("sweep", "--latent") == ["--latent-channels"]
    assert completed("sweep", "--config", "con") == []  # the shell's own: files


def test_the_tab_key_is_quick_once_the_options_are_kept(completed, tmp_path):
    """A process of its own answers from what is kept, and imports nothing heavy for it."""
    completed("pretrain", "--syn")
    (kept,) = (tmp_path / "synthgen").iterdir()
    kept.write_text(json.dumps({"sweep": [["--from-the-cache", ""]]}))
    code = (
        "import sys; sys.argv = ['synthgen']\nfrom synthgen.cli.app import app\ntry: app(prog_name='synthgen')\n"
        "finally: print('torch' in sys.modules)"
    )
    environment = {**os.environ, **asked(tmp_path, ["sweep", "--f"])}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout.split() == ["--from-the-cache", "False"] and not done.stderr
