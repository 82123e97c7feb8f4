"""Shards written by several processes, in object stores, and read by other people's code."""

from __future__ import annotations

import inspect
import itertools
import json
import tarfile
import textwrap
import threading
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch

from synthgen.contracts import Admission
from synthgen.errors import InputError, MismatchError, StorageError
from synthgen.generator.generator import Generator
from synthgen.runs.keys import key
from synthgen.runs.locks import one_at_a_time
from synthgen.shards import packing
from synthgen.shards.manifest import write_manifest
from synthgen.shards.reader import ShardFolder
from synthgen.shards.resume import check_destination, fresh_manifest
from synthgen.shards.storage import Local, place_of
from synthgen.shards.writer import write_shards

SETTINGS = {"seed": 3, "steps": 1, "sampler": "euler", "shard_size": 6}


class EveryThird:
    """A gate that rejects one cube of three, by its content alone."""

    hash = "third"

    def __call__(self, cubes: torch.Tensor) -> Admission:
        accept = (cubes.double().sum((1, 2, 3)) * 1e6).long() % 3 != 0
        return Admission(accept, ("third",) * int((~accept).sum()))


def collect(folder):
    blocks = list(ShardFolder.open(folder, False).tokens())
    return blocks[0].cat(blocks)


def write_together(made_by: Generator, out, world: int, fails: int | None = None, **settings) -> None:
    """`write_shards` by `world` threads that stand for processes; number `fails` gives up after its first shard."""
    barrier, problems = threading.Barrier(world), []

    class GivesUp(EveryThird):
        calls = 0

        def __call__(self, cubes):
            GivesUp.calls += 1
            if GivesUp.calls > 2:
                barrier.abort()
                raise KeyboardInterrupt
            return super().__call__(cubes)

    def run(rank: int) -> None:
        gates = GivesUp() if rank == fails else EveryThird()
        try:
            write_shards(made_by, out, gates=gates, rank=rank, world=world, barrier=barrier.wait, **settings)
        except (threading.BrokenBarrierError, KeyboardInterrupt) as error:
            problems.append(error)

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(world)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert bool(problems) == (fails is not None)


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.mark.parametrize("world", [2, 4])
def test_any_number_of_processes_writes_the_same_bytes(generator: Generator, tmp_path: Path, world: int):
    write_shards(generator, tmp_path / "one", count=33, gates=EveryThird(), **SETTINGS)
    write_together(generator, tmp_path / "many", world, count=33, **SETTINGS)
    assert contents(tmp_path / "one") == contents(tmp_path / "many")


def test_what_some_processes_had_finished_is_taken_over(generator: Generator, tmp_path: Path):
    """One of three gives up in its second shard: each id comes once, and what was complete is not made anew."""
    write_together(generator, tmp_path / "s", 3, fails=1, count=48, **SETTINGS)
    complete = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "s").glob("*.tar")}
    assert 2 <= len(complete) < 8
    ShardFolder.open(tmp_path / "s").verify()
    write_together(generator, tmp_path / "s", 2, count=48, **SETTINGS)
    again = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "s").glob("*.tar")}
    sheets_kept = [name for name, time in complete.items() if again[name] == time]
    assert len(sheets_kept) >= len(complete) - 1  # but a tar whose process was cut off before its entry was written
    write_shards(generator, tmp_path / "one", count=48, gates=EveryThird(), **SETTINGS)
    assert contents(tmp_path / "one") == contents(tmp_path / "s")


class Killed(BaseException):
    """Stands for kill -9: nothing of ours handles it."""


class TakesNoneOf:
    """A gate that rejects every cube of some ids' range."""

    hash = "none"

    def __init__(self, generator: Generator, ids: range):
        self.sums = generator.decode(generator.sample(ids, 3, 1, "euler")).double().sum((1, 2, 3))

    def __call__(self, cubes: torch.Tensor) -> Admission:
        accept = ~torch.isin(cubes.double().sum((1, 2, 3)), self.sums)
        return Admission(accept, ("none",) * int((~accept).sum()))


def dies_at(patch: pytest.MonkeyPatch, number: int, after: bool) -> None:
    """From now on the `number`-th write or removal in a folder is the writer's last deed, done or not done."""
    count = itertools.count()

    def dying(change):
        def changed(*args):
            last = next(count) == number
            if last and not after:
                raise Killed
            change(*args)
            if last:
                raise Killed

        return changed

    for name in ("write", "remove"):
        patch.setattr(Local, name, dying(getattr(Local, name)))


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True])
def test_killed_before_and_after_every_change_of_the_folder(generator: Generator, tmp_path: Path, monkeypatch, after):
    """Whatever the last thing was that a killed writer did: the next one makes the bytes of an undisturbed run."""
    gates = TakesNoneOf(generator, range(6, 12))  # the second of four shards is empty
    write_shards(generator, tmp_path / "whole", count=24, gates=gates, **SETTINGS)
    whole, number, survived = contents(tmp_path / "whole"), 0, False
    assert sorted(whole) == ["manifest.json", *(f"shard-0000{k}.tar" for k in (0, 2, 3))]
    while not survived:
        folder = tmp_path / str(number)
        with monkeypatch.context() as patch:
            dies_at(patch, number, after)
            try:
                write_shards(generator, folder, count=24, gates=gates, **SETTINGS)
                survived = True
            except Killed:
                pass
        if (folder / "manifest.json").exists():
            ShardFolder.open(folder, accepted_only=False).verify()
        write_shards(generator, folder, count=24, gates=gates, **SETTINGS)
        assert contents(folder) == whole, f"killed at change {number}"
        number += 1
    assert number > 12, "a manifest at the start; of each range a tar, a sheet, the manifest, the sheet's removal"


