"""`synthgen gate`: what it rejects is not read any more, its exit code says how it went, and nothing passes for lack of
data."""

import json
import shutil

import numpy as np
import pytest
import torch

from synthgen.contracts import Status, Verdict
from synthgen.errors import MismatchError
from synthgen.integration import gate as module
from synthgen.integration.gate import gate_shards
from synthgen.integration.judging import repeats_check
from synthgen.quality.gates import COPY, Gates, load_gates
from synthgen.runs.files import read_json, write_json
from synthgen.shards.reader import ShardFolder
from synthgen.shards.writer import write_shards

CERTIFY = Gates.certify


@pytest.fixture(scope="module")
def fresh(toy_cohort_maker, tmp_path_factory):
    """Cubes of patients that nobody has seen."""
    return toy_cohort_maker(tmp_path_factory.mktemp("fresh") / "fresh.h5", patients=25, seed=8).cubes()


@pytest.fixture(scope="module")
def training(gates_cohort):
    split = json.loads(gates_cohort.path.with_name("real.h5.split.json").read_text())
    return gates_cohort.cubes(gates_cohort.index_of(split["train"]))


@pytest.fixture
def answer(monkeypatch):
    """Let the set gates answer what a test wants, to see what is made of it; the per-cube gates stay as they are."""

    def patch(*told):
        states = iter(told)

        def certify(self, cubes, proposed=None, rejected=0, generator_hash=None):
            found = CERTIFY(self, cubes, proposed, rejected, generator_hash)
            checks = tuple(c.model_copy(update={"status": Status.PASS}) for c in found.checks)
            last = checks[-1].model_copy(update={"status": next(states), "reason": "as told"})
            return found.model_copy(update={"checks": (*checks[:-1], last)})

        monkeypatch.setattr(Gates, "certify", certify)

    return patch


def rejected_in(folder):
    return {r["id"]: r["reason"] for s in read_json(folder / "manifest.json")["shards"] for r in s["rejected"]}


def ids_of(folder, **how):
    return sorted(i for _, ids in ShardFolder.open(folder, **how).cubes() for i in ids.tolist())


def test_copies_are_rejected_and_skipped(shard_folder_maker, gates_folder, gates_cohort, fresh, training, tmp_path):
    """Copies, flipped and darker ones, and broken cubes among fresh ones."""
    planted = [training[0], training[3][:, :, ::-1], 0.9 * training[5], np.zeros_like(training[0])]
    cubes = np.concatenate([fresh[:20], np.stack(planted), fresh[20:40]])
    folder = shard_folder_maker(tmp_path / "s", cubes, each=22)
    verdict, manifest, page = gate_shards(folder, gates_folder, real=gates_cohort.path)
    rejected = rejected_in(folder)
    assert {20, 21, 22, 23} <= set(rejected)
    assert [rejected[k] for k in (20, 21, 22)] == [COPY] * 3 and rejected[23] != COPY
    assert verdict.proposed == 44 and verdict.accepted == 44 - len(rejected)
    left = ids_of(folder, accepted_only=False)
    assert left == [i for i in range(44) if i not in rejected]
    assert len(ShardFolder.open(folder, accepted_only=False)) == len(left)
    assert len(ids_of(folder, accepted_only=False, skip_rejected=False)) == 44
    text = page.read_text()
    assert COPY in text and "http" not in text and "cube 21" in text and page.parent == folder
    record = read_json(folder / "verdict.json")
    assert record["status"] == str(manifest.verdict.status) and len(record["shards"]) == 2
    assert {"value", "interval", "limit", "n", "reason"} <= set(record["checks"][0])


def test_judging_again_gives_the_same(shard_folder_maker, gates_folder, fresh, tmp_path):
    folder = shard_folder_maker(tmp_path / "s", fresh[:30])
    gate_shards(folder, gates_folder)
    once = (folder / "manifest.json").read_text()
    tars = {p.name: p.read_bytes() for p in folder.glob("*.tar")}
    gate_shards(folder, gates_folder)
    assert (folder / "manifest.json").read_text() == once
    assert tars == {p.name: p.read_bytes() for p in folder.glob("*.tar")}


