"""The documentation becomes a site without a warning, with references that hold what the code holds."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from synthgen.cli import app as cli
from synthgen.cli.reference_pages import commands_page, configuration_page
from synthgen.integration.options import Pretraining

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_references_hold_every_command_and_every_key():
    page, keys = commands_page(cli.app), configuration_page()
    for command in cli.app.registered_commands:
        name = command.name
        assert f"### synthgen {name}\n" in page and f"synthgen {name}" in page.split(f"### synthgen {name}\n")[1]
    assert "| `--patient-pattern` |" in page and "| `FILE` | required |" in page
    for name in Pretraining.model_fields:
        assert re.search(rf"\| `{name}(\.\w+)?` \|", keys), name
    table = [line for line in keys.splitlines() if line.startswith("|")]
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 4 for line in table)


def test_every_page_stands_in_the_navigation():
    text = (ROOT / "mkdocs.yml").read_text()
    for page in (ROOT / "docs").rglob("*.md"):
        assert f": {page.relative_to(ROOT / 'docs')}" in text, page.name


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in ("index", "tutorial", "commands", "configuration", "gates", "gates_card", "segmenter_card"):
        page = (tmp_path / f"{name}.html").read_text()
        assert not re.search(r'<(?:script|link|img)[^>]+(?:src|href)="https?:', page), f"{name} loads from elsewhere"
    assert "synthgen ingest" in (tmp_path / "commands.html").read_text()
    assert 'href="generator_card.html"' in (tmp_path / "index.html").read_text()
