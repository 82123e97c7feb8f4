"""A recipe trains both networks, goes on where it was stopped, and lets gates look on."""

from __future__ import annotations

from pathlib import Path

import pytest

from synthgen.config import load
from synthgen.cubes.phantom import simulate_cohort
from synthgen.errors import ConfigError
from synthgen.generator.generator import Generator
from synthgen.integration import recipe as room
from synthgen.integration.recipe import GeneratorTraining, train_generator
from synthgen.runs.folder import read_metrics

TINY = {
    "autoencoder": {
        "steps": 2, "batch_size": 2, "codes": 64, "encoder_channels": 8, "decoder_channels": 8, "max_channels": 16,
        "compression": 8,
    },
    "diffusion": {
        "steps": 2, "batch_size": 2, "channels": 8, "multipliers": [1, 2], "attention_heads": 2, "validate_every": 1,
        "gates_folder": "phantom64", "validation_cubes": 3,
    },
    "cpu": True,
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("recipe") / "eyes.h5"
    simulate_cohort(path, patients=8, size=64, seed=3, workers=1)
    return str(path)


def recipe(data: str, out: Path, **changes) -> GeneratorTraining:
    return load(GeneratorTraining, None, {**TINY, "data": data, "out": str(out), **changes})


def test_gates_look_on_and_their_verdicts_are_logged(data: str, tmp_path: Path):
    folder = train_generator(recipe(data, tmp_path / "run"))
    assert folder == tmp_path / "run" / "diffusion" / "generator"
    assert Generator.load(folder, "cpu").made["diffusion"]["rejected_share"] == 1.0  # two steps make no eyes
    lines = [m for m in read_metrics(tmp_path / "run" / "diffusion") if "rejected_share" in m]
    assert [m["step"] for m in lines] == [1, 2]
    assert all(m["rejected_share"] == 1.0 and 0.0 <= m["copy_share"] <= 1.0 for m in lines)
    for page in ("report.html", "autoencoder/report.html", "diffusion/report.html"):
        assert "finished" in (tmp_path / "run" / page).read_text(), page


def test_a_resumed_recipe_does_not_train_again_what_is_trained(data: str, tmp_path: Path, monkeypatch):
    first = train_generator(recipe(data, tmp_path / "run"))
    before = Generator.load(first, "cpu").hash
    monkeypatch.setattr(room, "train_autoencoder", lambda *_: pytest.fail("trained again"))
    assert Generator.load(train_generator(recipe(data, tmp_path / "run", resume=True)), "cpu").hash == before


def test_a_wrong_key_of_a_section_is_named(data: str, tmp_path: Path):
    with pytest.raises(ConfigError, match=r"autoencoder\.compresion"):
        recipe(data, tmp_path, **{"autoencoder.compresion": 4})
