"""Backbones: what timm loads strictly, what comes back bit for bit, and what is refused."""

import json

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from sklearn.linear_model import RidgeCV
from sklearn.metrics import r2_score
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from synthgen.contracts import Provenance
from synthgen.cubes.cohort.covariates import covariates_of
from synthgen.cubes.reflectance import BandStatistics
from synthgen.errors import ConfigError, InputError
from synthgen.ssl.backbone import load_backbone, make_backbone, save_backbone, standardise
from synthgen.ssl.export import export_timm

NM = tuple(float(w) for w in range(450, 901, 30))
STATISTICS = BandStatistics(tuple(-3.0 + 0.1 * i for i in range(16)), tuple(0.5 + 0.01 * i for i in range(16)))


@pytest.fixture
def saved(tmp_path):
    model = make_backbone("resnet10t", 16, 32)
    provenance = Provenance.of("c" * 32, ["p1", "p2"])
    extra = {"method": "simclr", "steps": 10, "synthetic_ratio": 0.5, "gates": "uncertified", "generator_hash": "g"}
    return model, save_backbone(model, tmp_path / "b", "resnet10t", NM, 32, STATISTICS, provenance, extra)


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224"])
def test_timm_loads_the_file_strictly_and_agrees(tmp_path, name):
    model = make_backbone(name, 16, 64).eval()
    path = save_backbone(model, tmp_path, name, NM, 64, STATISTICS)
    plain = timm.create_model(name, in_chans=16, num_classes=0)
    plain.load_state_dict(load_file(path), strict=True)
    size = 224 if name.startswith("vit") else 64
    cube = torch.rand(1, 16, size, size)
    with torch.no_grad():
        torch.testing.assert_close(plain.eval()(cube), model(cube))


def test_round_trip_is_exact_and_disturbs_no_random_stream(saved):
    model, path = saved
    state = torch.get_rng_state()
    back = load_backbone(path.parent)
    assert torch.equal(state, torch.get_rng_state())
    cube = torch.rand(2, 16, 32, 32)
    with torch.no_grad():
        assert torch.equal(back(cube), model.eval()(standardise(cube, STATISTICS)))
    assert (back.name, back.wavelengths, back.size, back.statistics) == ("resnet10t", NM, 32, STATISTICS)
    assert back.provenance is not None and back.provenance.seen(["p2", "p3"]) == ["p2"]
    assert back.extra["gates"] == "uncertified" and load_backbone(path).extra == back.extra
    assert json.loads((path.parent / "backbone.json").read_text())["extra"]["method"] == "simclr"
    assert sorted(p.name for p in path.parent.iterdir()) == ["backbone.json", "backbone.safetensors"]


def test_saving_again_replaces_weights_and_description_together(saved):
    _, path = saved
    other = make_backbone("resnet10t", 16, 32)
    save_backbone(other, path.parent, "resnet10t", NM, 48, STATISTICS)
    back = load_backbone(path)
    assert back.size == 48 and back.extra == {}
    assert all(torch.equal(a, b) for a, b in zip(back.model.parameters(), other.parameters(), strict=True))


def test_missing_truncated_altered_and_foreign_files_are_refused(saved, tmp_path):
    _, path = saved
    with pytest.raises(InputError, match="no such"):
        load_backbone(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no such file"):
        load_backbone(tmp_path / "empty")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match="damaged"):
        load_backbone(path)
    path.write_bytes(data[:-4] + bytes(b ^ 0xFF for b in data[-4:]))
    with pytest.raises(InputError, match="differ from what was written"):
        load_backbone(path)
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(InputError, match="not a backbone"):
        load_backbone(path)


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("resnet81", 64, "did you mean 'resnet.*'"),
        ("hf-hub:somebody/something", 64, "no such backbone"),
        ("vit_tiny_patch16_224", 60, "does not take cubes of 60 x 60"),
    ],
)
def test_unknown_names_and_sizes_are_refused_in_one_line(name, size, message):
    with pytest.raises(ConfigError, match="(?i)" + message) as caught:
        make_backbone(name, 16, size)
    assert "\n" not in str(caught.value)


def test_a_transformer_takes_whole_and_local_crops():
    model = make_backbone("vit_tiny_patch16_224", 16, 64)
    assert model(torch.rand(2, 16, 64, 64)).shape == model(torch.rand(2, 16, 32, 32)).shape == (2, 192)


@pytest.mark.slow
def test_the_packaged_backbone_tells_melanin_of_eyes_it_has_not_seen(fresh_eyes, tmp_path):
    backbone = load_backbone("phantom64")
    assert backbone.provenance.seen(fresh_eyes.patients) == [] and backbone.reading == "stages"
    index = np.arange(0, len(fresh_eyes), 2)
    melanin = np.log(covariates_of(fresh_eyes)["melanin"].values[index])
    with torch.no_grad():
        features = backbone(torch.from_numpy(fresh_eyes.cubes(index))).numpy()
    predicted = cross_val_predict(make_pipeline(StandardScaler(), RidgeCV(np.logspace(0, 5, 11))), features, melanin)
    assert r2_score(melanin, predicted) > 0.8
    assert export_timm("phantom64", tmp_path / "eyes.safetensors").exists()
