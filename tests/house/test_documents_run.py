"""Every command of the tutorial and of the README, run one after the other as they stand, on small data."""

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

spec = importlib.util.spec_from_file_location("documents", Path(__file__).with_name("documents.py"))
documents = importlib.util.module_from_spec(spec)
spec.loader.exec_module(documents)

ROOT = documents.ROOT
PACKAGED = ROOT / "synthgen" / "generator" / "packaged" / "phantom64"
# What makes each command short: laid over the words that stand in the document, which decide on the gates. A generator
# of three steps makes no cube that gates would let through, so the packaged one takes its place once it is trained.
SHORT = {
    "phantom": "--patients 24 --workers 1",
    "train-generator": "--autoencoder.steps 3 --diffusion.steps 3 --diffusion.channels 16 --diffusion.validate-every 2 "
    "--autoencoder.encoder-channels 8 --autoencoder.decoder-channels 8 --autoencoder.max-channels 16 --cpu",
    "calibrate": "--encoder-steps 3 --memorization-steps 3 --segmenter-steps 0 --resamples 40 --sizes [12]",
    "sample": "--count 60",
    "pretrain": "--steps 3 --batch-size 8 --certify-count 60 --backbone resnet10t",
    "doctor": "--no-measure",
}
MAY_END = {"gate": (0, 3, 4), "evaluate": (0, 3, 4)}

pytestmark = pytest.mark.torture


def words_of(line):
    """The words to run for a line of a document, and the name of the command."""
    if found := documents.LAUNCHED.fullmatch(line):
        assert found[1] == "pretrain.py", line
        return ["-m", "synthgen.integration.pretrain", *shlex.split(found[2])], "pretrain"
    program, name, *words = shlex.split(line)
    assert program == "synthgen", line
    return ["-m", "synthgen", name, *words], name


def run(lines, folder):
    """Run the lines in the folder; AssertionError with the end of the output for one that fails."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SYNTHGEN_QUIET": "1", "PYTHONSAFEPATH": "1"}
    for line in lines:
        words, name = words_of(line)
        done = subprocess.run(
            [sys.executable, *words, *shlex.split(SHORT.get(name, ""))],
            cwd=folder, env=environment, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode in MAY_END.get(name, (0,)), f"{line}\n{done.stdout[-1000:]}\n{done.stderr[-3000:]}"
        if name == "train-generator":
            made = folder / "runs" / "generator" / "diffusion" / "generator"
            shutil.rmtree(made)
            shutil.copytree(PACKAGED, made)


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    """The folder in which the whole tutorial was walked."""
    folder = tmp_path_factory.mktemp("tutorial")
    shutil.copytree(ROOT / "configs", folder / "configs")
    page = ROOT / "docs" / "tutorial.md"
    python = documents.blocks(page, "python")
    lines = list(documents.commands(page))
    first = next(i for i, line in enumerate(lines) if line.startswith("synthgen ingest"))
    run(lines[:first], folder)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", python[0]], cwd=folder, env=environment, check=True)
    run(lines[first:], folder)
    last = (
        python[-1].replace('"resnet18"', '"resnet10t"') + "assert features.shape[0] == 8 and features.isfinite().all()"
    )
    subprocess.run([sys.executable, "-c", last], cwd=folder, env=environment, check=True)
    return folder


def test_the_tutorial(walked):
    for name in ("cohort.h5.split.json", "cohort.png", "cohort.html", "runs/generator/report.html", "shards.html",
                 "shards/verdict.html", "runs/mine/report.html", "runs/mine/backbone.safetensors"):  # fmt: skip
        assert (walked / name).exists(), name


def test_the_five_commands_of_the_readme(walked):
    """On the tutorial's scans; its labelled eyes are there as well."""
    text = (ROOT / "README.md").read_text().split("## Your own cubes in five commands")[1]
    block = text.split("```bash\n")[1].split("```")[0].replace("\\\n", " ")
    lines = [shlex.join(shlex.split(line)) for line in block.strip().splitlines()]
    shutil.rmtree(walked / "runs")
    for old in walked.glob("cohort*"):
        old.unlink()
    run(lines, walked)
    assert (walked / "runs" / "mine" / "report.html").exists()


def test_the_python_of_the_readme(tmp_path):
    block = documents.blocks(ROOT / "README.md", "python")[-1].replace("count=256", "count=40")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", block], cwd=tmp_path, env=environment, check=True)
