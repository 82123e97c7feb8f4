"""Checkpoints are whole or absent, whatever happens while they are written."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from synthgen.errors import ConfigError, InputError, MismatchError, StorageError
from synthgen.runs import randomness
from synthgen.runs.checkpoint import Checkpoints
from synthgen.runs.files import atomic, write_text
from synthgen.runs.folder import RunFolder, read_metrics
from synthgen.runs.signals import StopRequest
from synthgen.runs.state import load_state, save_state


def test_state_round_trip_of_everything_a_run_holds(tmp_path):
    parameter = torch.nn.Parameter(torch.randn(3))
    optimizer = torch.optim.AdamW([parameter])
    parameter.sum().backward()
    optimizer.step()
    tree = {
        "optimizer": optimizer.state_dict(),
        "random": randomness.capture(),
        "tuple": (1, 2.5, None, True, "x"),
        "array": np.arange(4, dtype=np.int64),
        3: [torch.tensor(1.0), {"deep": torch.zeros(0, 2)}],
    }
    save_state(tmp_path / "s.safetensors", tree)
    back = load_state(tmp_path / "s.safetensors")
    assert back["tuple"] == tree["tuple"] and isinstance(back["tuple"], tuple)
    assert np.array_equal(back["array"], tree["array"])
    assert back[3][1]["deep"].shape == (0, 2)
    optimizer.load_state_dict(back["optimizer"])
    draws = [torch.rand(2), np.random.rand(), __import__("random").random()]
    randomness.restore(back["random"])
    again = [torch.rand(2), np.random.rand(), __import__("random").random()]
    assert torch.equal(draws[0], again[0]) and draws[1:] == again[1:]


def test_state_refuses_what_only_pickle_could_hold(tmp_path):
    with pytest.raises(TypeError):
        save_state(tmp_path / "s", {"f": lambda: 1})


@pytest.mark.parametrize("damage", ["truncate", "flip", "missing"])
def test_latest_skips_a_damaged_checkpoint(tmp_path, damage):
    store = Checkpoints(tmp_path)
    for step in (1, 2):
        store.save(step, {"w": torch.full((1000,), float(step))}, {"r": step})
    victim = tmp_path / "step_00000002" / "shared.safetensors"
    data = bytearray(victim.read_bytes())
    if damage == "truncate":
        victim.write_bytes(data[:-100])
    elif damage == "flip":
        data[-5] ^= 1
        victim.write_bytes(data)
    else:
        victim.unlink()
    assert store.latest() == 1
    assert store.load().own == [{"r": 1}]


def test_keeps_the_last_few_and_rewrites_a_step(tmp_path):
    store = Checkpoints(tmp_path, keep=2)
    for step in (1, 2, 3, 3):
        store.save(step, {"w": torch.zeros(1)})
    assert store.steps() == [2, 3]
    with pytest.raises(InputError, match="no valid checkpoint"):
        Checkpoints(tmp_path / "empty").load()


WRITER = """
import sys, torch
from synthgen.runs.checkpoint import Checkpoints
store = Checkpoints(sys.argv[1], keep=2)
step = (store.latest() or 0) + 1
print("ready", flush=True)
while True:
    store.save(step, {"w": torch.full((400_000,), float(step))}, {"step": step})
    step += 1
