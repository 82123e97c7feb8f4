"""The recipes in `configs/` are valid, and every field of a training is a flag."""

from __future__ import annotations

from pathlib import Path

import pytest

from synthgen.config import from_command_line
from synthgen.generator.train_diffusion import DiffusionTraining


@pytest.mark.parametrize(("name", "compression"), [("phantom64", 4), ("retina224", 8), ("retina672", 8)])
def test_every_field_is_a_flag_and_recipes_are_valid(name: str, compression: int):
    from synthgen.integration.recipe import GeneratorTraining

    flags = ["--data", "eyes.h5", "--autoencoder.base-grid", "0", "--diffusion.multipliers", "[1, 2]", "--cpu"]
    path = Path(__file__).parents[2] / "configs" / f"{name}.yaml"
    config, _ = from_command_line(GeneratorTraining, ["--config", str(path), *flags], "t", "")
    assert config.autoencoder.base_grid == 0 and config.autoencoder.compression == compression
    assert config.diffusion.multipliers == (1, 2)
    for part in (config.autoencoder, config.diffusion):
        assert part.data == "eyes.h5" and part.cpu and part.out.startswith(config.out)
    assert config.diffusion.autoencoder == config.autoencoder.out


def test_the_second_recipe_goes_on_from_the_first():
    folder = Path(__file__).parents[2] / "configs"
    second, _ = from_command_line(DiffusionTraining, ["--config", str(folder / "phantom64_longer.yaml")], "t", "")
    from synthgen.integration.recipe import GeneratorTraining

    recipe, _ = from_command_line(GeneratorTraining, ["--config", str(folder / "phantom64.yaml")], "t", "")
    first = recipe.diffusion
    assert second.start_from == f"{first.out}/generator" and second.autoencoder == first.autoencoder
    assert second.data == first.data and second.base_weight > first.base_weight
    shape = {"channels", "multipliers", "blocks", "attention_heads"}
    assert second.model_dump(include=shape) == first.model_dump(include=shape)
