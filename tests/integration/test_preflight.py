"""`--preflight`: what a training will take, measured on a few steps of it; nothing is left behind."""

import json

import pytest
import torch
from typer.testing import CliRunner

from synthgen.cli.app import app
from synthgen.config import build
from synthgen.errors import ConfigError, InputError
from synthgen.generator.training.autoencoder import AutoencoderTraining, train_autoencoder
from synthgen.integration.recipe import GeneratorTraining, train_generator
from synthgen.runs.preflight import STEPS, preflight, shortened
from tests.integration.small_trainings import CODER, FLOW, PRETRAIN, SMALL

LONG = {"steps": 1000, "log_every": 20, "checkpoint_every": 500}


@pytest.mark.slow
def test_an_autoencoder_and_nothing_is_left(cohort, tmp_path):
    config = build(AutoencoderTraining, {"data": str(cohort.path), "out": str(tmp_path / "a")} | SMALL | CODER | LONG)
    found = preflight(train_autoencoder, config)
    assert list(tmp_path.iterdir()) == []
    assert found["seconds_a_step"] > 0 and found["gigabytes"] > 0.1
    assert found["cubes_per_second"] == pytest.approx(4 / found["seconds_a_step"], rel=0.05)
    steps = (1000 * found["seconds_a_step"]) / 60
    assert steps - 0.1 <= found["minutes"] <= steps + found["minutes_before"] + 10 * found["minutes_a_validation"] + 1
    limited = preflight(train_autoencoder, config.model_copy(update={"minutes": 0.1}))
    assert limited["minutes"] <= limited["minutes_before"] + 0.2


@pytest.mark.slow
def test_a_recipe_has_a_table_for_each_training(cohort, tmp_path):
    parts = {"autoencoder": SMALL | CODER | LONG, "diffusion": SMALL | FLOW | LONG}
    out = tmp_path / "recipe"
    config = build(GeneratorTraining, {"data": str(cohort.path), "out": str(out), **parts})
    short = shortened(config, str(out), str(tmp_path / "other"))
    assert short.autoencoder.out == str(tmp_path / "other" / "autoencoder") and short.autoencoder.steps == STEPS
    assert short.diffusion.autoencoder == str(tmp_path / "other" / "autoencoder")
    assert short.data == config.data
    inside = config.model_copy(update={"out": str(cohort.path.parent)})  # the cohort lies in --out
    assert shortened(inside, inside.out, str(tmp_path / "other")).data == config.data
    found = preflight(train_generator, config)
    assert set(found) == {"autoencoder", "diffusion", "gigabytes"} and list(tmp_path.iterdir()) == []
    assert found["diffusion"]["minutes_before"] < 1 and found["diffusion"]["seconds_a_step"] > 0


def test_the_command_prints_it_and_a_run_that_is_there_stays_as_it_was(cohort, tmp_path):
    out = tmp_path / "run"
    words = ["pretrain", "--data", str(cohort.path), "--out", str(out), "--preflight"]
    for name, value in (PRETRAIN | LONG).items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    (out / "checkpoints").mkdir(parents=True)
    (out / "mine").write_text("mine")
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["minutes"] > 0
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["checkpoints", "mine", "run"]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory. Tried"), MemoryError("no")])
def test_what_does_not_fit_is_one_line(cohort, tmp_path, error):
    config = build(AutoencoderTraining, {"data": str(cohort.path), "out": str(tmp_path / "a")} | SMALL | CODER)

    def train(config):
        raise error

    with pytest.raises(ConfigError, match="does not fit into memory"):
        preflight(train, config)


def test_a_folder_that_is_in_the_way_is_never_taken_away(cohort, tmp_path):
    config = build(AutoencoderTraining, {"data": str(cohort.path), "out": str(tmp_path / "a")} | SMALL | CODER)
    (tmp_path / "a.preflight").mkdir()
    (tmp_path / "a.preflight" / "mine").write_text("mine")
    with pytest.raises(ConfigError, match="is there already"):
        preflight(train_autoencoder, config)
    assert (tmp_path / "a.preflight" / "mine").read_text() == "mine"


def test_what_cannot_work_is_found(tmp_path):
    config = build(AutoencoderTraining, {"data": str(tmp_path / "no.h5"), "out": str(tmp_path / "a")} | SMALL)
    with pytest.raises(InputError):
        preflight(train_autoencoder, config)
    assert list(tmp_path.iterdir()) == []
