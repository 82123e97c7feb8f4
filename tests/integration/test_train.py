"""A recipe trains both networks, goes on where it was stopped, and lets gates look on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from synthgen.config import load
from synthgen.contracts import Verdict
from synthgen.cubes.cohort.cohort import Cohort
from synthgen.cubes.cohort.writer import CohortWriter
from synthgen.cubes.phantom.cohort import simulate_cohort
from synthgen.errors import ConfigError, MismatchError
from synthgen.generator.generator import Generator
from synthgen.integration import recipe as room
from synthgen.integration.recipe import GeneratorTraining, train_generator
from synthgen.integration.train import (
    WatchedAutoencoder,
    WatchedDiffusion,
    structure_masks,
    train_autoencoder,
    train_diffusion,
)
from synthgen.runs.files import read_json
from synthgen.runs.folder import read_metrics

TINY = {
    "autoencoder": {
        "steps": 2, "batch_size": 2, "codes": 64, "encoder_channels": 8, "decoder_channels": 8, "max_channels": 16,
        "compression": 8, "structure_weight": 0.1, "gates_folder": "phantom64", "validate_every": 1,
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


@pytest.mark.slow
def test_gates_look_on_and_their_verdicts_are_logged(data: str, tmp_path: Path):
    folder = train_generator(recipe(data, tmp_path / "run"))
    assert folder == tmp_path / "run" / "diffusion" / "generator"
    assert Generator.load(folder, "cpu").made["diffusion"]["rejected_share"] == 1.0  # two steps make no eyes
    lines = [m for m in read_metrics(tmp_path / "run" / "diffusion") if "rejected_share" in m]
    assert [m["step"] for m in lines] == [1, 2]
    assert all(m["rejected_share"] == 1.0 and 0.0 <= m["copy_share"] <= 1.0 for m in lines)
    coder = [m for m in read_metrics(tmp_path / "run" / "autoencoder") if "gates_failed" in m]
    assert [m["step"] for m in coder] == [1, 2]
    assert all(m["gates_undecided_real"] > 0 for m in coder)  # two cubes are no set
    assert all(m["rejected_share"] > m["rejected_share_real"] for m in coder)  # two steps give back no eyes either
    assert {m["rejected_share_real"] for m in coder} == {coder[0]["rejected_share_real"]}  # judged once
    written = read_json(tmp_path / "run" / "autoencoder" / "reconstructions.json")
    assert {name: Verdict.model_validate(v).proposed for name, v in written.items()} == {"real": 2, "reconstructed": 2}
    for page in ("report.html", "autoencoder/report.html", "diffusion/report.html"):
        assert "finished" in (tmp_path / "run" / page).read_text(), page


@pytest.mark.slow
def test_a_resumed_recipe_does_not_train_again_what_is_trained(data: str, tmp_path: Path, monkeypatch):
    first = train_generator(recipe(data, tmp_path / "run"))
    before = Generator.load(first, "cpu").hash
    monkeypatch.setattr(room, "train_autoencoder", lambda *_: pytest.fail("trained again"))
    assert Generator.load(train_generator(recipe(data, tmp_path / "run", resume=True)), "cpu").hash == before


@pytest.mark.slow
def test_structures_are_the_cohorts_and_what_the_segmenter_finds(data: str, tmp_path: Path):
    cohort, index = Cohort.open(data), np.arange(6)
    own, found = structure_masks(cohort, index)
    assert all((own[name] == mask).all() for name, mask in cohort.masks(index).items())
    with CohortWriter(tmp_path / "bare.h5", tuple(cohort.wavelengths), 64, 64) as writer:
        for cube in cohort.cubes(index):
            writer.append(cube, f"patient {len(writer)}")
    (alone,) = structure_masks(Cohort.open(tmp_path / "bare.h5"), index)
    assert set(alone) == set(found) == {"artery", "vein", "disc", "fov"}
    for name, mask in found.items():
        assert (mask == alone[name]).all()
        both = 2 * (mask & own[name]).sum() / (mask.sum() + own[name].sum())
        assert both > {"fov": 0.95, "disc": 0.9, "vein": 0.5, "artery": 0.3}[name], f"{name}: Dice {both:.2f}"
    few = simulate_cohort(tmp_path / "two.h5", patients=2, size=64, wavelengths=(500.0, 600.0), workers=1)
    assert len(structure_masks(few, np.arange(2))) == 1  # the segmenter cannot read two bands; the masks are there


@pytest.mark.parametrize("kind", ["autoencoder", "diffusion"])
def test_gates_of_another_size_are_refused_before_anything_is_trained(tmp_path: Path, kind: str):
    simulate_cohort(tmp_path / "small.h5", patients=4, size=32, workers=1)
    places = {"data": str(tmp_path / "small.h5"), "out": str(tmp_path / "run"), "gates_folder": "phantom64"}
    if kind == "autoencoder":
        train, config = train_autoencoder, load(WatchedAutoencoder, None, {**TINY["autoencoder"], **places})
    else:
        places["autoencoder"] = "phantom64"
        train, config = train_diffusion, load(WatchedDiffusion, None, {**TINY["diffusion"], **places})
    with pytest.raises(MismatchError, match="another size than the data"):
        train(config)
    assert not (tmp_path / "run").exists()


def test_a_wrong_key_of_a_section_is_named(data: str, tmp_path: Path):
    with pytest.raises(ConfigError, match=r"autoencoder\.compresion"):
        recipe(data, tmp_path, **{"autoencoder.compresion": 4})
