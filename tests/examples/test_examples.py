"""The examples run, on a tiny phantom and on a few synthetic cubes, and learn something."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from synthgen.cubes.phantom.cohort import simulate_cohort
from synthgen.cubes.reflectance import band_statistics
from synthgen.ssl.backbone import make_backbone, save_backbone
from synthgen.ssl.export import export_timm

EXAMPLES = Path(__file__).parents[2] / "examples"


def example(name: str):
    """The `main` of an example."""
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"]


@pytest.mark.slow
def test_finetune_learns_the_labels_of_its_training_patients(tmp_path, monkeypatch, capsys):
    cohort = simulate_cohort(tmp_path / "eyes.h5", 8, 32, signature=0.4, workers=1)
    torch.manual_seed(0)
    model = make_backbone("test_resnet", 16, 32)
    path = save_backbone(model, tmp_path / "b", "test_resnet", cohort.wavelengths, 32, band_statistics(cohort.cubes()))
    weights = export_timm(path, tmp_path / "eyes.safetensors")
    monkeypatch.setattr(sys, "argv", ["finetune.py", str(weights), str(cohort.path)])
    left = runpy.run_path(str(EXAMPLES / "finetune.py"))
    assert left["loss"].item() < 0.4, "two even classes start at 0.69"
    assert "loss" in capsys.readouterr().out


def test_finetune_is_twelve_lines():
    """From the file's metadata to the last step of the optimiser."""
    _, code = (EXAMPLES / "finetune.py").read_text().split("\nhow =")
    assert len([line for line in code.splitlines() if line and not line.startswith("print")]) == 12


@pytest.mark.slow
@pytest.mark.parametrize("name", ["loop_pytorch", "loop_lightning"])
def test_a_spectral_code_is_learned_from_synthetic_cubes(name):
    if name == "loop_lightning":
        pytest.importorskip("pytorch_lightning")
    torch.manual_seed(0)
    options = {"enable_progress_bar": False, "accelerator": "cpu"} if name == "loop_lightning" else {}
    losses = example(name)(count=32, batch=2, **options)
    assert len(losses) == 16 and losses[-1] < 0.5 * losses[0]


@pytest.mark.slow
def test_lightlys_loop_takes_synthetic_cubes_and_keyed_views():
    torch.manual_seed(0)
    losses = example("loop_lightly")(count=32, batch=8, backbone="test_resnet")
    assert len(losses) == 4 and np.isfinite(losses).all()
