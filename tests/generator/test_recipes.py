"""The recipes in `configs/` are valid, and every field of a training is a flag."""

from __future__ import annotations

from pathlib import Path

import pytest

from synthgen.command_line.command import Command
from synthgen.generator.training.autoencoder import AutoencoderTraining
from synthgen.generator.training.flow import DiffusionTraining
from synthgen.integration.recipe import GeneratorTraining

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize(("name", "compression"), [("phantom64", 4), ("retina224", 8), ("retina672", 8)])
def test_every_field_is_a_flag_and_recipes_are_valid(name: str, compression: int):
    flags = ["--data", "eyes.h5", "--autoencoder.base-grid", "0", "--diffusion.multipliers", "[1, 2]", "--cpu"]
    path = CONFIGS / f"{name}.yaml"
    config = Command(GeneratorTraining, "t").read(["--config", str(path), *flags])
    assert config.autoencoder.base_grid == 0 and config.autoencoder.compression == compression
    assert config.diffusion.multipliers == (1, 2)
    for part in (config.autoencoder, config.diffusion):
        assert part.data == "eyes.h5" and part.cpu and part.out.startswith(config.out)
    assert config.diffusion.autoencoder == config.autoencoder.out


def test_the_parts_of_the_packaged_recipe_go_on_from_one_another():
    part = lambda kind, name: Command(kind, "t").read(["--config", str(CONFIGS / f"phantom64{name}.yaml")])
    recipe = part(GeneratorTraining, "")
    longer, settled, more = (part(DiffusionTraining, name) for name in ("_longer", "_settled", "_more_eyes"))
    decoder = part(AutoencoderTraining, "_decoder")
    assert longer.start_from == f"{recipe.diffusion.out}/generator" and longer.autoencoder == recipe.autoencoder.out
    assert decoder.start_from == settled.start_from == f"{longer.out}/generator"
    assert settled.autoencoder == more.autoencoder == f"{decoder.out}/autoencoder"
    assert more.start_from == f"{settled.out}/generator"
    assert recipe.data == longer.data == decoder.data == settled.data != more.data
    shape = {"channels", "multipliers", "blocks", "attention_heads"}
    assert all(
        flow.model_dump(include=shape) == recipe.diffusion.model_dump(include=shape) for flow in (longer, settled, more)
    )
    coder = {"compression", "latent_channels", "codes", "levels", "base_grid", "encoder_channels", "decoder_channels"}
    assert decoder.keep_latents and decoder.model_dump(include=coder) == recipe.autoencoder.model_dump(include=coder)