def test_remains_of_another_plan_are_not_taken_over(generator: Generator, tmp_path: Path):
    write_together(generator, tmp_path / "s", 3, fails=0, count=48, **SETTINGS)
    other = {**SETTINGS, "shard_size": 10}
    write_shards(generator, tmp_path / "s", count=48, gates=EveryThird(), **other)
    ids = collect(tmp_path / "s").id.tolist()
    assert ids == sorted(set(ids)) and not list((tmp_path / "s").glob("shard-*.json"))
    tokens = generator.sample(range(48), 3, 1, "euler")
    assert ids == tokens.id[EveryThird()(generator.decode(tokens)).accept].tolist()


def test_two_commands_on_one_folder(generator: Generator, tmp_path: Path):
    (tmp_path / "s").mkdir()
    with one_at_a_time(tmp_path / "s"), pytest.raises(StorageError, match="another command is at work"):
        write_shards(generator, tmp_path / "s", count=6, **SETTINGS)


@pytest.mark.parametrize("remote", [False, True])
def test_what_a_place_will_refuse_can_be_asked_before(generator: Generator, tmp_path: Path, store: str, remote: bool):
    how = {"kind": "tokens", "dtype": "uint16", "seed": 3, "steps": 1, "sampler": "euler"}
    fresh = fresh_manifest(generator, **how)
    where = store if remote else tmp_path / "a" / "s"
    check_destination(where, fresh)
    assert not place_of(where).could_be() and not list(tmp_path.iterdir())
    write_shards(generator, where, count=6, **SETTINGS)
    check_destination(where, fresh)
    with pytest.raises(MismatchError, match="another seed"):
        check_destination(where, fresh_manifest(generator, **{**how, "seed": 4}))
    if not remote:
        (tmp_path / "file").write_text("in the way")
        with pytest.raises(StorageError, match="file"):
            check_destination(tmp_path / "file" / "s", fresh)


@pytest.fixture
def store(request):
    """A place of its own in the memory of this process."""
    return f"memory://{key(request.node.name)}/shards"


@pytest.mark.parametrize("kind", ["tokens", "cubes"])
def test_an_object_store_holds_what_a_folder_holds(generator: Generator, tmp_path: Path, store: str, kind):
    write_shards(generator, tmp_path / "s", count=15, kind=kind, **SETTINGS)
    write_shards(generator, store, count=7, kind=kind, **SETTINGS)
    manifest = write_shards(generator, store, count=15, kind=kind, **{**SETTINGS, "shard_size": 8})
    assert manifest.proposed == 15
    system = fsspec.filesystem("memory")
    assert sorted(f.rsplit("/", 1)[-1] for f in system.find(store.removeprefix("memory:/"))) == [
        "manifest.json", "shard-00000.tar", "shard-00001.tar", "shard-00002.tar"
    ]  # fmt: skip
    read = [torch.cat(column) for column in zip(*ShardFolder.open(store, False).cubes(generator), strict=True)]
    local = [
        torch.cat(column) for column in zip(*ShardFolder.open(tmp_path / "s", False).cubes(generator), strict=True)
    ]
    assert torch.equal(read[0], local[0]) and torch.equal(read[1], local[1])
    write_manifest(place_of(store), manifest)


def test_a_store_s_faults_are_reported_in_one_line(generator: Generator, store: str):
    with pytest.raises(InputError, match=f"{store}: no such folder"):
        ShardFolder.open(store)
    write_shards(generator, store, count=12, **SETTINGS)
    system = fsspec.filesystem("memory")
    second = f"{store.removeprefix('memory:/')}/shard-00001.tar"
    data = bytearray(system.cat_file(second))
    data[1500] ^= 1
    system.pipe_file(second, bytes(data))
    with pytest.raises(InputError, match=rf"{store}/shard-00001\.tar.*checksum"):
        collect(store)
    system.rm_file(second)
    with pytest.raises(InputError, match=r"shard-00001\.tar: a shard of the manifest is missing"):
        collect(store)
    for url, word in (("nowhere://x/y", "nowhere"), ("oss://bucket/x", "ossfs")):
        with pytest.raises(InputError, match=word) as caught:
            place_of(url)
        assert "\n" not in str(caught.value)


