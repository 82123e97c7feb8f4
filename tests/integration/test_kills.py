"""Pretraining killed at random moments, and asked to stop: nothing lost, and the end is that of an undisturbed run."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from synthgen.cli.app import app
from synthgen.integration.pretrain import main
from synthgen.shards.reader import ShardFolder

ROOT = Path(__file__).parents[2]
STEPS = 40

pytestmark = pytest.mark.slow


def command(cohort, generator_folder, out, *more):
    return [
        sys.executable, str(ROOT / "pretrain.py"), "--data", str(cohort.path), "--generator", str(generator_folder),
        "--gates", "report", "--out", str(out), "--batch-size", "8", "--steps", str(STEPS), "--sampler-steps", "1",
        "--sampler", "euler", "--checkpoint-every", "4", "--log-every", "1", "--backbone", "resnet10t", *more,
    ]  # fmt: skip


def wait_for_steps(out, count, child, patience=240):
    """Until the run has logged `count` steps, or has ended."""
    start = time.monotonic()
    while child.poll() is None and time.monotonic() - start < patience:
        path = out / "metrics.jsonl"
        if path.exists() and len(path.read_text().splitlines()) >= count:
            return
        time.sleep(0.05)


def resume_flag(out):
    return ["--resume"] if list((out / "checkpoints").glob("step_*")) else []


def killed_and_resumed(cohort, generator_folder, folder, kills, seed=0):
    """The weights of an undisturbed run and of one killed `kills` times with -9 at random moments."""
    whole, broken = folder / "whole", folder / "broken"
    main(command(cohort, generator_folder, whole)[2:])
    rng = np.random.default_rng(seed)
    for kill in range(kills):
        child = subprocess.Popen(
            command(cohort, generator_folder, broken, *resume_flag(broken)),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        wait_for_steps(broken, int(rng.integers(1, STEPS * (kill + 1) // kills)), child)
        time.sleep(float(rng.uniform(0, 0.3)))
        child.send_signal(signal.SIGKILL)
        child.wait()
    main(command(cohort, generator_folder, broken, *resume_flag(broken))[2:])
    return load_file(whole / "backbone.safetensors"), load_file(broken / "backbone.safetensors"), broken


def check_equal(one, two, broken):
    assert all(torch.equal(one[k], two[k]) for k in one) and one.keys() == two.keys()
    lines = [json.loads(line) for line in (broken / "metrics.jsonl").read_text().splitlines()]
    steps = [m["step"] for m in lines if "samples_seen" in m]
    assert steps == sorted(set(steps)), "a step is logged twice"
    assert not list((broken / "checkpoints").glob(".*.partial/manifest.json"))


def test_killed_twice(cohort, generator_folder, tmp_path):
    """The undisturbed run is one of this process, the killed ones are processes of their own."""
    check_equal(*killed_and_resumed(cohort, generator_folder, tmp_path, kills=2))


@pytest.mark.torture
def test_killed_fifty_times(cohort, generator_folder, tmp_path, torture_record):
    for round_ in range(5):
        folder = tmp_path / str(round_)
        check_equal(*killed_and_resumed(cohort, generator_folder, folder, kills=10, seed=round_))
    torture_record("pretraining_kills", {"kills": 50, "weights_equal_to_the_undisturbed_run": True})


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_asked_to_stop(cohort, generator_folder, tmp_path, number, code):
    out = tmp_path / "r"
    child = subprocess.Popen(
        command(cohort, generator_folder, out, "--checkpoint-every", "1000"),
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_for_steps(out, 3, child)
    child.send_signal(number)
    _, message = child.communicate(timeout=60)
    assert child.returncode == code, message
    last = message.strip().splitlines()[-1]
    assert last.startswith("stopped: a checkpoint of step") and "--resume" in last
    assert list((out / "checkpoints").glob("step_*/manifest.json"))


def sampling(generator_folder, out, *more):
    return [
        "-m", "synthgen", "sample", "--generator", str(generator_folder), "--gates", "off", "--count", "160",
        "--shard-size", "16", "--steps", "4", "--seed", "5", "--device", "cpu", "--out", str(out), *more,
    ]  # fmt: skip


def sample_here(generator_folder, out):
    """The same in this process."""
    app(sampling(generator_folder, out)[2:], standalone_mode=False)


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def shards_killed_and_resumed(generator_folder, folder, kills, seed=0):
    """A shard folder written in one go, and one whose writer was killed with -9 whenever another shard had appeared."""
    whole, broken = folder / "whole", folder / "broken"
    sample_here(generator_folder, whole)
    rng, hit = np.random.default_rng(seed), 0
    for kill in range(kills):
        seen = len(list(broken.glob("shard-*"))) if broken.exists() else 0
        child = subprocess.Popen(
            [sys.executable, *sampling(generator_folder, broken)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        start, wanted = time.monotonic(), seen + (1 if kill % 2 else 0)
        while child.poll() is None and time.monotonic() - start < 120:
            if broken.exists() and len(list(broken.glob("*shard-*"))) >= wanted and (broken / "manifest.json").exists():
                break
            time.sleep(0.001)
        time.sleep(float(rng.uniform(0, 0.02)))
        hit += child.poll() is None
        child.send_signal(signal.SIGKILL)
        child.wait()
        if (broken / "manifest.json").exists():
            ShardFolder.open(broken, accepted_only=False).verify()
    sample_here(generator_folder, broken)
    return contents(whole), contents(broken), hit


def test_shards_killed_twice(generator_folder, tmp_path):
    whole, broken, hit = shards_killed_and_resumed(generator_folder, tmp_path, kills=2)
    assert whole == broken and len(whole) == 11 and hit > 0


@pytest.mark.torture
def test_shards_killed_fifty_times(generator_folder, tmp_path, torture_record):
    hits = 0
    for round_ in range(5):
        whole, broken, hit = shards_killed_and_resumed(generator_folder, tmp_path / str(round_), kills=10, seed=round_)
        assert whole == broken
        hits += hit
    torture_record("shard_kills", {"kills": 50, "while_at_work": hits, "bytes_equal_to_the_undisturbed_run": True})


def test_two_processes_write_the_shards_of_one(generator_folder, tmp_path):
    """`synthgen sample --processes 2`: the same bytes."""
    subprocess.run([sys.executable, *sampling(generator_folder, tmp_path / "one")], check=True, capture_output=True)
    done = subprocess.run(
        [sys.executable, *sampling(generator_folder, tmp_path / "two"), "--processes", "2"],
        capture_output=True, text=True, timeout=300, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert done.stdout.count("160 tokens of 160 proposed, 10 shards") == 1, "one process speaks"
    assert "written by 2 processes" in done.stdout


LAUNCH = [sys.executable, "-m", "accelerate.commands.launch"]
LAUNCHERS = {
    "one": [sys.executable, str(ROOT / "pretrain.py")],
    "two": [sys.executable, str(ROOT / "pretrain.py"), "--processes", "2"],
    "accelerate one": [*LAUNCH, str(ROOT / "pretrain.py")],
    "accelerate two": [
        *LAUNCH,
        "--multi_gpu",
        "--num_processes",
        "2",
        "--main_process_port",
        "0",
        str(ROOT / "pretrain.py"),
    ],
}


def of_session(leader):
    """Processes of the command: their environment holds a word that it was given."""
    found = subprocess.run(["pgrep", "-f", leader], capture_output=True, text=True).stdout.split()
    return [int(pid) for pid in found if int(pid) != os.getpid()]


@pytest.mark.torture
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGKILL"])
@pytest.mark.parametrize("launcher", list(LAUNCHERS))
def test_a_stopped_launcher_leaves_a_checkpoint_and_nobody(cohort, generator_folder, tmp_path, launcher, name):
    """SIGINT goes to the process group, as Ctrl-C in a terminal does; the others to the launcher alone."""
    out, number = tmp_path / "r", getattr(signal, name)
    words = command(cohort, generator_folder, out, "--checkpoint-every", "1000", "--steps", "5000")[2:]
    child = subprocess.Popen(
        [*LAUNCHERS[launcher], *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    wait_for_steps(out, 3, child, 600)
    (os.killpg if number == signal.SIGINT else os.kill)(child.pid, number)
    child.wait(120)
    checkpoints = lambda: list((out / "checkpoints").glob("step_*/manifest.json"))
    if not launcher.startswith("accelerate") and number != signal.SIGKILL:
        assert checkpoints() and not of_session(str(out)), "it has waited"
    _, message = child.communicate(timeout=120)  # the pipe closes when the last process has ended
    assert not of_session(str(out))
    if launcher == "one" and number == signal.SIGKILL:
        return  # what any process loses
    assert len(checkpoints()) == 1 and "stopped: a checkpoint of step" in message
    if not launcher.startswith("accelerate") and number != signal.SIGKILL:
        assert child.returncode == {"SIGTERM": 143, "SIGINT": 130}[name] and "Traceback" not in message
    elif launcher == "accelerate one":
        assert child.returncode == {"SIGTERM": -15, "SIGINT": -2, "SIGKILL": -9}[name]
    assert child.returncode != 0


@pytest.mark.torture
@pytest.mark.parametrize("launcher", ["one", "two"])
@pytest.mark.parametrize(
    ("more", "code"), [(["--steps", "x"], 2), (["--data", "none.h5"], 2), (["--gates", "require"], 3)]
)
def test_exit_codes_are_passed_on(fresh_eyes, tmp_path, launcher, more, code):
    words = command(fresh_eyes, "phantom64", tmp_path / "r", "--certify-count", "60", *more)[2:]
    done = subprocess.run([*LAUNCHERS[launcher], *words], capture_output=True, text=True)
    assert done.returncode in (code, *([4] if code == 3 else [])) and "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("error: ")
