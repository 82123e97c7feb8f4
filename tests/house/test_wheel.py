"""The wheel: it holds one top-level name and everything that the package reads, and works away from the repository."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built offline by the setuptools of this environment, from a copy: a build leaves files in its source."""
    if not (ROOT / "pyproject.toml").exists():
        pytest.skip("not a source tree")
    pytest.importorskip("setuptools")
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for path in (ROOT / "synthgen").rglob("*"):
        if path.is_file() and path.suffix != ".pyc":
            target = source / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, target) if path.stat().st_dev == source.stat().st_dev else shutil.copy(path, target)
    code = f"import setuptools.build_meta as b; print(b.build_wheel({str(out)!r}))"
    subprocess.run([sys.executable, "-c", code], cwd=source, check=True, capture_output=True)
    (found,) = out.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The wheel's contents, alone."""
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def run(installed, where, *words, **more):
    environment = {**os.environ, "PYTHONPATH": str(installed), "PYTHONSAFEPATH": "1", **more}
    return subprocess.run([sys.executable, *words], cwd=where, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_one_top_level_name_and_every_file(installed):
    tops = {p.name for p in installed.iterdir() if not p.name.endswith(".dist-info")}
    assert tops == {"synthgen"} and not tops & set(sys.stdlib_module_names)
    here = {p.relative_to(ROOT) for p in (ROOT / "synthgen").rglob("*") if p.is_file() and p.suffix != ".pyc"}
    there = {p.relative_to(installed) for p in (installed / "synthgen").rglob("*") if p.is_file()}
    assert {str(p) for p in here - there} == set(), "files that the wheel leaves out"


@pytest.mark.slow
def test_it_answers_outside_of_the_repository(installed, tmp_path):
    code = (
        "import synthgen.cli.app, ssl; print(synthgen.cli.app.__file__); print(ssl.__file__); synthgen.cli.app.main()"
    )
    done = run(installed, tmp_path, "-c", code, "--help")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith(str(installed)) and "synthgen" not in lines[1] and "pretrain" in done.stdout


@pytest.mark.torture
def test_the_demo_runs_from_the_wheel(installed, tmp_path):
    words = ("-m", "synthgen", "demo", "--out", "demo", "--training-seconds", "10", "--steps", "10")
    done = run(installed, tmp_path, *words)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((tmp_path / "demo" / "demo.json").read_text())
    assert (tmp_path / found["backbone"]).exists() and (tmp_path / "demo" / "report.html").exists()
    done = run(installed, tmp_path, "-m", "synthgen", "view", "demo/shards", "--out", "x.html", "--gates", "phantom64")
    assert done.returncode == 0 and (tmp_path / "x.html").exists(), done.stderr
