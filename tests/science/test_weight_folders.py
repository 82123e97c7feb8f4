"""Hashed folders: what is written comes back; what is missing, damaged, altered or of another kind is refused."""

import json

import pytest
import torch

from synthgen.contracts import content_hash
from synthgen.errors import InputError
from synthgen.runs.files import read_json, write_json
from synthgen.science.weight_folders import FolderKind, named

KIND = FolderKind(
    "a toy folder", "toy.json", lambda about, weights: content_hash(json.dumps(about), *named(weights["net"])),
    "copy it again", kind="toy",
)  # fmt: skip
ABOUT = {"kind": "toy", "size": 3}


@pytest.fixture
def folder(tmp_path):
    KIND.write(tmp_path, ABOUT, {"net": {"w": torch.arange(6.0).view(2, 3).T, "b": torch.ones(2)}})
    return tmp_path


def test_what_is_written_comes_back(folder):
    for stems in (None, ("net",)):
        about, weights, digest = KIND.read(folder, stems)
        assert about == ABOUT and digest == KIND.hash_of({**ABOUT, "hash": "any"}, weights)
        assert torch.equal(weights["net"]["w"], torch.arange(6.0).view(2, 3).T)


def test_damaged_folders_are_refused(folder):
    with pytest.raises(InputError, match="no such folder"):
        KIND.read(folder / "absent")
    with pytest.raises(InputError, match=r"other\.safetensors: weights are missing.*Copy it again"):
        KIND.read(folder, ("net", "other"))
    file, sheet = folder / "net.safetensors", folder / "toy.json"
    whole, text = file.read_bytes(), sheet.read_text()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(InputError, match="do not match its hash"):
        KIND.read(folder)
    file.write_bytes(whole[:20])
    with pytest.raises(InputError, match="is damaged"):
        KIND.read(folder)
    file.write_bytes(whole)
    write_json(sheet, {**read_json(sheet), "size": 4})
    with pytest.raises(InputError, match="do not match its hash"):
        KIND.read(folder)
    write_json(sheet, {**read_json(sheet), "kind": "other"})
    with pytest.raises(InputError, match=r"does not describe a toy folder; found other; expected toy"):
        KIND.read(folder)
    sheet.write_text("[]")
    with pytest.raises(InputError, match="does not describe a toy folder; found list"):
        KIND.read(folder)
    sheet.unlink()
    with pytest.raises(InputError, match=r"is not a toy folder: it has no toy\.json"):
        KIND.read(folder)
    sheet.write_text(text)
    assert KIND.read(folder)
