"""`synthgen gate`: what it rejects is not read any more, its exit code says how it went, and nothing passes for lack of
data."""

import os
import shutil
import signal

import numpy as np
import pytest
import torch

from synthgen.contracts import Status, Verdict
from synthgen.cubes.cohort.splits import load_or_make_split
from synthgen.errors import MismatchError
from synthgen.integration.judging import judge
from synthgen.integration.judging import shards as module
from synthgen.integration.judging.shards import gate_shards
from synthgen.quality import gates as quality_gates
from synthgen.quality.gates import Gates, load_gates
from synthgen.quality.per_cube.acceptance import COPY
from synthgen.runs.files import read_json, write_json
from synthgen.runs.locks import one_at_a_time
from synthgen.shards.reader import ShardFolder
from synthgen.shards.writer import write_shards

pytestmark = pytest.mark.slow  # gates judge whole folders in most of them

CERTIFY = Gates.certify


@pytest.fixture(scope="module")
def fresh(fresh_eyes):
    """Cubes of patients that nobody has seen."""
    return fresh_eyes.cubes()


@pytest.fixture(autouse=True)
def _no_figures(request, monkeypatch):
    """Drawing a page and comparing many images takes seconds; the tests that look at the page ask for it."""
    monkeypatch.setattr(quality_gates, "IMAGES", 12)
    if "real_page" not in request.fixturenames:
        monkeypatch.setattr(module, "content_of", lambda *_, **__: None)
        monkeypatch.setattr(module, "render", lambda _: "page")


@pytest.fixture
def real_page():
    """For a test that looks at the page."""


@pytest.fixture(scope="module")
def training(eyes):
    return eyes.cubes(eyes.index_of(load_or_make_split(eyes).train))


@pytest.fixture
def answer(monkeypatch):
    """Let the set gates answer what a test wants, to see what is made of it; the per-cube gates stay as they are."""

    def patch(*given):
        states = iter(given)

        def certify(self, *found, **how):
            found = CERTIFY(self, *found, **how)
            checks = tuple(c.model_copy(update={"status": Status.PASS}) for c in found.checks)
            first = checks[0].model_copy(update={"status": next(states), "reason": "as scripted"})
            return found.model_copy(update={"checks": (first, *checks[1:])})

        monkeypatch.setattr(Gates, "certify", certify)

    return patch


def rejected_in(folder):
    return {r["id"]: r["reason"] for s in read_json(folder / "manifest.json")["shards"] for r in s["rejected"]}


def ids_of(folder, **how):
    return sorted(i for _, ids in ShardFolder.open(folder, **how).cubes() for i in ids.tolist())


def test_copies_are_rejected_and_skipped(real_page, shard_folder_maker, small_gates, eyes, fresh, training, tmp_path):
    """Copies, flipped and darker ones, and broken cubes among fresh ones."""
    planted = [training[0], training[3][:, :, ::-1], 0.9 * training[5], np.zeros_like(training[0])]
    cubes = np.concatenate([fresh[:20], np.stack(planted), fresh[20:40]])
    folder = shard_folder_maker(tmp_path / "s", cubes, each=22)
    verdict, manifest, page = gate_shards(folder, small_gates, real=eyes.path)
    rejected = rejected_in(folder)
    assert {20, 21, 22, 23} <= set(rejected)
    assert [rejected[k] for k in (20, 21, 22)] == [COPY] * 3 and rejected[23] != COPY
    assert verdict.proposed == 44 and verdict.accepted == 44 - len(rejected)
    left = ids_of(folder, accepted_only=False)
    assert left == [i for i in range(44) if i not in rejected]
    assert len(ShardFolder.open(folder, accepted_only=False)) == len(left)
    assert len(ids_of(folder, accepted_only=False, skip_rejected=False)) == 44
    text = page.read_text()
    assert COPY in text and "http:" not in text and "https:" not in text and "cube 21" in text and page.parent == folder
    record = read_json(folder / "verdict.json")
    assert record["status"] == str(manifest.verdict.status) and len(record["shards"]) == 2
    assert {"value", "interval", "limit", "n", "reason"} <= set(record["checks"][0])


def test_judging_again_gives_the_same(shard_folder_maker, small_gates, fresh, tmp_path):
    folder = shard_folder_maker(tmp_path / "s", fresh[:30])
    gate_shards(folder, small_gates)
    once = (folder / "manifest.json").read_text()
    tars = {p.name: p.read_bytes() for p in folder.glob("*.tar")}
    gate_shards(folder, small_gates)
    assert (folder / "manifest.json").read_text() == once
    assert tars == {p.name: p.read_bytes() for p in folder.glob("*.tar")}


