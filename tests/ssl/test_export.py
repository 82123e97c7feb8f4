"""Exported backbones: timm and onnxruntime get the features of the original, and know how to standardise."""

import json

import pytest
import timm
import torch
from safetensors import safe_open

from synthgen.contracts import Provenance
from synthgen.cubes.reflectance import BandStatistics
from synthgen.errors import ConfigError, InputError
from synthgen.ssl.backbone import load_backbone, make_backbone, save_backbone
from synthgen.ssl.export import export_onnx, export_timm, standardisation

NM = tuple(float(w) for w in range(450, 901, 30))
STATISTICS = BandStatistics(tuple(-3.0 + 0.1 * i for i in range(16)), tuple(0.5 + 0.01 * i for i in range(16)))


def saved(folder, name, size):
    torch.manual_seed(0)
    model = make_backbone(name, 16, size, "stages")
    for module in model.modules():  # running statistics other than 0 and 1: they must travel too
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
    return save_backbone(model, folder, name, NM, size, STATISTICS, Provenance.of("c" * 32, ["p1"]))


@pytest.mark.parametrize(("name", "size"), [("test_resnet", 32), ("test_vit", 160)])
def test_timm_gets_equal_features_by_its_checkpoint_path(tmp_path, name, size):
    path = saved(tmp_path / "b", name, size)
    out = export_timm(path.parent, tmp_path / "eyes.safetensors")
    model = timm.create_model(name, in_chans=16, num_classes=0, checkpoint_path=str(out)).eval()
    how = json.loads(safe_open(out, "pt").metadata()["standardisation"])
    assert how["name"] == name and how["wavelengths_nm"] == list(NM)
    mean, std = (torch.tensor(how[key]).view(-1, 1, 1) for key in ("mean", "std"))
    cube = torch.rand(3, 16, size, size) * 0.4 - 0.01
    with torch.no_grad():
        features = model(((cube.clamp_min(0) + how["floor"]).log() - mean) / std)
        every = load_backbone(path)(cube)  # of all stages; the last layer's stand last
        torch.testing.assert_close(features, every[:, -features.shape[1] :], atol=1e-5, rtol=1e-5)


def test_an_exported_file_is_still_a_backbone_with_its_provenance(tmp_path):
    out = export_timm(saved(tmp_path / "b", "test_resnet", 32), tmp_path / "eyes.safetensors")
    back = load_backbone(out)
    assert back.provenance is not None and back.provenance.seen(["p1", "p2"]) == ["p1"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size"), [("test_resnet", 32), pytest.param("test_vit", 160, marks=pytest.mark.torture)]
)
def test_onnx_gives_equal_features_for_any_batch(tmp_path, name, size):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    path = saved(tmp_path / "b", name, size)
    out = export_onnx(path, tmp_path / "eyes.onnx")
    session = runtime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    stored = json.loads(session.get_modelmeta().custom_metadata_map["standardisation"])
    assert stored == standardisation(load_backbone(path))
    assert sorted(p.name for p in tmp_path.glob("eyes*")) == ["eyes.onnx"]  # weights inside, nothing beside
    for batch in (1, 5):
        cube = torch.rand(batch, 16, size, size) * 0.4 - 0.01  # a little below 0, as calibrated cubes are
        with torch.no_grad():
            expected = load_backbone(path)(cube)
        (features,) = session.run(None, {"reflectance": cube.numpy()})
        torch.testing.assert_close(torch.from_numpy(features), expected, atol=1e-4, rtol=1e-3)


def test_wrong_endings_and_wrong_files_are_refused(tmp_path):
    path = saved(tmp_path / "b", "test_resnet", 32)
    with pytest.raises(ConfigError, match=r"\.safetensors"):
        export_timm(path, tmp_path / "eyes.bin")
    with pytest.raises(ConfigError, match=r"\.onnx"):
        export_onnx(path, tmp_path / "eyes.safetensors")
    with pytest.raises(InputError, match="no such"):
        export_timm(tmp_path / "nowhere", tmp_path / "eyes.safetensors")
