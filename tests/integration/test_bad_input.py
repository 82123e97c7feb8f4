"""Bad input, as a user meets it: one line that names the file, exit code 2, nothing half-written left behind."""

import dataclasses
import shutil
import sys
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from synthgen.cli import app as cli
from synthgen.contracts import Status, Verdict
from synthgen.cubes.cohort.cohort import Cohort
from synthgen.errors import SynthgenError, UndecidedError
from synthgen.integration import artifacts as supply
from synthgen.integration import recipe
from synthgen.quality.gates import load_gates
from synthgen.quality.segmenter.training import main as train_segmenter


@pytest.fixture
def run(capsys, monkeypatch):
    """Run a command in this process: (exit code, standard error)."""

    def call(*words):
        words = [str(w) for w in words]
        monkeypatch.setattr(sys, "argv", ["synthgen", *words])
        try:
            cli.main()
        except SystemExit as stop:
            return stop.code or 0, capsys.readouterr().err
        return 0, capsys.readouterr().err

    return call


@pytest.fixture
def copy(cohort, tmp_path):
    path = tmp_path / "copy.h5"
    shutil.copy(cohort.path, path)
    return path


def refused(answer, *words):
    code, message = answer
    lines = message.strip().splitlines()
    assert code == 2, message
    assert len(lines) == 1 and lines[0].startswith("error: "), message
    assert "Traceback" not in message
    for word in words:
        assert str(word) in message, message


def test_missing_file(run, tmp_path):
    refused(run("pretrain", "--data", tmp_path / "none.h5", "--out", tmp_path / "r"), "none.h5", "no such file")
    refused(run("info", tmp_path / "none.h5"), "none.h5")
    refused(run("ingest", tmp_path / "none.npy", tmp_path / "out.h5", "--each-file-a-patient"), "none.npy")
    assert not (tmp_path / "out.h5").exists()


def test_truncated_hdf5(run, copy, tmp_path):
    copy.write_bytes(copy.read_bytes()[: copy.stat().st_size // 2])
    refused(run("pretrain", "--data", copy, "--out", tmp_path / "r"), copy)
    refused(run("train-autoencoder", "--data", copy, "--out", tmp_path / "a"), copy)


def test_wavelengths_absent(run, copy, tmp_path):
    with h5py.File(copy, "a") as file:
        del file["wavelengths_nm"]
    refused(run("train-autoencoder", "--data", copy, "--out", tmp_path / "a"), copy, "wavelengths")
    assert not (tmp_path / "a").exists()


def test_wrong_number_of_bands(run, copy, tmp_path):
    with h5py.File(copy, "a") as file:
        del file["wavelengths_nm"]
        file["wavelengths_nm"] = np.arange(450.0, 800.0, 30.0)
    refused(run("train-autoencoder", "--data", copy, "--out", tmp_path / "a"), copy, "16")


def test_nan_in_a_cube(run, copy, tmp_path):
    with h5py.File(copy, "a") as file:
        cubes = file["cubes"][:].astype(np.float32) / 65535
        del file["cubes"]
        cubes[3, 2, 5, 5] = np.nan
        file["cubes"] = cubes
    refused(run("pretrain", "--data", copy, "--out", tmp_path / "r"), copy, "3")
    refused(run("train-autoencoder", "--data", copy, "--codes", "32", "--out", tmp_path / "a"), copy, "3")


def test_ratio_out_of_range(run, cohort, tmp_path):
    answer = run("pretrain", "--data", cohort.path, "--synthetic-ratio", "1.5", "--out", tmp_path / "r")
    refused(answer, "--synthetic-ratio", "1.5")
    assert not (tmp_path / "r").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--batch-size", "1"], ["--batch-size", "greater than or equal to 2"]),
        (["--batch-size", "8", "--accumulate", "5"], ["at most 4 parts"]),
        (["--backbone", "resnet81"], ["no such backbone", "Did you mean 'resnet"]),
        (["--backbone", "vit_small_patch14_dinov2"], ["does not take cubes of 32 x 32 pixels"]),
        (["--backbone", "vit_tiny_patch16_224", "--method", "dino", "--dino.local-size", "24"], ["24 x 24 pixels"]),
    ],
)
def test_batches_and_backbones_that_cannot_be(run, cohort, tmp_path, flags, words):
    given = ["--data", cohort.path, "--synthetic-ratio", "0", "--out", tmp_path / "r"]
    refused(run("pretrain", *given, *flags), *words)


