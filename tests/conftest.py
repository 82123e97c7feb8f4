"""Shared settings of all tests: quiet progress, few threads, no network, shape annotations checked at run time."""

import os

os.environ.setdefault("SYNTHGEN_QUIET", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing may be downloaded
os.environ.setdefault("SYNTHGEN_THREADS", "1")  # two test workers share two cores

import pytest
import torch

torch.set_num_threads(1)


def pytest_collection_modifyitems(items):
    """Skip visibly what needs a CUDA device where there is none."""
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

    path = Path(__file__).parents[1] / "benchmarks" / "results" / "torture.json"

    def record(name, value):
        path.parent.mkdir(parents=True, exist_ok=True)
        found = json.loads(path.read_text()) if path.exists() else {}
        found[name] = value
        path.write_text(json.dumps(dict(sorted(found.items())), indent=2) + "\n")

    return record
