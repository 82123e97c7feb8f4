"""The documents say what is true: their commands are understood, their links lead somewhere, their Python works."""

import importlib.util
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.run import LONG, MEASUREMENTS, ON_DATA
from synthgen.cli import app as cli
from synthgen.cli.reference import check_command
from synthgen.cubes.phantom.cohort import simulate_cohort
from synthgen.cubes.reflectance import BandStatistics
from synthgen.errors import SynthgenError
from synthgen.ssl.backbone import load_backbone, make_backbone, save_backbone

spec = importlib.util.spec_from_file_location("documents", Path(__file__).with_name("documents.py"))
documents = importlib.util.module_from_spec(spec)
spec.loader.exec_module(documents)

ROOT, PAGES = documents.ROOT, documents.PAGES
OTHERS = ("pip install", "uv pip install", "git clone", "cd ", "source ", "sbatch configs/", "python -m venv")

pytestmark = pytest.mark.skipif(not (ROOT / "README.md").exists(), reason="not a source tree")


def check_line(line):
    """A command line of a document: SynthgenError or AssertionError when it could not run as it stands."""
    if line.startswith("make "):
        target = shlex.split(line)[1]
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M), f"no target: {line}"
    elif line.startswith("synthgen "):
        check_command(line)
    elif found := re.match(r"python -m (benchmarks[.\w]+)", line):
        assert (ROOT / f"{found[1].replace('.', '/')}.py").exists(), line
    elif found := re.match(r"python (examples/\w+\.py)", line):
        assert (ROOT / found[1]).exists(), line
    elif found := documents.LAUNCHED.fullmatch(line):
        if found[1] == "pretrain.py" or found[1].endswith(".pretrain"):
            check_command(f"synthgen pretrain {found[2]}")
        elif found[1].endswith(".recipe"):
            check_command(f"synthgen train-generator {found[2]}")
        elif found[1] == "-m synthgen":
            check_command("synthgen" + found[2])
    else:
        assert line.startswith(OTHERS), f"a command that no test knows: {line}"


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_command_is_understood(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    for line in documents.commands(page):
        check_line(line)
    for name in re.findall(r"`synthgen ([a-z][a-z-]+)", page.read_text()):
        assert name in {e.name for e in _entries()}, f"{page.name}: no command '{name}'"
    for name in re.findall(r"benchmarks\.run\s--only (\w+)", page.read_text()):
        assert name in MEASUREMENTS | LONG | ON_DATA, f"{page.name}: no measurement '{name}'"


@pytest.mark.parametrize("place", sorted({*MEASUREMENTS.values(), *LONG.values(), *ON_DATA.values()}))
def test_every_measurement_is_there(place):
    module, _, function = place.partition(":")
    text = (ROOT / "benchmarks" / f"{module.replace('.', '/')}.py").read_text()
    assert f"\ndef {function}(" in text


def _entries():
    from synthgen.cli.reference import entries

    return entries(cli.app)


def test_a_wrong_line_of_a_document_is_found(monkeypatch):
    monkeypatch.chdir(ROOT)
    for line in ("synthgen gate x", "make nothing", "rm -rf x", "accelerate launch pretrain.py --ratio 2"):
        with pytest.raises((SynthgenError, AssertionError)):
            check_line(line)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_link_leads_somewhere(page):
    for words, target in documents.links(page):
        path, _, place = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name}: [{words}]({target})"
        if place:
            assert place in documents.headings(file), f"{page.name}: [{words}]({target})"


def test_five_commands_are_five():
    text = (ROOT / "README.md").read_text().split("## Your own cubes in five commands")[1]
    block = text.split("```bash\n")[1].split("```")[0].replace("\\\n", " ")
    assert len(block.strip().splitlines()) == 5
    python = (ROOT / "README.md").read_text().split("## In your own code")[1].split("```python\n")[1].split("```")[0]
    assert len([line for line in python.splitlines() if line.strip()]) <= 10
    compile(python, "README.md", "exec")


@pytest.mark.slow
@pytest.mark.parametrize(("page", "run"), [("README.md", "runs/pretrain"), ("docs/tutorial.md", "runs/mine")])
def test_features_by_the_python_of_the_documents_are_those_of_the_backbone(page, run, tmp_path, monkeypatch):
    """The network sees standardised log-reflectance: without that line the features would be of no use."""
    monkeypatch.chdir(tmp_path)
    statistics = BandStatistics(tuple(np.linspace(-5, -1, 16).tolist()), tuple(np.linspace(0.3, 0.6, 16).tolist()))
    model = make_backbone("resnet18", 16, 64, "stages")
    save_backbone(model, run, "resnet18", range(450, 901, 30), 64, statistics)
    eyes = simulate_cohort("labelled.h5", patients=4, size=64, seed=3, workers=1)
    cubes = torch.from_numpy(eyes.cubes(range(8)))
    block = next(b for b in documents.blocks(ROOT / page, "python") if "load_state_dict" in b)
    given = {"cubes": cubes}
    exec(compile(block, page, "exec"), given)
    with torch.no_grad():
        expected = load_backbone(run)(cubes)[:, -given["features"].shape[1] :]
    assert torch.allclose(given["features"], expected, rtol=1e-4, atol=1e-5)
    assert f'load_backbone("{run}")(cubes)' in (ROOT / page).read_text()
