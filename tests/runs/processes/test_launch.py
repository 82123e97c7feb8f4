"""Several processes of one command: they stop, fail and end as one, and outlive no launcher."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from synthgen.command_line.command import Command
from synthgen.config import Config
from synthgen.errors import ConfigError
from synthgen.runs.processes.launch import in_processes

# Works until it is asked to stop, ends with the code given for its rank, or dies; a checkpoint takes half a second.
WORKER = """
import os, signal, sys, time
from pathlib import Path
from synthgen.errors import Stopped, one_line_errors, SynthgenError
from synthgen.runs.signals import StopRequest
class Bad(SynthgenError):
    exit_code = int(sys.argv[2])
with one_line_errors():
    rank, out, code = os.environ.get("RANK", "0"), Path(sys.argv[1]), Bad.exit_code
    with StopRequest() as stop:
        (out / f"begun{rank}").write_text(os.environ.get("WORLD_SIZE", "1"))
        if rank == sys.argv[3]:
            if code < 0:
                os.kill(os.getpid(), -code)
            raise Bad(f"rank {rank} is bad")
        end = time.monotonic() + (30 if code else 0)
        while not stop and time.monotonic() < end:
            time.sleep(0.02)
        if stop:
            time.sleep(0.5)
            (out / f"checkpoint{rank}").touch()
            raise Stopped("a checkpoint is written", exit_code=stop.exit_code)
"""
LAUNCHER = """
import sys
from synthgen.runs.processes import launch
launch.END_SECONDS = 0.5
sys.exit(launch.launch(sys.argv[1:], 2))
"""
FOREIGN = """
import os, subprocess, sys
os.environ["ACCELERATE_MIXED_PRECISION"] = "no"
subprocess.Popen(sys.argv[1:]).wait()
"""


def start(launcher: str, out: Path, *given: str, code: int = 99, rank: str = "none") -> subprocess.Popen[str]:
    """A launcher of its own session, as under a shell, with its processes at work when this returns."""
    worker = [*given, "-c", WORKER, str(out), str(code), rank]
    child = subprocess.Popen(
        [sys.executable, "-c", launcher, *worker], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    wait(lambda: len(list(out.glob("begun*"))) == (1 if given else 2) or child.poll() is not None)
    return child


def wait(until, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not until() and time.monotonic() < end:
        time.sleep(0.02)
    assert until()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("whole", [False, True])
def test_a_stop_waits_for_every_checkpoint(tmp_path, number, code, whole):
    """`whole`: the signal goes to the whole process group, as Ctrl-C in a terminal does."""
    child = start(LAUNCHER, tmp_path)
    (os.killpg if whole else os.kill)(child.pid, number)
    _, message = child.communicate(timeout=60)
    assert child.returncode == code and message == "stopped: a checkpoint is written\n"
    assert {path.name for path in tmp_path.glob("checkpoint*")} == {"checkpoint0", "checkpoint1"}


@pytest.mark.slow
def test_a_killed_launcher_leaves_checkpoints_and_nobody(tmp_path):
    child = start(LAUNCHER, tmp_path)
    child.kill()
    child.wait()
    wait(lambda: {path.name for path in tmp_path.glob("checkpoint*")} == {"checkpoint0", "checkpoint1"})
    child.communicate(timeout=60)  # the pipes close when the last process that holds them has ended


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_the_process_of_another_launcher_ends_with_it(tmp_path, number):
    child = start(FOREIGN, tmp_path, sys.executable)
    (os.killpg if number == signal.SIGINT else os.kill)(child.pid, number)
    _, message = child.communicate(timeout=60)
    assert (tmp_path / "checkpoint0").exists() and "stopped: a checkpoint is written" in message


@pytest.mark.slow
@pytest.mark.parametrize(("code", "rank"), [(0, "none"), (2, "0"), (3, "1"), (4, "0"), (-9, "1")])
def test_the_exit_code_is_that_of_the_first_to_fail(tmp_path, code, rank):
    child = start(LAUNCHER, tmp_path, code=code, rank=rank)
    _, message = child.communicate(timeout=60)
    assert child.returncode == (code if code >= 0 else 128 - code)
    assert {path.read_text() for path in tmp_path.glob("begun*")} == {"2"}
    wanted = "out of memory" if code < 0 else f"error: rank {rank} is bad" if code else ""
    assert wanted in message and "Traceback" not in message


def test_terminated_where_no_training_listens(tmp_path):
    code = (
        "import time; from synthgen.errors import one_line_errors as o\nwith o(): print(1, flush=True); time.sleep(60)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )  # fmt: skip
    assert child.stdout is not None and child.stdout.readline() == "1\n"
    child.terminate()
    _, message = child.communicate(timeout=60)
    assert child.returncode == 143 and message.startswith("stopped: terminated")


class Several(Config):
    several = True
    steps: int = 1


def test_processes_are_an_option_of_commands_that_can_share_the_work(monkeypatch, capsys):
    done = []

    def work(settings: Several) -> None:
        done.append(settings)

    def alone(settings: Config) -> None:
        done.append(settings)

    def refused(function, *words):
        with pytest.raises(SystemExit) as end:
            Command(function, "c").main(words)
        return end.value.code == 2 and capsys.readouterr().err

    work.__annotations__["settings"], alone.__annotations__["settings"] = Several, Config
    assert "--processes must be a whole number from 1" in refused(work, "--processes", "0")
    assert "--processes must be a whole number from 1" in refused(work, "--processes", "two")
    assert "--steps is not a whole number" in refused(work, "--processes", "2", "--steps", "x")
    assert "no such option: --processes" in refused(alone, "--processes", "2")
    assert not done
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    Command(work, "c").main(["--processes", "2"])
    assert done == [Several()]
    with pytest.raises(ConfigError, match="number of processes"):
        in_processes([], 3)
