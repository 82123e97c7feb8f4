"""Shared settings of all tests: quiet progress, few threads, no network."""

import os
import signal
from collections import Counter

os.environ.setdefault("SYNTHGEN_QUIET", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing may be downloaded
os.environ.setdefault("SYNTHGEN_THREADS", "1")  # two test workers share two cores

import pytest
import torch
from filelock import FileLock

torch.set_num_threads(1)
pytest_plugins = ["tests.small_runs"]

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # begun by a script in the background: children would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items):
    """Files with the most slow tests first: two workers then end together. Skip visibly what needs a CUDA device where
    there is none."""
    slow = Counter(item.path for item in items if "slow" in item.keywords)
    items.sort(key=lambda item: -slow[item.path])
    if torch.cuda.is_available():
        return
    for item in items:
        if "cuda" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(scope="session")
def small_disk(tmp_path_factory):
    """A file system of a few megabytes (tmpfs); skipped where this user may not mount one."""
    import subprocess

    folder = tmp_path_factory.mktemp("small_disk")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True)
    if done.returncode != 0:
        pytest.skip("needs the right to mount a small tmpfs")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], capture_output=True)


@pytest.fixture
def torture_record():
    """Add a figure to benchmarks/results/torture.json."""
    import json
    from pathlib import Path

    from benchmarks import figures

    path = Path(__file__).parents[1] / "benchmarks" / "results" / "torture.json"

    def record(name, value):
        path.parent.mkdir(parents=True, exist_ok=True)
        found = json.loads(path.read_text()) if path.exists() else {}
        found[name] = value
        path.write_text(json.dumps(dict(sorted(found.items())), indent=2) + "\n")
        figures.write()

    return record


@pytest.fixture(scope="session")
def made_once(tmp_path_factory, worker_id):
    """Make a folder once for all workers of the session: (name, function that fills it) -> folder."""
    base = tmp_path_factory.getbasetemp()
    root = base if worker_id == "master" else base.parent

    def call(name, fill):
        folder = root / f"once_{name}"
        with FileLock(root / f"once_{name}.lock"):
            if not folder.exists():
                partial = root / f"once_{name}.partial"
                partial.mkdir()
                fill(partial)
                partial.rename(folder)
        return folder

    return call


@pytest.fixture(scope="session")
def eyes(made_once):
    """Simulated eyes at 64 pixels, enough of them for small gates."""
    from synthgen.cubes.cohort.cohort import Cohort
    from synthgen.cubes.cohort.splits import load_or_make_split
    from synthgen.cubes.phantom.cohort import simulate_cohort

    def fill(folder):
        cohort = simulate_cohort(folder / "eyes.h5", patients=60, size=64, seed=11, workers=1)
        load_or_make_split(cohort, (0.5, 0.45, 0.05))

    return Cohort.open(made_once("eyes", fill) / "eyes.h5")


@pytest.fixture(scope="session")
def small_gates(eyes, made_once):
    """A folder of gates of those eyes: barely trained networks, sets of 25, all that the limits need."""
    from synthgen.quality.calibrate import Calibration, calibrate

    small = Calibration(
        data=str(eyes.path),
        out="",
        sizes=(25,),
        resamples=40,
        alpha=0.2,
        plausible_alpha=0.03,
        encoder_steps=3,
        memorization_steps=10,  # after three, different eyes still share a code
        segmenter_steps=0,
    )
    make = lambda folder: calibrate(small.model_copy(update={"out": str(folder / "gates")}))
    return made_once("small_gates", make) / "gates"


@pytest.fixture(scope="session")
def fresh_eyes(made_once):
    """Simulated eyes of patients that the small gates have not seen."""
    from synthgen.cubes.cohort.cohort import Cohort
    from synthgen.cubes.phantom.cohort import simulate_cohort

    make = lambda folder: simulate_cohort(folder / "fresh.h5", patients=64, size=64, seed=12, workers=1)
    return Cohort.open(made_once("fresh_eyes", make) / "fresh.h5")