def test_unknown_key(run, cohort, tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("batch_sise: 3\n")
    refused(run("pretrain", "--config", path), path, "batch_sise", "Did you mean 'batch_size'?")
    refused(run("pretrain", "--batch-sise", "3"), "--batch-sise")


def test_generator_of_other_bands(run, generator_folder, tmp_path, toy_cohort_maker):
    other = toy_cohort_maker(tmp_path / "o.h5", wavelengths=tuple(500.0 + 20 * i for i in range(12)))
    answer = run("pretrain", "--data", other.path, "--generator", generator_folder, "--out", tmp_path / "r")
    refused(answer, generator_folder, "12 bands", "16 bands")


@pytest.mark.parametrize("missing", ["flow.safetensors", "autoencoder.safetensors", "config.json"])
def test_generator_folder_with_a_missing_file(run, cohort, generator_folder, tmp_path, missing):
    broken = tmp_path / "g"
    shutil.copytree(generator_folder, broken)
    (broken / missing).unlink()
    answer = run("pretrain", "--data", cohort.path, "--generator", broken, "--out", tmp_path / "r")
    refused(answer, missing)


def test_generator_with_an_altered_weight(run, cohort, generator_folder, tmp_path):
    broken = tmp_path / "g"
    shutil.copytree(generator_folder, broken)
    data = bytearray((broken / "flow.safetensors").read_bytes())
    data[-3] ^= 0x40
    (broken / "flow.safetensors").write_bytes(data)
    answer = run("sample", "--generator", broken, "--out", tmp_path / "s", "--gates", "off", "--count", "2")
    refused(answer, broken, "do not match")
    assert not (tmp_path / "s").exists()


@pytest.mark.slow
def test_full_disk(run, cohort, generator_folder, small_disk):
    where = small_disk / "runs"
    answer = run(
        "pretrain", "--data", cohort.path, "--generator", generator_folder, "--gates", "report", "--out", where,
        "--steps", "2", "--batch-size", "4", "--sampler-steps", "1", "--backbone", "resnet18",
    )  # fmt: skip
    code, message = answer
    assert code == 2 and "no space left" in message and "Traceback" not in message, message
    assert not list((where / "checkpoints").glob(".*")), "a half-written checkpoint was left behind"
    shutil.rmtree(where)
    refused(run("phantom", small_disk / "p.h5", "--patients", "40", "--size", "64"), "no space left", "p.h5")
    assert not list(small_disk.glob("*p.h5*"))


def test_patients_must_be_distinguished(run, tmp_path):
    np.save(tmp_path / "a.npy", np.random.default_rng(0).random((16, 20, 20), dtype=np.float32))
    answer = run("ingest", tmp_path / "a.npy", tmp_path / "o.h5", "--source-wavelengths", "450:900:30")
    refused(answer, "patient")
    assert not (tmp_path / "o.h5").exists()


@pytest.mark.slow
def test_gates_of_another_size(run, cohort, generator_folder, small_gates, tmp_path):
    answer = run(
        "pretrain", "--data", cohort.path, "--generator", generator_folder, "--gates-folder", small_gates,
        "--out", tmp_path / "r",
    )  # fmt: skip
    refused(answer, small_gates, "64x64", "32x32")
    answer = run(
        "sample", "--generator", generator_folder, "--gates-folder", small_gates, "--out", tmp_path / "s",
        "--gates", "require", "--count", "2",
    )  # fmt: skip
    refused(answer, "64x64", "32x32")
    assert not (tmp_path / "s").exists()


def test_fewer_patients_than_a_split_needs(run, tmp_path, toy_cohort_maker):
    two = toy_cohort_maker(tmp_path / "two.h5", patients=2)
    refused(run("calibrate", "--data", two.path, "--out", tmp_path / "g"), two.path, "too few patients", "found 2")
    refused(run("pretrain", "--data", two.path, "--out", tmp_path / "r"), two.path, "too few patients")
    assert not (tmp_path / "g").exists()


def test_shards_whose_verdict_is_of_another_generator(run, cohort, generator, shard_folder_maker, tmp_path):
    foreign = Verdict(status=Status.PASS, generator_hash="1" * 32)
    shards = shard_folder_maker(tmp_path / "s", cohort.cubes(range(8)), verdict=foreign)
    answer = run("pretrain", "--data", cohort.path, "--shards", shards, "--gates", "require", "--out", tmp_path / "r")
    refused(answer, shards, "another generator's cubes", "synthgen gate")


@pytest.mark.parametrize(
    "command", ["pretrain", "train-autoencoder", "train-diffusion", "train-generator", "segmenter"]
)
def test_resuming_what_is_not_there_is_refused_before_anything_is_opened(run, tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    words = ["--resume", "--out", "none", *(["--data", "none.h5"] if command not in ("pretrain", "segmenter") else [])]
    if command == "segmenter":
        with pytest.raises(SystemExit) as stop:
            train_segmenter(words)
        refused((stop.value.code, capsys.readouterr().err), "none: there is no run to resume")
    else:
        refused(run(command, *words), "none: there is no run to resume")
    assert not list(tmp_path.iterdir())


def test_resuming_a_run_without_a_checkpoint_is_refused_before_eyes_are_simulated(run, tmp_path):
    (tmp_path / "r").mkdir()
    refused(run("pretrain", "--resume", "--out", tmp_path / "r"), tmp_path / "r", "no run to resume")
    assert not list((tmp_path / "r").iterdir())


def test_a_finished_cohort_is_not_lost(run, copy, tmp_path):
    before = copy.read_bytes()
    np.save(tmp_path / "eye.npy", np.tile(np.linspace(0.3, 0.31, 32, dtype=np.float32), (16, 32, 1)))
    refused(run("phantom", copy, "--patients", "1", "--size", "16"), copy, "--overwrite")
    given = ["--each-file-a-patient", "--source-wavelengths", "450:900:30"]
    refused(run("ingest", tmp_path / "eye.npy", copy, *given), copy, "--overwrite")
    assert copy.read_bytes() == before
    assert run("ingest", tmp_path / "eye.npy", copy, *given, "--overwrite")[0] == 0
    assert len(Cohort.open(copy)) == 1
    assert run("phantom", copy, "--patients", "1", "--size", "16", "--overwrite")[0] == 0
    assert len(Cohort.open(copy)) == 2


@pytest.mark.parametrize(("good", "code"), [(1, 2), (2, 0)])
def test_an_ingest_that_took_nothing_from_most_files_says_so(run, tmp_path, good, code):
    scans = tmp_path / "scans"
    scans.mkdir()
    for number in range(4):
        cube = np.full((16, 32, 32), 0.3 if number < good else np.nan, np.float32)
        np.save(scans / f"{number}.npy", cube + 0.01 * np.arange(32, dtype=np.float32) / 32)
    out = tmp_path / "out.h5"
    answer = run("ingest", scans, out, "--each-file-a-patient", "--source-wavelengths", "450:900:30")
    assert answer[0] == code and len(Cohort.open(out)) == good
    if code:
        refused(answer, out, "nothing was taken from 3 of 4 files", "ingest_report.json")


def test_too_few_patients_for_gates_is_reported_before_the_training(run, cohort, tmp_path, monkeypatch):
    monkeypatch.setattr(recipe, "train_autoencoder", lambda *_: (_ for _ in ()).throw(SynthgenError("began")))
    code, message = run("train-generator", "--data", cohort.path, "--out", tmp_path / "g", "--cpu")
    assert code == 2 and message.splitlines()[-1] == "error: began"
    assert "19 needed" in message and "99 needed" in message and "--gates report" in message


@pytest.mark.slow
def test_gates_that_cannot_certify_are_reported_before_cubes_are_sampled(small_gates, monkeypatch):
    gates = load_gates(small_gates)
    plausible = gates.limits.plausible.model_copy(update={"limits": None, "note": "9 patients, 99 needed"})
    gates = dataclasses.replace(gates, limits=gates.limits.model_copy(update={"plausible": plausible}))
    monkeypatch.setattr(supply, "load_gates", lambda *_: gates)
    generator = SimpleNamespace(wavelengths=gates.wavelengths, size=gates.size)
    assert supply.open_gates("report", "gates", generator, "mine") is gates
    with pytest.raises(UndecidedError, match=r"9 patients, 99 needed\. .*--gates report") as caught:
        supply.open_gates("require", "gates", generator, "mine")
    assert caught.value.exit_code == 4
