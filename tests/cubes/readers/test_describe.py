"""What `synthgen info` says of files and folders."""

import json

import h5py
import numpy as np
import pytest
import scipy.io

from synthgen.cubes.cohort.cohort import Cohort, CohortWriter
from synthgen.cubes.cohort.splits import load_or_make_split
from synthgen.cubes.readers.describe import describe, render
from synthgen.errors import InputError


def cohort(path):
    rng = np.random.default_rng(0)
    with CohortWriter(path, (450, 480), 4, 5, attributes={"made": "for a test"}) as out:
        for i in range(8):
            mask = {"disc": np.ones((4, 5), bool)}
            out.append(rng.random((2, 4, 5)), f"p{i // 2}", eye="LR"[i % 2], label=float(i > 3), masks=mask)
    return Cohort.open(path)


def test_a_cohort(tmp_path):
    eyes = cohort(tmp_path / "a.h5")
    split = load_or_make_split(eyes)
    found = describe(eyes.path)
    assert found["kind"] == "cohort" and (found["cubes"], found["bands"], found["patients"]) == (8, 2, 4)
    assert found["wavelengths_nm"] == [450, 480] and found["masks"] == ["disc"] and found["eyes"] == {"L": 4, "R": 4}
    assert found["labels"] == {"0": 4, "1": 4} and found["attributes"] == {"made": "for a test"}
    assert found["content_hash"] == eyes.content_hash and found["split"]["train"] == len(split.train)
    assert "problem" not in found
    json.dumps(found)
    text = render(found)
    assert eyes.content_hash in text and "450, 480" in text and "unknown" in text


def test_a_cohort_with_nan_is_described_with_its_problem(tmp_path):
    eyes = cohort(tmp_path / "a.h5")
    with h5py.File(eyes.path, "r+") as f:
        del f["cubes"]
        f["cubes"] = np.full((8, 2, 4, 5), np.nan, np.float32)
    assert "cube 0" in describe(eyes.path)["problem"]


def test_other_files(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((2, 3), np.float32))
    assert describe(tmp_path / "a.npy")["arrays"] == {"array": "float32 [2, 3]"}
    scipy.io.savemat(tmp_path / "a.mat", {"x": np.zeros((2, 3), np.uint16), "s": {"a": 1}})
    assert describe(tmp_path / "a.mat")["arrays"] == {"x": "uint16 [2, 3]", "s.a": "int64 [1, 1]"}
    with h5py.File(tmp_path / "a.h5", "w") as f:
        f["g/x"], f["t"], f.attrs["n"] = np.zeros(3, np.int16), "text", [1, 2]
    found = describe(tmp_path / "a.h5")
    assert found["arrays"] == {"g/x": "int16 [3]", "t": "text []"} and found["attributes"] == {"n": "int64 (2,)"}
    for path in (tmp_path / "a.npy", tmp_path / "a.mat", tmp_path / "a.h5"):
        assert str(path) in render(describe(path))


@pytest.mark.parametrize(
    ("name", "kind"), [("config.json", "generator"), ("gates.json", "gates"), ("manifest.json", "shards")]
)
def test_folders(tmp_path, name, kind):
    deep = {"a": [[1]], "b": 2}
    value = {"hash": "abc", "size": 64, "wavelengths_nm": list(range(100)), "deep": deep, "many": [{}, {}]}
    (tmp_path / name).write_text(json.dumps(value))
    found = describe(tmp_path)
    assert found["kind"] == f"{kind} folder" and found["hash"] == "abc" and found["size"] == 64
    assert found["wavelengths_nm"] == "100 values" and found["deep"] == {"a": "1 entries", "b": 2}
    assert name in render(found)


def test_what_is_nothing_known(tmp_path):
    (tmp_path / "a.txt").write_text("hello")
    for path in (tmp_path / "a.txt", tmp_path, tmp_path / "none"):
        with pytest.raises(InputError):
            describe(path)
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(InputError, match="table"):
        describe(tmp_path)


def test_a_format_without_a_description_of_its_own_is_described_by_what_its_reader_finds(tmp_path, monkeypatch):
    """A new reader needs no second entry here: without the branch of .npz, its file is described all the same."""
    path = tmp_path / "a.npz"
    np.savez(path, cube=np.full((4, 8, 9), 0.2, np.float32), wavelengths=[450.0, 500.0, 550.0, 600.0])
    whole = describe(path)
    monkeypatch.setattr("synthgen.cubes.readers.describe.sniff", lambda path: "new")
    found = describe(path)
    assert found["kind"] == "new file" and found["wavelengths_nm"] == whole["wavelengths_nm"]
    assert "[4, 8, 9]" in str(found["arrays"]["cube"])
