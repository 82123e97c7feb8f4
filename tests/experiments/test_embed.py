"""`synthgen embed`: the features are the backbone's own, in the order of the cohort; nothing is replaced unasked."""

import csv

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from synthgen.cli.app import app
from synthgen.cubes.cohort.writer import CohortWriter
from synthgen.cubes.phantom.cohort import simulate_cohort
from synthgen.errors import ConfigError, MismatchError
from synthgen.experiments.embed import embed
from synthgen.ssl.backbone import load_backbone


@pytest.fixture(scope="module")
def eyes(tmp_path_factory):
    return simulate_cohort(tmp_path_factory.mktemp("eyes") / "eyes.h5", patients=40, size=64, seed=5, workers=1)


@pytest.mark.slow
def test_features_are_those_of_the_backbone(eyes, tmp_path):
    result = CliRunner().invoke(
        app, ["embed", "phantom64", "--data", str(eyes.path), "--out", str(tmp_path / "f.npz"), "--device", "cpu"]
    )
    assert result.exit_code == 0, result.output
    with np.load(tmp_path / "f.npz") as found:
        features, patients = found["features"], found["patient_id"]
    with torch.no_grad():
        expected = load_backbone("phantom64")(torch.from_numpy(eyes.cubes(np.arange(70, 80)))).numpy()
    np.testing.assert_allclose(features[70:80], expected, rtol=1e-4, atol=1e-5)
    assert features.shape == (80, expected.shape[1]) and features.dtype == np.float32
    assert list(patients) == list(eyes.patient_id)
    assert f"{features.shape[1]} features of 80 cubes" in result.stdout


@pytest.mark.slow
def test_a_table_has_a_row_for_each_cube(eyes, tmp_path):
    written = embed("phantom64", eyes.path, tmp_path / "f.csv", device="cpu")
    embed("phantom64", eyes.path, tmp_path / "f.npz", device="cpu")
    with written.path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 80 and [row["patient_id"] for row in rows] == list(eyes.patient_id)
    columns = [[float(row[f"feature_{k}"]) for k in range(written.features)] for row in rows]
    np.testing.assert_allclose(columns, np.load(tmp_path / "f.npz")["features"], rtol=1e-6)


def test_a_file_that_is_there_stays_without_overwrite(eyes, tmp_path):
    (tmp_path / "f.csv").write_text("mine")
    words = ["embed", "phantom64", "--data", str(eyes.path), "--out", str(tmp_path / "f.csv")]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2 and (tmp_path / "f.csv").read_text() == "mine"


def test_what_cannot_be_embedded_is_refused(eyes, tmp_path):
    with pytest.raises(ConfigError, match="another kind"):
        embed("phantom64", eyes.path, tmp_path / "f.xlsx")
    with CohortWriter(tmp_path / "other.h5", (500.0, 600.0), 64, 64) as writer:
        writer.append(np.full((2, 64, 64), 0.2, np.float32), "p")
    with pytest.raises(MismatchError, match="other bands"):
        embed("phantom64", tmp_path / "other.h5", tmp_path / "f.csv")
    assert not (tmp_path / "f.csv").exists()
