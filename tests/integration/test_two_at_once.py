"""Two commands at once in one place: the second is refused in one line, whatever the command."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from synthgen.cli.shared import COMMANDS
from synthgen.runs.locks import one_at_a_time

ROOT = Path(__file__).parents[2]
# Write files of which each appears whole; none goes on with an older one.
ONE_FILE = {"phantom", "view", "figure", "export", "embed", "probe"}
NOTHING = {"doctor", "info", "augmentations", "report"}  # print; report adds its page to a run at work
CONFIGS = ROOT / "configs"
WORDS = {  # what makes a command valid as far as the lock, OUT and FILE filled in
    "demo": "--out OUT",
    "pretrain": "--data FILE --out OUT",
    "train-autoencoder": "--data FILE --out OUT",
    "train-diffusion": "--data FILE --autoencoder FILE --out OUT",
    "train-generator": f"--config {CONFIGS / 'phantom64.yaml'} --data FILE --out OUT",
    "calibrate": "--data FILE --out OUT",
    "study": "--data FILE --out OUT",
    "sweep": f"--config {CONFIGS / 'sweep64.yaml'} --data FILE --out OUT",
    "pareto": f"{ROOT / 'benchmarks' / 'results' / 'sweep64'} --out OUT",
    "sample": "--out OUT",
    "gate": "OUT --gates phantom64",
    "evaluate": "--synthetic FILE --real FILE --gates phantom64 --out OUT/report.html",
    "ingest": "FILE OUT/eyes.h5 --each-file-a-patient",
}


def writes(name):
    """Whether a command has a place to write to: `out`, or the cohort of `phantom`."""
    return name == "phantom" or "out" in {s.name for s in COMMANDS[name].settings()}


def test_every_command_is_known_here():
    """A new command is refused here until it says in which of the three kinds it is."""
    assert set(WORDS) | ONE_FILE | NOTHING == set(COMMANDS)
    assert {name for name in COMMANDS if writes(name)} == set(WORDS) | ONE_FILE


@pytest.mark.parametrize("name", WORDS)
def test_the_second_is_refused(name, synthgen, cohort, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    held = {"evaluate": out / "report.html", "ingest": out / "eyes.h5.partial" / "lock"}.get(name, out)
    if name == "ingest":
        held.parent.mkdir()
        held = _flocked(held)
    else:
        held = one_at_a_time(held)
    words = WORDS[name].replace("FILE", str(cohort.path)).replace("OUT", str(out)).split()
    with held:
        before = sorted(out.rglob("*"))
        code, _, err = synthgen(name, *words)
        assert sorted(out.rglob("*")) == before
    assert code == 2 and len(err.splitlines()) == 1, err
    assert ("another command is at work on this" in err or name == "ingest") and str(out) in err
    assert name != "ingest" or "another ingest is writing here" in err


def _flocked(path):
    import contextlib
    import fcntl

    file = path.open("wb")
    fcntl.flock(file, fcntl.LOCK_EX)
    return contextlib.closing(file)


@pytest.mark.parametrize("what", ["folder", "file.html"])
def test_a_killed_process_holds_nothing(tmp_path, what):
    place = tmp_path / what
    code = (
        "import sys\nfrom synthgen.runs.locks import one_at_a_time\n"
        "with one_at_a_time(sys.argv[1], make=sys.argv[1].endswith('folder')):\n"
        "    print('held', flush=True)\n    sys.stdin.read()\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(place)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert child.stdout is not None and child.stdout.readline().strip() == "held"
    with pytest.raises(Exception, match="another command is at work"), one_at_a_time(place):
        pass
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    with one_at_a_time(place):
        pass
    left = [what] if what == "folder" else []
    assert os.listdir(tmp_path) == left, "a lock leaves nothing behind"


def test_a_folder_made_for_nothing_is_removed_and_an_older_one_is_not(tmp_path):
    (tmp_path / "old").mkdir()
    for name in ("old", "new", "deep/new"):
        with one_at_a_time(tmp_path / name, make=True):
            assert (tmp_path / name).is_dir()
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["deep", "old"]