def test_tokens_are_judged_as_their_cubes(generator, generator_folder, gates_folder, synthgen, tmp_path):
    """An untrained generator: its cubes are no eyes."""
    write_shards(generator, tmp_path / "s", count=24, seed=1, steps=1, sampler="euler", shard_size=12)
    path = tmp_path / "s" / "manifest.json"
    write_json(path, {**read_json(path), "generator": str(generator_folder)})
    code, out, err = synthgen("gate", tmp_path / "s", "--gates-folder", gates_folder)
    assert code == 3 and err.splitlines()[-1].startswith("error: ") and "fail" in out
    found = ShardFolder.open(tmp_path / "s", accepted_only=False)
    judged = load_gates(gates_folder)(generator.decode(generator.sample(range(24), 1, 1, "euler"))).accept
    assert len(found) == int(judged.sum())
    assert sum(len(t) for t in found.tokens()) == len(found)


def test_exit_codes(shard_folder_maker, gates_folder, fresh, training, synthgen, answer, tmp_path):
    few = shard_folder_maker(tmp_path / "few", fresh[:6])
    code, _, err = synthgen("gate", few, "--gates-folder", gates_folder)
    assert code == 4 and "at least 20 are needed" in err
    copies = shard_folder_maker(tmp_path / "copies", training[:24])
    code, out, err = synthgen("gate", copies, "--gates-folder", gates_folder)
    assert code == 3 and "none of 24 cubes was admitted" in out + err
    answer(Status.PASS)
    good = shard_folder_maker(tmp_path / "good", fresh[:30])
    code, out, err = synthgen("gate", good, "--gates-folder", gates_folder, "--out", tmp_path / "said")
    assert code == 0 and err == "" and "1 of 1 shards may be used" in out
    assert sorted(p.name for p in (tmp_path / "said").iterdir()) == ["verdict.html", "verdict.json"]
    assert ids_of(good) == ids_of(good, accepted_only=False)


def test_a_shard_that_fails_is_left_out(shard_folder_maker, gates_folder, fresh, answer, tmp_path):
    folder = shard_folder_maker(tmp_path / "s", fresh[:48], each=24)
    answer(Status.PASS, Status.FAIL, Status.PASS)  # two shards, then the set
    verdict, manifest, _ = gate_shards(folder, gates_folder)
    assert verdict.status == Status.PASS
    assert [s.status for s in manifest.shards] == [Status.PASS, Status.FAIL]
    assert max(ids_of(folder)) < 24


def test_a_small_shard_stands_and_falls_with_the_set(shard_folder_maker, gates_folder, fresh, answer, tmp_path):
    folder = shard_folder_maker(tmp_path / "s", fresh[:28], each=24)
    answer(Status.PASS, Status.UNDECIDED, Status.PASS)
    _, manifest, _ = gate_shards(folder, gates_folder)
    assert [s.verdict.status for s in manifest.shards] == [Status.PASS, Status.UNDECIDED]
    assert [s.status for s in manifest.shards] == [Status.PASS, Status.PASS]
    answer(Status.PASS, Status.PASS, Status.UNDECIDED)
    _, manifest, _ = gate_shards(folder, gates_folder)
    assert [s.status for s in manifest.shards] == [Status.UNCERTIFIED, Status.UNCERTIFIED]


def test_the_same_cube_again_and_again_fails(shard_folder_maker, gates_folder, fresh, synthgen, tmp_path):
    """However few there are."""
    for count in (4, 24):
        folder = shard_folder_maker(tmp_path / str(count), fresh[:1].repeat(count, 0))
        code, _, err = synthgen("gate", folder, "--gates-folder", gates_folder)
        assert code == 3 and f"all {count} cubes are the same cube" in err and len(err.splitlines()) == 1


def test_repeats():
    states = [repeats_check(d, len(d)).status for d in ([], [b"a"], [b"a", b"b"], [b"a", b"a"])]
    assert states == [Status.UNDECIDED, Status.UNDECIDED, Status.PASS, Status.FAIL]
    assert repeats_check([], 5).status == Status.FAIL
    assert repeats_check([bytes([i % 5]) for i in range(60)], 60).status == Status.FAIL


