"""The command line: every command has an example that it understands, and `--help` tells the story in order."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from synthgen.cli import app as cli
from synthgen.cli import shared
from synthgen.cli.reference import check_command, entries
from synthgen.cli.shared import COMMANDS
from synthgen.command_line.settings import AS_JSON
from synthgen.errors import SynthgenError

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_ends_its_words_with_an_example(name, monkeypatch):
    monkeypatch.chdir(ROOT)  # where configs/ is
    found = re.search(rf"Example: (synthgen {name}\b[^\n]*)$", COMMANDS[name].about.rstrip())
    assert found, f"the docstring of '{name}' must end with 'Example: synthgen {name} ...'"
    check_command(found[1])


def test_help_tells_the_story_in_order():
    order = [e.group for e in entries(cli.app) if e.group]
    groups = (
        shared.BEGIN,
        shared.CUBES,
        shared.GENERATOR,
        shared.GATES,
        shared.PRETRAINING,
    )
    assert order == sorted(order, key=groups.index) and set(order) == set(groups)


def test_a_wrong_line_is_refused():
    for line in ("synthgen gate shards --gatez g", "synthgen gates x", "synthgen gate --gates g", "sinthgen info x"):
        with pytest.raises(SynthgenError):
            check_command(line)
    with pytest.raises(SynthgenError, match="Did you mean --steps"):
        check_command("synthgen pretrain --stepz 3")


def test_json_for_machines():
    """Every command that answers a question can answer in JSON."""
    for name in ("info", "probe", "gate", "evaluate", "doctor", "pareto", "figure"):
        assert AS_JSON in COMMANDS[name].settings()


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
    """What bash is given for the words after `synthgen`."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["synthgen"])

    def call(*words):
        for name, value in asked(tmp_path, words).items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit):
            cli.app(prog_name="synthgen")
        message = capsys.readouterr()
        assert not message.err
        return message.out.split()

    return call


@pytest.mark.slow
def test_the_tab_key_knows_commands_options_and_words(completed):
    assert completed("train-") == ["train-autoencoder", "train-diffusion", "train-generator"]
    assert completed("pareto", "--sp") == ["--speed"]
    assert completed("pretrain", "--syn") == ["--synthetic-ratio"]
    assert completed("sweep", "--latent") == ["--latent-channels"]
    assert completed("pretrain", "--method", "") == ["simclr", "vicreg", "dino", "statistics"]
    assert completed("export", "x", "--to", "o") == ["onnx"]
    assert completed("sweep", "--config", "con") == []  # the shell's own: files


def test_the_tab_key_is_quick_once_the_options_are_kept(completed, tmp_path):
    """A process of its own answers from what is kept, and imports nothing heavy for it."""
    completed("sample", "--si")
    (kept,) = tmp_path.glob("synthgen/*/sample.json")
    kept.write_text(kept.read_text().replace("--count", "--from-the-cache"))
    code = (
        "import sys; sys.argv = ['synthgen']\nfrom synthgen.cli.app import app\ntry: app(prog_name='synthgen')\n"
        "finally: print('torch' in sys.modules)"
    )
    environment = {**os.environ, **asked(tmp_path, ["sample", "--f"])}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout.split() == ["--from-the-cache", "False"] and not done.stderr
