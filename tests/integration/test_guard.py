"""A gradient that is not finite never reaches weights, whatever is trained."""

import ast
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from synthgen.config import build
from synthgen.errors import NonFiniteError
from synthgen.generator.training.autoencoder import AutoencoderTraining, train_autoencoder
from synthgen.generator.training.flow import DiffusionTraining, train_diffusion
from synthgen.integration.options import Pretraining
from synthgen.integration.pretrain import pretrain
from synthgen.quality.features.encoder import train_encoder
from synthgen.quality.per_cube.memorization import MemorizationDetector
from synthgen.quality.segmenter.segmenter import fine_tune, load_segmenter
from synthgen.quality.segmenter.training import SegmentTraining, train_segmenter
from synthgen.ssl.evaluation.rgb_baseline import rgb_network
from tests.integration.small_trainings import CODER, FLOW, PRETRAIN, SMALL, STEPS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def coder(cohort, tmp_path_factory):
    out = tmp_path_factory.mktemp("coder") / "a"
    return str(
        train_autoencoder(build(AutoencoderTraining, {"data": str(cohort.path), "out": str(out), **SMALL, **CODER}))
    )


def _pretraining(**more):
    def run(cohort, out, coder):
        pretrain(build(Pretraining, {"data": str(cohort.path), "out": str(out), **PRETRAIN, **more}))

    return run


def _autoencoder(cohort, out, coder):
    places = {"data": str(cohort.path), "out": str(out)}
    return train_autoencoder(build(AutoencoderTraining, places | SMALL | CODER))


def _flow(cohort, out, coder):
    places = {"data": str(cohort.path), "out": str(out), "autoencoder": coder}
    train_diffusion(build(DiffusionTraining, places | SMALL | FLOW))


def _encoder(cohort, out, coder):
    return train_encoder(torch.from_numpy(cohort.cubes(range(6))), steps=STEPS).tensors()


def _copies(cohort, out, coder):
    return MemorizationDetector.fit(torch.from_numpy(cohort.cubes(range(6))), steps=STEPS, seed=0).tensors()


def _tuned_segmenter(cohort, out, coder):
    masks = {"disc": np.random.default_rng(0).random((4, 32, 32)) > 0.7}
    return fine_tune(load_segmenter(), cohort.cubes(range(4)), masks, cohort.wavelengths, steps=STEPS).tensors()


def _segmenter(cohort, out, coder):
    few = {"eyes_64": 2, "eyes_224": 1, "batch_64": 2, "batch_224": 1, "held_out": 1}
    train_segmenter(SegmentTraining(out=str(out), steps=3, validate_every=1, **few))


def _three_bands(cohort, out, coder):
    labels, cubes = (np.arange(20) // 2) % 2, np.ascontiguousarray(cohort.cubes()[:, :3])
    found = rgb_network(cubes, labels, cohort.patient_id, steps=STEPS, folds=2, name="test_resnet")
    assert np.isfinite(found.auroc)


TRAININGS = {
    "pretraining": _pretraining(),
    "pretraining in parts": _pretraining(accumulate=2),
    "pretraining with a teacher": _pretraining(method="dino", dino={"local_crops": 0, "output_dim": 64}),
    "autoencoder": _autoencoder,
    "flow": _flow,
    "encoder": _encoder,
    "memorization detector": _copies,
    "segmenter, tuned": _tuned_segmenter,
    "segmenter": _segmenter,
    "network on three bands": _three_bands,
}


def poisoned(monkeypatch, wanted):
    """NaN in one gradient after every backward pass whose number (from 1) is `wanted`, whatever loop makes it."""
    count, real = itertools.count(1), torch.Tensor.backward

    def leaves(node, seen):
        while node is not None and node not in seen:
            seen.add(node)
            if hasattr(node, "variable"):
                yield node.variable
            for below, _ in node.next_functions[1:]:
                yield from leaves(below, seen)
            node = node.next_functions[0][0] if node.next_functions else None

    def backward(self, *args, **more):
        some = [leaf for leaf in leaves(self.grad_fn, set()) if isinstance(leaf, torch.nn.Parameter)]
        real(self, *args, **more)
        if some and wanted(next(count)):
            next(leaf for leaf in some if leaf.grad is not None).grad.fill_(float("nan"))

    monkeypatch.setattr(torch.Tensor, "backward", backward)


def finite(tensors):
    return all(torch.isfinite(t).all() for t in tensors.values() if t.is_floating_point())


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAININGS)
def test_one_bad_gradient_costs_one_step(cohort, coder, tmp_path, monkeypatch, capsys, name):
    poisoned(monkeypatch, lambda count: count == 2)
    made = TRAININGS[name](cohort, tmp_path / "r", coder)
    lines = capsys.readouterr().err.splitlines()
    skipped = [line for line in lines if line.startswith("warning") and "is left out" in line]
    assert len(skipped) == 1 and "gradient norm nan, fp32" in skipped[0], lines
    assert ("pretraining" in name) == any("1 of 4 steps were left out" in line for line in lines)
    files = list((tmp_path / "r").rglob("*.safetensors"))
    assert all(finite(load_file(file)) for file in files) and (not isinstance(made, dict) or finite(made))
    assert isinstance(made, dict) or files or name == "network on three bands"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pretraining", "autoencoder", "encoder"])