def test_what_does_not_fit_is_said_in_one_line(
    shard_folder_maker, gates_folder, fresh, synthgen, gates_cohort, tmp_path
):
    good = shard_folder_maker(tmp_path / "good", fresh[:24])

    def refused(folder, *words, gates=gates_folder, real=None):
        before = (folder / "manifest.json").read_bytes()
        more = ["--real", real] if real else []
        code, _, err = synthgen("gate", folder, "--gates-folder", gates, *more)
        assert code == 2 and len(err.splitlines()) == 1, err
        assert all(w in err for w in words), err
        assert (folder / "manifest.json").read_bytes() == before and not (folder / "verdict.html").exists()

    altered = tmp_path / "altered"
    shutil.copytree(good, altered)
    data = bytearray((altered / "shard-00000.tar").read_bytes())
    data[3000] ^= 1
    (altered / "shard-00000.tar").write_bytes(bytes(data))
    refused(altered, "shard-00000.tar", "checksum")
    refused(good, "another size", "32x32", "64x64", gates="phantom64")
    refused(shard_folder_maker(tmp_path / "bands", fresh[:4], wavelengths_nm=tuple(range(500, 660, 10))), "other bands")
    refused(shard_folder_maker(tmp_path / "empty", fresh[:4], shards=()), "holds no cubes")
    refused(shard_folder_maker(tmp_path / "other", fresh[:4], generator_hash="0" * 32), "another generator")
    refused(good, "no such", gates=tmp_path / "nowhere")
    refused(good, "another size", gates="phantom64", real=gates_cohort.path)


def test_verdicts_of_others_are_refused_by_the_reader(
    shard_folder_maker, gates_folder, fresh, synthgen, tmp_path, generator
):
    foreign = Verdict(status=Status.PASS, generator_hash="1" * 32, gates_hash="2" * 32)
    folder = shard_folder_maker(tmp_path / "s", fresh[:24], verdict=foreign)
    with pytest.raises(MismatchError, match="another generator's cubes"):
        ids_of(folder)
    _, _, err = synthgen("gate", folder, "--gates-folder", gates_folder)
    assert "another generator's cubes; it is replaced" in err.splitlines()[0]
    own = foreign.model_copy(update={"generator_hash": generator.hash})
    folder = shard_folder_maker(tmp_path / "t", fresh[:24], verdict=own)
    with pytest.raises(MismatchError, match="given by other gates"):
        ids_of(folder, gates_hash=load_gates(gates_folder).hash)
    _, _, err = synthgen("gate", folder, "--gates-folder", gates_folder)
    assert "given by other gates; it is replaced" in err.splitlines()[0]


def test_cubes_lost_when_written_count_as_rejected(shard_folder_maker, gates_folder, fresh, tmp_path):
    """A generator that needed 300 proposals for 24 good cubes is not a good generator."""
    folder = shard_folder_maker(tmp_path / "s", fresh[:24], proposed=300)
    verdict, _, _ = gate_shards(folder, gates_folder)
    check = next(c for c in verdict.checks if c.name == "rejected")
    assert verdict.proposed == 300 and check.status == Status.FAIL and verdict.status == Status.FAIL


def test_large_sets_are_judged_by_a_sample(monkeypatch, shard_folder_maker, gates_folder, fresh, tmp_path):
    """Every cube meets the per-cube gates, and the set gates see an even choice of all shards."""
    monkeypatch.setattr(module, "most_cubes", lambda gates: 24)
    folder = shard_folder_maker(tmp_path / "s", fresh, each=10)
    verdict, manifest, _ = gate_shards(folder, gates_folder)
    assert verdict.proposed == 50
    assert all(s.verdict.proposed == 10 for s in manifest.shards)
    sizes = {c.name: c.n for c in verdict.checks}
    assert sizes["rejected"] == 50 and 20 <= sizes["frechet_ratio"] <= 24


def test_the_packaged_gates_stop_broken_cubes(shard_folder_maker, tmp_path):
    gates = load_gates("phantom64")
    noise = torch.rand(6, len(gates.wavelengths), 64, 64, generator=torch.Generator().manual_seed(0))
    verdict, manifest, _ = gate_shards(shard_folder_maker(tmp_path / "s", noise), "phantom64")
    assert verdict.status == Status.FAIL and len(manifest.shards[0].rejected) == 6