def test_tokens_are_judged_as_their_cubes(eye_generator, small_gates, synthgen, tmp_path):
    """An untrained generator: its cubes are no eyes."""
    eye_generator.save(tmp_path / "g")
    write_shards(eye_generator, tmp_path / "s", count=24, seed=1, steps=1, sampler="euler", shard_size=12)
    path = tmp_path / "s" / "manifest.json"
    write_json(path, {**read_json(path), "generator": str(tmp_path / "g")})
    code, out, err = synthgen("gate", tmp_path / "s", "--gates", small_gates)
    assert code == 3 and err.splitlines()[-1].startswith("error: ") and "fail" in out
    found = ShardFolder.open(tmp_path / "s", accepted_only=False)
    judged = load_gates(small_gates)(eye_generator.decode(eye_generator.sample(range(24), 1, 1, "euler"))).accept
    assert len(found) == int(judged.sum())
    assert sum(len(t) for t in found.tokens()) == len(found)


def test_exit_codes(shard_folder_maker, small_gates, fresh, training, synthgen, answer, tmp_path):
    few = shard_folder_maker(tmp_path / "few", fresh[:6])
    code, _, err = synthgen("gate", few, "--gates", small_gates)
    assert code == 4 and "125 proposals are needed" in err
    copies = shard_folder_maker(tmp_path / "copies", training[:24])
    code, out, err = synthgen("gate", copies, "--gates-folder", small_gates)
    assert code == 3 and "none of 24 cubes was admitted" in out + err
    answer(Status.PASS)
    good = shard_folder_maker(tmp_path / "good", fresh[:50])
    code, out, err = synthgen("gate", good, "--gates", small_gates, "--out", tmp_path / "verdict")
    assert code == 0 and err == "" and "1 of 1 shards may be used" in out
    assert sorted(p.name for p in (tmp_path / "verdict").iterdir()) == ["verdict.html", "verdict.json"]
    assert ids_of(good) == ids_of(good, accepted_only=False)


def test_unseen_eyes_do_not_fail_and_changed_ones_do(shard_folder_maker, small_gates, fresh, tmp_path):
    """No answer is given here: fresh eyes, and the same with the bands in another order."""
    verdict, manifest, _ = gate_shards(shard_folder_maker(tmp_path / "s", fresh), small_gates)
    assert verdict.status != Status.FAIL, verdict.reason
    assert manifest.shards[0].verdict == verdict
    names = {c.name for c in verdict.checks}
    assert {"memorization", "acceptance", "repeats", "encoder_kid", "spectra_frechet", "ms_ssim_3_difference"} <= names
    swapped = fresh.copy()
    swapped[:, [2, 9]] = fresh[:, [9, 2]]
    verdict, _, _ = gate_shards(shard_folder_maker(tmp_path / "t", swapped), small_gates)
    assert verdict.status == Status.FAIL


def test_a_shard_that_fails_is_left_out(shard_folder_maker, small_gates, fresh, answer, tmp_path):
    folder = shard_folder_maker(tmp_path / "s", fresh[:80], each=40)
    answer(Status.PASS, Status.FAIL, Status.PASS)  # two shards, then the set
    verdict, manifest, _ = gate_shards(folder, small_gates)
    assert verdict.status == Status.PASS
    assert [s.status for s in manifest.shards] == [Status.PASS, Status.FAIL]
    assert max(ids_of(folder)) < 40


def test_a_small_shard_stands_and_falls_with_the_set(shard_folder_maker, small_gates, fresh, answer, tmp_path):
    folder = shard_folder_maker(tmp_path / "s", fresh[:48], each=40)
    answer(Status.PASS, Status.UNDECIDED, Status.PASS)
    _, manifest, _ = gate_shards(folder, small_gates)
    assert [s.verdict.status for s in manifest.shards] == [Status.PASS, Status.UNDECIDED]
    assert [s.status for s in manifest.shards] == [Status.PASS, Status.PASS]
    answer(Status.PASS, Status.PASS, Status.UNDECIDED)
    _, manifest, _ = gate_shards(folder, small_gates)
    assert [s.status for s in manifest.shards] == [Status.UNCERTIFIED, Status.UNCERTIFIED]


def test_the_same_cube_again_and_again_fails(shard_folder_maker, small_gates, fresh, synthgen, tmp_path):
    """However few there are."""
    sound = int(load_gates(small_gates)(torch.from_numpy(fresh[:9])).accept.int().argmax())
    for count in (4, 24):
        folder = shard_folder_maker(tmp_path / str(count), fresh[sound : sound + 1].repeat(count, 0))
        code, _, err = synthgen("gate", folder, "--gates-folder", small_gates)
        assert code == 3 and f"all {count} cubes are the same cube" in err and len(err.splitlines()) == 1


