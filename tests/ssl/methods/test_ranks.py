"""Two real processes with half a batch each equal one process with all of it, the heads' batch norm included."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).parents[3]
RANK = Path(__file__).with_name("rank_of_methods.py")


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path):
    """Loss and every gradient of a transformer; the loss alone of a ResNet, whose batch norm sees its own half."""
    script = {}
    exec(RANK.read_text().split("# one process of two")[0], script)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    ranks = [subprocess.Popen([sys.executable, str(RANK), str(r), str(tmp_path)], env=environment) for r in (0, 1)]
    try:
        expected = {}
        for name in script["METHODS"]:
            model = script["small"](name, gather=False)
            loss, _ = model(script["views"](name, slice(0, 6)))
            loss.backward()
            expected[name] = loss.detach(), script["flat"](model), model.per_sample
        features = torch.randn(2, 6, 128, generator=torch.Generator().manual_seed(3))
        alone = script["small"]("simclr", gather=False, backbone="test_resnet")
        resnet, _ = alone.objective(features[..., : alone.backbone.num_features])
        assert [process.wait(timeout=300) for process in ranks] == [0, 0]
    finally:
        for process in ranks:
            process.kill()
    one, two = (load_file(tmp_path / f"rank{rank}.safetensors") for rank in (0, 1))
    for name, (loss, gradient, per_sample) in expected.items():
        torch.testing.assert_close((one[f"{name} loss"] + two[f"{name} loss"]) / 2, loss, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(
            torch.cat([one[f"{name} per"], two[f"{name} per"]]), per_sample, atol=1e-5, rtol=1e-4
        )
        for way in ("whole", "parts"):
            torch.testing.assert_close(one[f"{name} {way}"], gradient, atol=1e-5, rtol=1e-3, msg=f"{name} {way}")
            assert torch.equal(one[f"{name} {way}"], two[f"{name} {way}"])
    torch.testing.assert_close((one["resnet"] + two["resnet"]) / 2, resnet.detach())
