"""Shards are whole, exact, resumable and checked; what is wrong with them is reported in one line."""

from __future__ import annotations

import errno
import json
import os
import signal
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
import webdataset

from synthgen.contracts import Admission, Provenance, Status, Verdict
from synthgen.errors import GateError, InputError, MismatchError, Stopped, StorageError, UndecidedError
from synthgen.generator.generator import Generator
from synthgen.runs import files
from synthgen.shards import packing
from synthgen.shards.manifest import manifest_of, stamped, write_manifest
from synthgen.shards.reader import ShardFolder
from synthgen.shards.storage import place_of
from synthgen.shards.writer import write_shards

SETTINGS = {"seed": 3, "steps": 1, "sampler": "euler", "shard_size": 6}


class EveryThird:
    """A gate that rejects one cube of three, by its content alone."""

    hash = "third"

    def __call__(self, cubes: torch.Tensor) -> Admission:
        accept = (cubes.double().sum((1, 2, 3)) * 1e6).long() % 3 != 0
        return Admission(accept, ("third",) * int((~accept).sum()))


def collect(folder: Path, accepted_only: bool = False):
    blocks = list(ShardFolder.open(folder, accepted_only).tokens())
    return blocks[0].cat(blocks)


def test_tokens_come_back_exactly(generator: Generator, tmp_path: Path) -> None:
    manifest = write_shards(generator, tmp_path / "s", count=15, **SETTINGS)
    assert [s.count for s in manifest.shards] == [6, 6, 3]
    assert [(s.first_id, s.last_id) for s in manifest.shards] == [(0, 5), (6, 11), (12, 14)]
    expected = generator.sample(range(15), 3, 1, "euler")
    found = collect(tmp_path / "s")
    assert torch.equal(found.indices, expected.indices) and torch.equal(found.base, expected.base)
    assert found.id.tolist() == list(range(15))
    decoded = torch.cat([c for c, _ in ShardFolder.open(tmp_path / "s", accepted_only=False).cubes(generator)])
    assert torch.equal(decoded, generator.decode(expected))


def test_bytes_do_not_depend_on_sittings(generator: Generator, tmp_path: Path) -> None:
    write_shards(generator, tmp_path / "one", count=17, gates=EveryThird(), **SETTINGS)
    for count in (6, 12, 17):  # three sittings that end at whole shards
        write_shards(generator, tmp_path / "many", count=count, gates=EveryThird(), **SETTINGS)
    for path in sorted((tmp_path / "one").iterdir()):
        assert path.read_bytes() == (tmp_path / "many" / path.name).read_bytes(), path.name


def test_rejected_ids_are_left_out_and_counted(generator: Generator, tmp_path: Path) -> None:
    manifest = write_shards(generator, tmp_path / "s", count=15, gates=EveryThird(), **SETTINGS)
    tokens = generator.sample(range(15), 3, 1, "euler")
    accept = EveryThird()(generator.decode(tokens)).accept
    assert 0 < int(accept.sum()) < 15
    assert collect(tmp_path / "s").id.tolist() == tokens.id[accept].tolist()
    assert manifest.proposed == 15