def test_many_shards_share_the_error_rate(shard_folder_maker, small_gates, fresh, answer, monkeypatch, tmp_path):
    """Each at 0.05 over their number, without images; the set at 0.05, with them, from the same rows."""
    answer(*[Status.PASS] * 6)
    given, seen = Gates.certify, []

    def listen(self, rows, acceptance, similarity, *found, alpha=0.05, **how):
        seen.append((len(rows), alpha, similarity is not None))
        return given(self, rows, acceptance, similarity, *found, alpha=alpha, **how)

    monkeypatch.setattr(Gates, "certify", listen)
    judged = []
    monkeypatch.setattr(Gates, "__call__", lambda self, x, call=Gates.__call__: judged.append(len(x)) or call(self, x))
    folder = shard_folder_maker(tmp_path / "s", fresh[:50], each=10)
    _, manifest, _ = gate_shards(folder, small_gates)
    assert [(alpha, images) for _, alpha, images in seen] == [(0.05 / 5, False)] * 5 + [(0.05, True)]
    assert seen[-1][0] == sum(n for n, _, _ in seen[:-1]) == manifest.verdict.accepted
    assert sum(judged) == 50, "a cube was looked at twice"


def test_what_does_not_fit_is_reported_in_one_line(
    shard_folder_maker, small_gates, fresh, synthgen, eyes, cohort, tmp_path
):
    good = shard_folder_maker(tmp_path / "good", fresh[:24])

    def refused(folder, *words, gates=small_gates, real=None):
        before = (folder / "manifest.json").read_bytes()
        more = ["--real", real] if real else []
        code, _, err = synthgen("gate", folder, "--gates", gates, *more)
        assert code == 2 and len(err.splitlines()) == 1, err
        assert all(w in err for w in words), err
        assert (folder / "manifest.json").read_bytes() == before and not (folder / "verdict.html").exists()

    altered = tmp_path / "altered"
    shutil.copytree(good, altered)
    data = bytearray((altered / "shard-00000.tar").read_bytes())
    data[3000] ^= 1
    (altered / "shard-00000.tar").write_bytes(bytes(data))
    refused(altered, "shard-00000.tar", "checksum")
    refused(shard_folder_maker(tmp_path / "small", fresh[:4, :, :48, :48]), "another size", "48x48", "64x64")
    refused(shard_folder_maker(tmp_path / "bands", fresh[:4], wavelengths_nm=tuple(range(500, 660, 10))), "other bands")
    refused(shard_folder_maker(tmp_path / "none", fresh[:4], shards=()), "holds no cubes")
    refused(shard_folder_maker(tmp_path / "other", fresh[:4], generator_hash="0" * 32), "another generator")
    refused(shard_folder_maker(tmp_path / "newer", fresh[:4], version=99), "newer version", "manifest version 99")
    refused(good, "no such", gates=tmp_path / "nowhere")
    refused(good, "no gates.json", gates=tmp_path / "small")
    refused(good, "another size", real=cohort.path)
    (tmp_path / "empty").mkdir()
    code, _, err = synthgen("gate", tmp_path / "empty", "--gates", small_gates)
    assert code == 2 and "not a folder of shards" in err and len(err.splitlines()) == 1
    assert not list((tmp_path / "empty").iterdir())


def test_altered_tokens_are_refused(eye_generator, small_gates, synthgen, tmp_path):
    write_shards(eye_generator, tmp_path / "s", count=8, seed=1, steps=1, sampler="euler")
    path = next((tmp_path / "s").glob("*.tar"))
    data = bytearray(path.read_bytes())
    data[data.index(b".tokens") + 600] ^= 4
    path.write_bytes(bytes(data))
    code, _, err = synthgen("gate", tmp_path / "s", "--gates", small_gates)
    assert code == 2 and path.name in err and "checksum" in err and len(err.splitlines()) == 1


def test_a_manifest_without_newer_fields_is_read_and_one_of_an_older_version_is_reported(
    shard_folder_maker, small_gates, fresh, synthgen, tmp_path
):
    folder = shard_folder_maker(tmp_path / "s", fresh[:24])
    values = read_json(folder / "manifest.json")
    for name in ("lost", "generator"):
        del values[name]
    for entry in values["shards"]:
        for name in ("lost", "rejected", "verdict"):
            del entry[name]
    write_json(folder / "manifest.json", values)
    _, manifest, _ = gate_shards(folder, small_gates)
    assert manifest.version == 2 and manifest.shards[0].verdict is not None
    for older in ({"version": 1}, {}):  # its checksums are of another kind
        write_json(folder / "manifest.json", {k: v for k, v in values.items() if k != "version"} | older)
        code, _, message = synthgen("gate", folder, "--gates", small_gates)
        assert code == 2 and "older version of synthgen" in message and len(message.splitlines()) == 1