def test_half_floats_keep_three_digits_and_are_not_mixed_with_integers(generator: Generator, tmp_path: Path):
    write_shards(generator, tmp_path / "s", count=5, kind="cubes", dtype="float16", **SETTINGS)
    cubes, _ = next(ShardFolder.open(tmp_path / "s", accepted_only=False).cubes())
    expected = generator.decode(generator.sample(range(5), 3, 1, "euler"))
    assert torch.equal(cubes, expected.half().float())
    with pytest.raises(MismatchError, match="another dtype"):
        write_shards(generator, tmp_path / "s", count=9, kind="cubes", **SETTINGS)


def documented_unpack():
    """The function printed in the docstring of `packing`, compiled from there: what is documented is what is tested."""
    lines = inspect.getdoc(packing).split("\n\n    def unpack")[1].split("\n")
    space: dict = {"np": np}
    exec(textwrap.dedent("    def unpack" + "\n".join(lines)), space)
    return space["unpack"]


def test_the_documented_lines_read_a_plain_tar(generator: Generator, tmp_path: Path):
    write_shards(generator, tmp_path / "s", count=6, **SETTINGS)
    unpack, expected = documented_unpack(), generator.sample(range(6), 3, 1, "euler")
    with tarfile.open(tmp_path / "s" / "shard-00000.tar") as tar:
        header = json.loads(tar.extractfile("000000000000.json").read())
        ids, indices, base, scores = unpack(header, tar.extractfile("000000000000.tokens").read())
    assert ids.tolist() == list(range(6)) and np.array_equal(indices, expected.indices.numpy())
    assert np.array_equal(base, expected.base.numpy()) and scores.shape == (6, 0)


def test_the_lines_in_the_docs_are_those_tested():
    page = (Path(__file__).parents[2] / "docs" / "supply.md").read_text()
    printed = page.split("def unpack(header, data):")[1].split("```")[0].split("\n", 1)[1]
    documented = inspect.getdoc(packing).split("def unpack(header, data):")[1].split("\n", 1)[1]
    assert textwrap.dedent(printed).strip() == textwrap.dedent(documented).strip()


class Scoring(EveryThird):
    """Measures a sum and an index of each cube."""

    def __call__(self, cubes):
        found = super().__call__(cubes)
        scores = {"sum": cubes.sum((1, 2, 3)), "negative": -cubes.mean((1, 2, 3)), "row": torch.arange(len(cubes))}
        return Admission(found.accept, found.reasons, scores)


@pytest.mark.parametrize("kind", ["tokens", "cubes"])
def test_what_the_gates_measured_stays_with_each_cube(generator: Generator, tmp_path: Path, kind):
    write_shards(generator, tmp_path / "s", count=15, kind=kind, gates=Scoring(), **SETTINGS)
    tokens = generator.sample(range(15), 3, 1, "euler")
    cubes = generator.decode(tokens)
    accept = EveryThird()(cubes).accept
    found = dict(ShardFolder.open(tmp_path / "s", accepted_only=False).scores())
    assert list(found) == tokens.id[accept].tolist()
    for k, cube in zip(tokens.id[accept].tolist(), cubes[accept], strict=True):
        assert set(found[k]) == {"sum", "negative"}
        assert found[k]["sum"] == pytest.approx(float(cube.sum()), rel=1e-3)
        assert found[k]["negative"] == pytest.approx(-float(cube.mean()), rel=1e-3)
    if kind == "tokens":
        assert torch.equal(collect(tmp_path / "s").indices, tokens.indices[accept])
        with tarfile.open(tmp_path / "s" / "shard-00000.tar") as tar:
            header, data = (tar.extractfile(member).read() for member in tar.getmembers()[:2])
        header = json.loads(header)
        scores = documented_unpack()(header, data)[3]
        assert scores.shape == (header["count"], 2) and header["scores"] == ["negative", "sum"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tokens", "cubes"])
def test_hugging_face_datasets_reads_both_kinds(generator: Generator, tmp_path: Path, kind, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    write_shards(generator, tmp_path / "s", count=12, kind=kind, **SETTINGS)
    files = sorted(str(p) for p in (tmp_path / "s").glob("*.tar"))
    rows = list(datasets.load_dataset("webdataset", data_files={"train": files}, split="train", streaming=True))
    expected = generator.sample(range(12), 3, 1, "euler")
    if kind == "cubes":
        cubes = np.stack([np.asarray(row["npy"]) * row["json"]["scale"] for row in rows])
        assert np.abs(cubes - generator.decode(expected).numpy()).max() < 1e-4
        return
    blocks = [documented_unpack()(row["json"], row["tokens"]) for row in rows]
    assert np.array_equal(np.concatenate([b[1] for b in blocks]), expected.indices.numpy())
