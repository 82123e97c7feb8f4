"""The commands: what augmentations take, and a backbone for other programs."""

import json

import pytest
import yaml

from synthgen.cubes.reflectance import band_statistics
from synthgen.ssl.augment.pipeline import Augmentation
from synthgen.ssl.backbone import load_backbone, make_backbone, save_backbone


@pytest.fixture
def recipe(tmp_path):
    """Write a recipe with these augmentations and no others."""

    def write(**kept):
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump({"augmentation": Augmentation.off(**kept).model_dump(mode="json")}))
        return path

    return write


def test_no_augmentation_takes_nothing_and_passes(synthgen, cohort, recipe):
    words = ("augmentations", "--data", cohort.path, "--cubes", 8, "--views", 2, "--config", recipe(), "--json")
    code, out, err = synthgen(*words)
    found = json.loads(out)
    assert (code, err, found["too_much"], found["cubes"], found["region"]) == (0, "", [], 8, "middle")
    for rows in (found["everywhere"], found["regional"]):
        assert rows["all"]["kept"] == pytest.approx(1, abs=1e-3) and rows["all"]["shown"] == 1
        assert rows["all"]["information"] == pytest.approx(1, abs=1e-3)


def test_too_strong_a_jitter_fails_by_name(synthgen, cohort, recipe):
    strong = recipe(spectral_jitter=0.3, spectral_correlation_nm=60.0)
    code, out, err = synthgen("augmentations", "--data", cohort.path, "--cubes", 8, "--views", 2, "--config", strong)
    assert code == 3 and "spectral jitter" in err and "weaken" in err.lower()
    assert "separation left" in out


def test_a_recipe_without_the_table_is_refused(synthgen, cohort, tmp_path):
    (tmp_path / "other.yaml").write_text("steps: 3\n")
    code, _, err = synthgen("augmentations", "--data", cohort.path, "--config", tmp_path / "other.yaml")
    assert code == 2 and "no table 'augmentation'" in err


@pytest.mark.slow
def test_export_writes_and_says_how_to_load(synthgen, cohort, tmp_path):
    statistics = band_statistics(cohort.cubes())
    model = make_backbone("test_resnet", cohort.bands, cohort.height)
    save_backbone(model, tmp_path / "run", "test_resnet", cohort.wavelengths, cohort.height, statistics)
    out = tmp_path / "eyes.safetensors"
    code, message, _ = synthgen("export", tmp_path / "run", "--to", "timm", "--out", out)
    assert code == 0 and f"checkpoint_path='{out}'" in message and load_backbone(out).statistics == statistics
    code, _, err = synthgen("export", tmp_path / "run", "--to", "onnx", "--out", out)
    assert code == 2 and "expected a name ending in .onnx" in err
    assert synthgen("export", tmp_path / "run", "--to", "other", "--out", out)[0] == 2
