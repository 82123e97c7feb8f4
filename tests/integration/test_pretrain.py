"""The loop: exact share, exact resume, two processes, and refusals in one line."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file

from synthgen.config import build
from synthgen.contracts import Status
from synthgen.errors import ConfigError, InputError, LeakError, MismatchError, Stopped, StorageError, UndecidedError
from synthgen.integration import pretrain as loop
from synthgen.integration.options import Pretraining
from synthgen.integration.pretrain import pretrain
from synthgen.runs.folder import read_metrics

ROOT = Path(__file__).parents[2]


def options(cohort, generator_folder, out, **more):
    values = {
        "data": str(cohort.path), "generator": str(generator_folder), "out": str(out), "gates": "report",
        "batch_size": 8, "steps": 12, "sampler_steps": 1, "sampler": "euler", "checkpoint_every": 4, "log_every": 1,
        "backbone": "resnet10t",
    }  # fmt: skip
    return build(Pretraining, {**values, **more})


def weights(folder):
    return load_file(Path(folder) / "backbone.safetensors")


def same(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


@pytest.fixture(scope="module")
def finished(cohort, generator_folder, tmp_path_factory):
    return pretrain(options(cohort, generator_folder, tmp_path_factory.mktemp("run") / "r"))


@pytest.mark.slow
def test_run_folder_holds_what_the_contract_says(finished):
    held = ("config.yaml", "environment.json", "metrics.jsonl", "checkpoints", "backbone.json", "summary.json")
    for name in (*held, "report.html"):
        assert (finished / name).exists(), name
    assert list(finished.glob("events.out.tfevents.*"))
    lines = read_metrics(finished)
    assert {line["synthetic_share"] for line in lines if "synthetic_share" in line} == {0.5}
    assert {line["gates"] for line in lines if "gates" in line} == {"uncertified"}
    assert json.loads((finished / "summary.json").read_text())["gates"] == "uncertified"


@pytest.mark.slow
def test_timm_loads_the_backbone_strictly(finished):
    model = timm.create_model("resnet10t", in_chans=16, num_classes=0)
    model.load_state_dict(weights(finished), strict=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "more"),
    [
        ("statistics", {}),
        ("simclr", {}),
        ("dino", {"cross_views": "1/4"}),
        ("simclr", {"cross_views": "0.5", "synthetic_ratio": "0"}),
        ("simclr", {"ratio_schedule": "linear"}),
        (
            "vicreg",
            {"accumulate": 2, "monitor_every": 5, "weight_decay_end": 0.4, "augmentation": {"view_size": 24}},
        ),
    ],
)
def test_resumed_equals_uninterrupted(cohort, generator_folder, tmp_path, monkeypatch, method, more):
    crops = {"dino": {"local_crops": 1, "output_dim": 64, "local_size": 16}} if method == "dino" else {}
    small = crops | more
    whole = pretrain(options(cohort, generator_folder, tmp_path / "a", method=method, **small))

    class StopAt:
        exit_code = 143
        steps = 0

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def __bool__(self):
            StopAt.steps += 1
            return StopAt.steps == 7

    with monkeypatch.context() as patch:
        patch.setattr(loop, "StopRequest", StopAt)
        with pytest.raises(Stopped) as caught:
            pretrain(options(cohort, generator_folder, tmp_path / "b", method=method, **small))
    assert caught.value.exit_code == 143 and "--resume" in str(caught.value)
    torch.manual_seed(123)  # nothing may hang on the global stream of the new process
    part = pretrain(options(cohort, generator_folder, tmp_path / "b", method=method, resume=True, **small))
    assert same(weights(whole), weights(part))
    drop = ("time", "samples_per_second", "drawing_share")
    strip = lambda folder: [{k: v for k, v in m.items() if k not in drop} for m in read_metrics(folder)]
    assert strip(whole) == strip(part)


@pytest.mark.slow
def test_ratio_zero_is_the_real_only_loop_bit_for_bit(cohort, generator_folder, tmp_path, monkeypatch):
    def untouchable(*_, **__):
        raise AssertionError("a real-only run opened the generator")

    one = pretrain(options(cohort, generator_folder, tmp_path / "a", synthetic_ratio="0"))
    monkeypatch.setattr("synthgen.integration.supply.open.Generator.load", untouchable)
    monkeypatch.setattr("synthgen.integration.supply.open.SyntheticPool", untouchable)
    two = pretrain(options(cohort, None, tmp_path / "b", synthetic_ratio="0", generator=None))
    assert same(weights(one), weights(two))


@pytest.mark.slow
def test_variants_are_counted_and_leave_the_first_view_alone(cohort, generator_folder, tmp_path):
    folder = pretrain(options(cohort, generator_folder, tmp_path / "r", method="simclr", cross_views="0.5", steps=6))
    last = [line for line in read_metrics(folder) if "variants/draws" in line][-1]
    assert last["variants/draws"] == 6 * 2 and 0 < last["variants/made"] <= 12 and last["synthetic_share"] == 0.5


@pytest.mark.slow
def test_a_schedule_begins_with_synthetic_cubes_alone(cohort, generator_folder, tmp_path):
    folder = pretrain(
        options(cohort, generator_folder, tmp_path / "r", ratio_schedule="synthetic-first", synthetic_ratio="1/3")
    )
    shares = {line["step"]: line["synthetic_share"] for line in read_metrics(folder) if "synthetic_share" in line}
    assert [round(shares[step], 4) for step in (1, 4, 8, 12)] == [1, 1, 0.5, 0.3333]


@pytest.mark.slow
def test_ratio_one_draws_only_synthetic(cohort, generator_folder, tmp_path):
    run = pretrain(options(cohort, generator_folder, tmp_path / "r", synthetic_ratio="1", steps=3))
    assert "loss_real" not in read_metrics(run)[0] and "loss_synthetic" in read_metrics(run)[0]


@pytest.mark.slow
def test_from_shards(cohort, generator_folder, tmp_path):
    from synthgen.integration.sample import sample_shards

    sample_shards(tmp_path / "shards", 40, str(generator_folder), gates="report", steps=1, sampler="euler")
    config = options(cohort, None, tmp_path / "r", generator=None, shards=str(tmp_path / "shards"), steps=4)
    run = pretrain(config)
    assert read_metrics(run)[-2]["supply/distinct"] == 40
    with pytest.raises(UndecidedError, match="passed the set gates"):
        pretrain(config.model_copy(update={"gates": "require", "out": str(tmp_path / "strict")}))


def test_a_place_that_cannot_be_written_is_reported_before_the_certificate(generator_folder, tmp_path, monkeypatch):
    from synthgen.integration import sample

    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr(sample, "certify", lambda *a, **k: pytest.fail("minutes of work first"))
    with pytest.raises(StorageError, match="file"):
        sample.sample_shards(tmp_path / "file" / "s", 40, str(generator_folder), gates="report")


@pytest.mark.slow
def test_shards_decoded_at_the_draw_or_before_give_the_same_run(cohort, generator_folder, tmp_path):
    """Also where the generator has moved and `generator` says where to."""
    from synthgen.integration.sample import sample_shards

    moved = tmp_path / "moved"
    shutil.copytree(generator_folder, tmp_path / "first")
    sample_shards(tmp_path / "shards", 40, str(tmp_path / "first"), gates="report", steps=1, sampler="euler")
    (tmp_path / "first").rename(moved)
    more = {"shards": str(tmp_path / "shards"), "steps": 4}
    with pytest.raises(InputError, match="Name it with --generator"):
        pretrain(options(cohort, None, tmp_path / "none", generator=None, **more))
    held = pretrain(options(cohort, moved, tmp_path / "held", pool_cache="on", **more))
    drawn = pretrain(options(cohort, moved, tmp_path / "drawn", pool_cache="off", **more))
    assert same(weights(held), weights(drawn))


@pytest.mark.slow
@pytest.mark.parametrize(("policy", "stamp"), [("require", "pass"), ("report", "uncertified"), ("off", "uncertified")])
def test_what_training_on_shards_is_stamped(cohort, generator, generator_folder, tmp_path, policy, stamp):
    """The set passed, one shard of it did not: only a run that leaves that shard out is stamped 'pass'."""
    from synthgen.contracts import Rejection, Verdict
    from synthgen.shards.manifest import gated, manifest_of, write_manifest
    from synthgen.shards.storage import place_of
    from synthgen.shards.writer import write_shards

    verdict = lambda status: Verdict(status=status, generator_hash=generator.hash)
    manifest = write_shards(generator, tmp_path / "s", count=40, steps=1, sampler="euler", shard_size=10)
    own = {s.name: (verdict(Status.PASS), ()) for s in manifest.shards}
    own[manifest.shards[1].name] = (verdict(Status.FAIL), (Rejection(id=11, reason="odd"),))
    place = place_of(tmp_path / "s")
    write_manifest(place, gated(manifest_of(place), verdict(Status.PASS), own))
    config = options(cohort, generator_folder, tmp_path / "r", shards=str(tmp_path / "s"), gates=policy, steps=2)
    run = pretrain(config)
    assert json.loads((run / "summary.json").read_text())["gates"] == stamp
    assert read_metrics(run)[-2]["supply/distinct"] == {"require": 30, "report": 39, "off": 40}[policy]


@pytest.mark.slow
def test_every_ratio_starts_from_the_same_weights(cohort, generator_folder, tmp_path, monkeypatch):
    """What opening generator and gates draws from the global stream does not reach the network."""
    first, make = [], loop.make_method

    def spy(*args, **more):
        method = make(*args, **more)
        first.append({k: v.clone() for k, v in method.state_dict().items()})
        return method

    monkeypatch.setattr(loop, "make_method", spy)
    for ratio in ("0", "0.5"):
        pretrain(options(cohort, generator_folder, tmp_path / ratio, synthetic_ratio=ratio, steps=1))
    assert same(*first)


def step_back(run):
    """The run as it was before its last checkpoint."""
    last = sorted((run / "checkpoints").glob("step_*"))[-1]
    shutil.rmtree(last)
    for name in ("backbone.safetensors", "summary.json"):
        (run / name).unlink()
    return run


@pytest.mark.slow
def test_the_remedy_that_a_stop_tells_goes_on_with_the_same_run(cohort, generator_folder, tmp_path):
    """`--resume --out R` alone: everything else is as the run was begun; a setting that makes it another is refused."""
    whole = pretrain(options(cohort, generator_folder, tmp_path / "r", synthetic_ratio="0.25", learning_rate=3e-4))
    before, out = weights(whole), str(step_back(whole))
    for flag, value in (("--synthetic-ratio", "0.5"), ("--backbone", "resnet18"), ("--batch-size", "4")):
        with pytest.raises(SystemExit) as refused:
            loop.main(["--resume", "--out", out, flag, value])
        assert refused.value.code == 2
    loop.main(["--resume", "--out", out])
    assert same(before, weights(out))


@pytest.mark.slow
def test_a_run_resumed_with_fewer_processes_says_that_the_pool_is_resharded(cohort, generator_folder, tmp_path, capsys):
    done = run_processes(cohort, generator_folder, tmp_path / "r", 2, "--steps", "4", "--checkpoint-every", "2")
    assert done.returncode == 0, done.stderr[-2000:]
    before = weights(tmp_path / "r")
    step_back(tmp_path / "r")
    again = run_processes(
        cohort, generator_folder, tmp_path / "r", 2, "--steps", "4", "--checkpoint-every", "2", "--resume"
    )
    assert again.returncode == 0, again.stderr[-2000:]
    assert same(before, weights(tmp_path / "r")), "two processes, stopped and resumed, arrive where they would have"
    step_back(tmp_path / "r")
    loop.main(["--resume", "--out", str(tmp_path / "r")])
    assert "the pool of 2 processes is resharded to 1" in capsys.readouterr().err
    assert (tmp_path / "r" / "backbone.safetensors").exists()


def run_processes(cohort, generator_folder, out, count, *more):
    """The command line of the README on `count` CPU processes."""
    flags = [
        "--data", str(cohort.path), "--generator", str(generator_folder), "--gates", "report", "--out", str(out),
        "--batch-size", "8", "--steps", "3", "--sampler-steps", "1", "--sampler", "euler", "--log-every", "1",
        "--backbone", "resnet10t", "--synthetic-ratio", "0.5", *more,
    ]  # fmt: skip
    start = [sys.executable, "-m", "accelerate.commands.launch"]
    if count > 1:
        start += ["--multi_gpu", "--num_processes", str(count), "--main_process_port", "0"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [*start, str(ROOT / "pretrain.py"), *flags], capture_output=True, text=True, env=environment, timeout=300
    )


@pytest.mark.slow
def test_two_processes(cohort, generator_folder, tmp_path):
    done = run_processes(cohort, generator_folder, tmp_path / "r", 2)
    assert done.returncode == 0, done.stderr[-2000:]
    environment = json.loads((tmp_path / "r" / "environment.json").read_text())
    assert environment["processes"] == 2
    lines = [m for m in read_metrics(tmp_path / "r") if "samples_seen" in m]
    assert [m["samples_seen"] for m in lines] == [16, 32, 48], "two processes of eight samples each"
    assert [m["synthetic_seen"] for m in lines] == [8, 16, 24]
    from synthgen.runs.checkpoint import Checkpoints

    own = Checkpoints(tmp_path / "r" / "checkpoints").load().own
    ids = [set(o["source"]["id"].tolist()) for o in own]
    assert len(ids) == 2 and ids[0] and ids[1] and not ids[0] & ids[1], "every rank makes ids of its own"
    assert {i % 2 for i in ids[0]} == {0} and {i % 2 for i in ids[1]} == {1}


@pytest.mark.parametrize(
    ("more", "error", "word"),
    [
        ({"synthetic_ratio": "1.5"}, ConfigError, "out of range"),
        ({"backbone": "resnet19"}, ConfigError, "no such backbone"),
        ({"gates": "require"}, UndecidedError, "calibrate"),
        ({"batch_size": 1}, ConfigError, "greater than or equal to 2"),
        ({"accumulate": 5}, ConfigError, "at most 4 parts"),
    ],
)
def test_refusals(cohort, generator_folder, tmp_path, more, error, word):
    with pytest.raises(error) as caught:
        pretrain(options(cohort, generator_folder, tmp_path / "r", **more))
    assert word in str(caught.value) and "\n" not in str(caught.value)


def test_generator_of_other_bands(cohort, generator_folder, tmp_path, toy_cohort_maker):
    other = toy_cohort_maker(tmp_path / "o.h5", wavelengths=tuple(500.0 + 20 * i for i in range(12)))
    with pytest.raises(MismatchError, match="other bands than the data"):
        pretrain(options(other, generator_folder, tmp_path / "r"))


def test_a_leak_is_named_and_refused(cohort, generator, tmp_path):
    from synthgen.contracts import Provenance
    from synthgen.cubes.cohort.splits import load_or_make_split
    from synthgen.generator.generator import Generator

    test = load_or_make_split(cohort).test
    leaky = Generator(
        generator.autoencoder, generator.flow, generator.wavelengths, Provenance.of("1" * 32, test[:1]), chunk=8
    )
    leaky.save(tmp_path / "leaky")
    with pytest.raises(LeakError, match=test[0]):
        pretrain(options(cohort, tmp_path / "leaky", tmp_path / "r"))


def test_a_second_run_in_the_same_folder_is_refused(cohort, generator_folder, finished):
    with pytest.raises(ConfigError, match="already holds a run"):
        pretrain(options(cohort, generator_folder, finished))


@pytest.mark.slow
def test_every_field_is_a_flag():
    done = subprocess.run([sys.executable, str(ROOT / "pretrain.py"), "--help"], capture_output=True, text=True)
    for flag in ("--synthetic-ratio", "--augmentation.spectral-jitter", "--learning-rate", "--resume"):
        assert flag in done.stdout