def test_two_commands_at_once(shard_folder_maker, small_gates, fresh, synthgen, tmp_path):
    folder = shard_folder_maker(tmp_path / "s", fresh[:24])
    before = sorted((p.name, p.read_bytes()) for p in folder.iterdir())
    with one_at_a_time(folder):
        code, _, err = synthgen("gate", folder, "--gates", small_gates)
    assert code == 2 and "another command is at work" in err and len(err.splitlines()) == 1
    assert sorted((p.name, p.read_bytes()) for p in folder.iterdir()) == before
    assert synthgen("gate", folder, "--gates", small_gates)[0] in (3, 4), "the lock is let go"


def test_interrupted_in_the_middle(shard_folder_maker, small_gates, fresh, synthgen, monkeypatch, tmp_path):
    folder = shard_folder_maker(tmp_path / "s", fresh[:24], each=12)
    before = sorted((p.name, p.read_bytes()) for p in folder.iterdir())

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "_verdict_of", interrupted)
        code, _, err = synthgen("gate", folder, "--gates", small_gates)
    assert code == 130 and "nothing half-written" in err
    assert sorted((p.name, p.read_bytes()) for p in folder.iterdir()) == before
    write = module.write_text
    with monkeypatch.context() as patch:  # in the middle of writing: the three files are finished together
        patch.setattr(module, "write_text", lambda *a: (write(*a), os.kill(os.getpid(), signal.SIGINT)))
        code, _, _ = synthgen("gate", folder, "--gates", small_gates)
    assert code in (3, 4) and (folder / "verdict.html").exists()
    assert read_json(folder / "verdict.json")["status"] == read_json(folder / "manifest.json")["verdict"]["status"]


def test_verdicts_of_others_are_refused_by_the_reader(
    shard_folder_maker, small_gates, fresh, synthgen, tmp_path, generator
):
    foreign = Verdict(status=Status.PASS, generator_hash="1" * 32, gates_hash="2" * 32)
    folder = shard_folder_maker(tmp_path / "s", fresh[:24], verdict=foreign)
    with pytest.raises(MismatchError, match="another generator's cubes"):
        ids_of(folder)
    _, _, err = synthgen("gate", folder, "--gates", small_gates)
    assert "another generator's cubes; it is replaced" in err.splitlines()[0]
    own = foreign.model_copy(update={"generator_hash": generator.hash})
    folder = shard_folder_maker(tmp_path / "t", fresh[:24], verdict=own)
    with pytest.raises(MismatchError, match="given by other gates"):
        ids_of(folder, gates_hash=load_gates(small_gates).hash)
    _, _, err = synthgen("gate", folder, "--gates-folder", small_gates)
    assert "given by other gates; it is replaced" in err.splitlines()[0]


def test_the_writer_keeps_the_reasons_of_what_it_leaves_out(eye_generator, every_other, tmp_path):
    manifest = write_shards(
        eye_generator, tmp_path / "s", count=24, steps=1, sampler="euler", gates=every_other, shard_size=8
    )
    assert manifest.lost == {"odd": 24 - sum(s.count for s in manifest.shards)}
    assert sum(s.lost.get("odd", 0) for s in manifest.shards) == manifest.lost["odd"]


def test_large_sets_are_judged_by_a_sample(monkeypatch, shard_folder_maker, small_gates, fresh, tmp_path):
    """Every cube meets the per-cube gates, and the set gates see an even choice of all shards."""
    monkeypatch.setattr(judge, "SAMPLE", 30)
    folder = shard_folder_maker(tmp_path / "s", fresh[:80], each=20)
    verdict, manifest, _ = gate_shards(folder, small_gates)
    assert verdict.proposed == 80 and verdict.accepted > 30
    assert all(s.verdict.proposed == 20 for s in manifest.shards)
    sizes = {c.name: c.n for c in verdict.checks}
    assert sizes["memorization"] == 80 and sizes["encoder_kid"] == 30


def test_the_packaged_gates_stop_broken_cubes(shard_folder_maker, tmp_path):
    gates = load_gates("phantom64")
    noise = torch.rand(6, len(gates.wavelengths), 64, 64, generator=torch.Generator().manual_seed(0))
    verdict, manifest, _ = gate_shards(shard_folder_maker(tmp_path / "s", noise), "phantom64")
    assert verdict.status == Status.FAIL and len(manifest.shards[0].rejected) == 6


def test_gates_have_seen_the_training_and_calibration_patients_and_no_others(eyes, small_gates):
    """As a study asks of them: the patients of its real-only arm."""
    assert load_gates(small_gates).provenance.patients == eyes.provenance(load_or_make_split(eyes).known).patients