def test_an_interrupted_run_goes_on(generator: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the middle of the second shard keeps the first; the next call makes the rest, the same bytes."""
    write_shards(generator, tmp_path / "whole", count=15, **SETTINGS)
    decode, calls = Generator.sample, []

    def interrupted(self, ids, *args, **kwargs):
        calls.append(ids)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return decode(self, ids, *args, **kwargs)

    monkeypatch.setattr(Generator, "sample", interrupted)
    with pytest.raises(Stopped) as stopped:
        write_shards(generator, tmp_path / "s", count=15, **SETTINGS)
    assert stopped.value.exit_code == 130
    assert len(ShardFolder.open(tmp_path / "s").manifest.shards) == 1
    monkeypatch.undo()
    (tmp_path / "s" / ".shard-00001.tar.99.partial").write_bytes(b"left by a killed process")
    write_shards(generator, tmp_path / "s", count=15, **SETTINGS)
    assert sorted(p.name for p in (tmp_path / "s").iterdir()) == sorted(p.name for p in (tmp_path / "whole").iterdir())
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (tmp_path / "s" / path.name).read_bytes()


def test_other_settings_are_refused(generator: Generator, another: Generator, tmp_path: Path) -> None:
    write_shards(generator, tmp_path / "s", count=6, **SETTINGS)
    for change in ({"seed": 4}, {"steps": 2}, {"sampler": "heun"}, {"kind": "cubes"}, {"gates": EveryThird()}):
        with pytest.raises(MismatchError, match="another"):
            write_shards(generator, tmp_path / "s", **{"count": 6, **SETTINGS, **change})
    with pytest.raises(MismatchError, match="generator hash"):
        write_shards(another, tmp_path / "s", count=6, **SETTINGS)


def test_cubes_are_stored_to_a_sixteen_bit_step(generator: Generator, tmp_path: Path) -> None:
    write_shards(generator, tmp_path / "s", count=5, kind="cubes", **SETTINGS)
    folder = ShardFolder.open(tmp_path / "s", accepted_only=False)
    cubes, ids = next(folder.cubes())
    expected = generator.decode(generator.sample(range(5), 3, 1, "euler"))
    assert ids.tolist() == list(range(5)) and cubes.dtype == torch.float32
    assert (cubes - expected).abs().max() <= 0.51 / 65535
    with pytest.raises(MismatchError, match="cubes, not tokens"):
        folder.tokens()


def test_plain_webdataset_reads_both_kinds(generator: Generator, tmp_path: Path) -> None:
    write_shards(generator, tmp_path / "t", count=6, **SETTINGS)
    write_shards(generator, tmp_path / "c", count=6, kind="cubes", **SETTINGS)
    sample = next(iter(webdataset.WebDataset(str(tmp_path / "t" / "shard-00000.tar"), shardshuffle=False)))
    tokens = packing.unpack_block(json.loads(sample["json"]), sample["tokens"])
    assert torch.equal(tokens.indices, generator.sample(range(6), 3, 1, "euler").indices)
    decoded = webdataset.WebDataset(str(tmp_path / "c" / "shard-00000.tar"), shardshuffle=False).decode()
    cubes = [(s["json"]["id"], s["npy"] * s["json"]["scale"]) for s in decoded]
    assert [i for i, _ in cubes] == list(range(6))
    assert cubes[0][1].shape == (4, 16, 16) and cubes[0][1].min() >= 0 and cubes[0][1].max() <= 1


def test_tars_carry_no_time_and_no_user(generator: Generator, tmp_path: Path) -> None:
    write_shards(generator, tmp_path / "s", count=6, **SETTINGS)
    with tarfile.open(tmp_path / "s" / "shard-00000.tar") as tar:
        assert {(m.mtime, m.uid, m.gid, m.uname) for m in tar} == {(0, 0, 0, "synthgen")}


def test_only_passed_shards_are_read_by_default(generator: Generator, tmp_path: Path) -> None:
    write_shards(generator, tmp_path / "s", count=6, **SETTINGS)
    with pytest.raises(UndecidedError, match="none of the shards passed"):
        ShardFolder.open(tmp_path / "s").tokens()
    place = place_of(tmp_path / "s")
    write_manifest(place, stamped(manifest_of(place), Verdict(status=Status.FAIL)))
    with pytest.raises(GateError):
        ShardFolder.open(tmp_path / "s").tokens()
    write_manifest(place, stamped(manifest_of(place), Verdict(status=Status.PASS)))
    assert len(ShardFolder.open(tmp_path / "s")) == 6
    passed = write_shards(generator, tmp_path / "p", count=6, verdict=Verdict(status=Status.PASS), **SETTINGS)
    assert passed.shards[0].status == Status.PASS
    assert collect(tmp_path / "p", accepted_only=True).id.tolist() == list(range(6))


def test_altered_and_missing_shards_are_named(generator: Generator, tmp_path: Path) -> None:
    write_shards(generator, tmp_path / "s", count=12, **SETTINGS)
    second = tmp_path / "s" / "shard-00001.tar"
    data = bytearray(second.read_bytes())
    data[1500] ^= 1
    second.write_bytes(bytes(data))
    with pytest.raises(InputError, match=r"shard-00001\.tar.*checksum"):
        collect(tmp_path / "s")
    second.write_bytes(bytes(data[:900]))
    with pytest.raises(InputError, match=r"shard-00001\.tar.*cut short"):
        collect(tmp_path / "s")
    second.unlink()
    with pytest.raises(InputError, match=r"shard-00001\.tar.*missing"):
        ShardFolder.open(tmp_path / "s").verify()


def test_folders_that_are_not_shards(generator: Generator, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        ShardFolder.open(tmp_path / "nowhere")
    with pytest.raises(InputError, match="not a folder of shards"):
        ShardFolder.open(tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(InputError, match="manifest"):
        ShardFolder.open(tmp_path)
    (tmp_path / "manifest.json").unlink()
    (tmp_path / "foreign.tar").write_bytes(b"x")
    with pytest.raises(InputError, match="no manifest"):
        write_shards(generator, tmp_path, count=6, **SETTINGS)


def test_another_generator_cannot_decode(generator: Generator, another: Generator, tmp_path: Path) -> None:
    write_shards(generator, tmp_path / "s", count=6, **SETTINGS)
    folder = ShardFolder.open(tmp_path / "s", accepted_only=False)
    with pytest.raises(MismatchError, match="another generator"):
        folder.cubes(another)
    with pytest.raises(InputError, match="only their generator"):
        folder.cubes()


@pytest.mark.parametrize("kind", ["tokens", "cubes"])
def test_a_shard_of_another_generator_under_a_manifest_of_this_one(
    generator: Generator, another: Generator, tmp_path: Path, kind: str
) -> None:
    """A shard copied in, and the manifest's checksum made to fit: its cubes say themselves who made them."""
    for made_by, name in ((generator, "s"), (another, "other")):
        write_shards(made_by, tmp_path / name, count=12, kind=kind, **SETTINGS)
    second = tmp_path / "s" / "shard-00001.tar"
    second.write_bytes((tmp_path / "other" / "shard-00001.tar").read_bytes())
    manifests = [json.loads((tmp_path / name / "manifest.json").read_text()) for name in ("s", "other")]
    manifests[0]["shards"][1] = manifests[1]["shards"][1]
    (tmp_path / "s" / "manifest.json").write_text(json.dumps(manifests[0]))
    blocks = ShardFolder.open(tmp_path / "s", accepted_only=False).cubes(generator)
    with pytest.raises(MismatchError, match=r"shard-00001\.tar: the shard holds another generator's cubes"):
        list(blocks)


def test_a_full_disk_keeps_what_was_complete(
    generator: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shards(generator, tmp_path / "s", count=6, **SETTINGS)

    def full(path: Path) -> None:
        if path.name.startswith(".shard"):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "sync", full)
    with pytest.raises(StorageError, match="no space left"):
        write_shards(generator, tmp_path / "s", count=12, **SETTINGS)
    assert sorted(p.name for p in (tmp_path / "s").iterdir()) == ["manifest.json", "shard-00000.tar"]
    assert np.array_equal(collect(tmp_path / "s").id, np.arange(6))


@pytest.mark.slow
def test_a_disk_that_fills_up_on_the_way(generator: Generator, small_disk: Path, tmp_path: Path) -> None:
    """A real one, of 4 MB: what is complete is read, and with room again the same command ends as on any disk."""
    settings = {**SETTINGS, "shard_size": 100, "kind": "cubes", "dtype": "float16"}  # 2 KB a cube, and 1.5 of headers
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 3_200_000)
    with pytest.raises(StorageError, match="no space left"):
        write_shards(generator, small_disk / "s", count=500, **settings)
    folder = ShardFolder.open(small_disk / "s", accepted_only=False)
    folder.verify()
    ids = torch.cat([ids for _, ids in folder.cubes()]).tolist()
    assert 0 < len(ids) < 500 and ids == list(range(len(ids)))
    ballast.unlink()
    for where in (small_disk, tmp_path):
        write_shards(generator, where / "s", count=500, **settings)
    names = sorted(p.name for p in (tmp_path / "s").iterdir())
    assert names == sorted(p.name for p in (small_disk / "s").iterdir())
    assert all((tmp_path / "s" / n).read_bytes() == (small_disk / "s" / n).read_bytes() for n in names)


def test_gates_and_generator_are_in_the_provenance(generator: Generator, tmp_path: Path) -> None:
    gates = EveryThird()
    gates.provenance = Provenance.of("e" * 32, ["p9"])  # type: ignore[attr-defined]
    manifest = write_shards(generator, tmp_path / "s", count=6, gates=gates, **SETTINGS)
    assert manifest.provenance is not None
    assert manifest.provenance.seen(["p1", "p2", "p9"]) == ["p1", "p9"]