def test_gradients_that_stay_bad_end_the_training(cohort, coder, tmp_path, monkeypatch, name):
    poisoned(monkeypatch, lambda count: count >= 2)
    with pytest.raises(NonFiniteError, match=r"3 steps running, the last one step [345]") as caught:
        TRAININGS[name](cohort, tmp_path / "r", coder)
    message = str(caught.value)
    files = list((tmp_path / "r").rglob("*.safetensors"))
    assert all(finite(load_file(file)) for file in files) and "computed in fp32" in message
    kept = sorted((tmp_path / "r" / "checkpoints").glob("step_*")) if files else []
    expected = f"the checkpoint of step {int(kept[-1].name[5:])} is kept" if kept else ""
    assert expected in message and (kept or "checkpoint" not in message)
    assert not (tmp_path / "r" / "backbone.safetensors").exists()


def test_bf16_is_named_with_the_way_on(cohort, tmp_path, monkeypatch, capsys):
    """What oneDNN's kernels do on some processors; in float32 the run goes on from its checkpoint."""
    run = lambda **more: pretrain(
        build(Pretraining, {"data": str(cohort.path), "out": str(tmp_path), **PRETRAIN, **more})
    )
    AcceleratorState._reset_state(reset_partial_state=True)  # one process keeps its first precision otherwise
    with monkeypatch.context() as patch:
        poisoned(patch, lambda count: count >= 2)
        with pytest.raises(NonFiniteError) as caught:
            run(precision="bf16")
    AcceleratorState._reset_state(reset_partial_state=True)
    message = str(caught.value)
    assert "computed in bf16; the checkpoint of step 3 is kept. Go on with --resume --precision fp32" in message
    run(resume=True)
    assert "resumed with precision fp32 in place of bf16" in capsys.readouterr().err
    assert finite(load_file(tmp_path / "backbone.safetensors"))
    now = json.loads((tmp_path / "environment.json").read_text())
    assert (now["precision"], now["from_step"], now["changed"]) == ("no", 3, {"precision": ["bf16", "fp32"]})
    assert [(e["precision"], e["until_step"]) for e in now["earlier"]] == [("bf16", 3)]
    assert json.loads((tmp_path / "summary.json").read_text())["skipped_steps"] == 2


@pytest.mark.slow
def test_no_other_place_steps_an_optimiser_or_writes_weights():
    """A new training or a new file of weights cannot go around the guard and the check."""
    allowed = {"step": {"runs/guard.py"}, "save_file": {"runs/state.py"}, "dumps": {"runs/files.py"}}
    for path in sorted((ROOT / "synthgen").rglob("*.py")):
        where = path.relative_to(ROOT / "synthgen").as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            words = ast.unparse(node.func)
            kind = words.rsplit(".", 1)[-1]
            if kind == "step" and "optimi" not in words:
                continue  # a schedule's, a trainer's
            if kind == "dumps" and any(k.arg == "sort_keys" for k in node.keywords):
                continue  # text that is hashed, not written
            assert where in allowed.get(kind, {where}), f"{where}: {ast.unparse(node)[:80]}"