"""


def kill_while_writing(folder, times, seed=0):
    """Kill a process that writes checkpoints all the time; after each kill the newest valid one must be readable."""
    rng, newest = np.random.default_rng(seed), 0
    for _ in range(times):
        child = subprocess.Popen([sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE, text=True)
        assert child.stdout.readline().strip() == "ready"
        time.sleep(float(rng.uniform(0.02, 0.4)))
        child.send_signal(signal.SIGKILL)
        child.wait()
        store = Checkpoints(folder)
        if store.latest() is None:
            continue
        restored = store.load()
        assert restored.step >= newest, "a finished checkpoint was lost"
        newest = restored.step
        assert float(restored.shared["w"][0]) == restored.step == restored.own[0]["step"]
    return newest


@pytest.mark.slow
def test_killed_while_writing(tmp_path):
    assert kill_while_writing(tmp_path, times=3) > 0


@pytest.mark.torture
def test_killed_while_writing_twenty_times(tmp_path, torture_record):
    newest = kill_while_writing(tmp_path, times=20)
    assert newest > 0
    torture_record("checkpoint_kills", {"kills": 20, "newest_step": newest, "lost": 0})


def test_atomic_leaves_nothing_behind_on_error(tmp_path):
    target = tmp_path / "a.txt"
    write_text(target, "old")
    with pytest.raises(RuntimeError), atomic(target) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]


def test_atomic_folder_replaces_the_older_one(tmp_path):
    for text in ("one", "two"):
        with atomic(tmp_path / "d") as temporary:
            temporary.mkdir()
            (temporary / "f").write_text(text)
    assert (tmp_path / "d" / "f").read_text() == "two" and os.listdir(tmp_path) == ["d"]


def test_full_disk_is_one_line_and_keeps_what_was_there(tmp_path, small_disk):
    store = Checkpoints(small_disk / "checkpoints")
    store.save(1, {"w": torch.zeros(1000)})
    with pytest.raises(StorageError, match="no space left"):
        store.save(2, {"w": torch.zeros(4_000_000)})
    assert store.latest() == 1
    assert sorted(os.listdir(small_disk / "checkpoints")) == ["step_00000001"]


def test_stop_request_only_raises_a_flag():
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest() as stop:
        assert not stop
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop and stop.exit_code == 143
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop and stop.exit_code == 130
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
    assert signal.getsignal(signal.SIGTERM) is before


def test_run_folder_refuses_to_mix_runs_and_rewinds(tmp_path):
    from synthgen.config import Config

    class Small(Config):
        a: int = 1

    with RunFolder(tmp_path / "run", Small()) as run:
        run.begin(0)
        for step in range(1, 6):
            run.log(step, loss=float(step))
        run.checkpoints.save(3, {})
    with pytest.raises(ConfigError, match="already holds a run"):
        RunFolder(tmp_path / "run", Small())
    with RunFolder(tmp_path / "run", Small(), resume=True) as again:
        again.rewind(3)
    assert [m["step"] for m in read_metrics(tmp_path / "run")] == [1, 2, 3]
    assert (tmp_path / "run" / "environment.json").exists()


def test_a_resumed_run_is_the_one_that_was_begun(tmp_path, capsys, monkeypatch):
    from synthgen.command_line.command import Command
    from synthgen.config import Config

    class Inner(Config):
        rate: float = 0.1

    class Run(Config):
        data: str = "eyes.h5"
        ratio: float = 0.5
        steps: int = 10
        log_every: int = 10
        inner: Inner = Inner()
        resume: bool = False
        out: str = "run"

    def resumed(config):
        with RunFolder("run", config, resume=True) as run:
            run.begin(5)

    monkeypatch.chdir(tmp_path)
    (tmp_path / "eyes.h5").touch()
    begun = Command(Run, "run").read(["--ratio", "0.25", "--inner.rate", "0.3"])
    with RunFolder("run", begun) as run:
        run.begin(0)
        run.checkpoints.save(5, {})
    again = Command(Run, "run").read(["--resume"])
    assert again == begun.model_copy(update={"resume": True}), "what is not given is as it was"
    here = {"resume": True, "log_every": 1, "data": str(tmp_path / "eyes.h5")}
    resumed(begun.model_copy(update=here))
    assert capsys.readouterr().err == ""
    for flags, name in (
        (["--ratio", "0.5"], "ratio"),
        (["--inner.rate", "0.2"], "inner.rate"),
        (["--data", "b"], "data"),
    ):
        other = Command(Run, "run").read(["--resume", *flags])
        with pytest.raises(MismatchError, match=f"begun with another {name}"):
            RunFolder("run", other, resume=True)
    longer = Command(Run, "run").read(["--resume", "--steps", "20"])
    resumed(longer)
    assert "steps 20 in place of 10" in capsys.readouterr().err
    assert Command(Run, "run").read(["--resume"]).steps == 20
    assert Command(Run, "run").read(["--ratio", "0.5"]).inner.rate == 0.1, "a new run starts from defaults"


def test_streams_are_private_and_keyed():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    one = randomness.sample_noise(5, [3, 4], (2, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one[1], randomness.sample_noise(5, [4], (2, 2))[0])
    assert not torch.equal(one[0], one[1])
    assert not torch.equal(one[0], randomness.sample_noise(6, [3], (2, 2))[0])
    assert randomness.key("a", 1) != randomness.key("a", "1") != randomness.key("a1")
