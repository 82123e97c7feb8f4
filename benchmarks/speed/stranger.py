"""A stranger's path, timed: a clone of the repository, and the README's first commands.

    python -m benchmarks.speed.stranger

A fresh clone of what is committed, a fresh virtual environment, `make setup`, `make demo`, `make test`; an installer's
cache on the machine makes the first one quicker than it is for a stranger.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import ROOT
from benchmarks.common import record

TARGETS = ("setup", "demo", "test")


def measure(targets: tuple[str, ...] = TARGETS) -> None:
    """Minutes of each target and its last line; stops at the first that fails."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
    found: dict = {"commit": commit.stdout.strip()[:12]}
    with tempfile.TemporaryDirectory() as place:
        clone = Path(place) / "clone"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        clean = {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "PYTHONPATH", "SYNTHGEN_THREADS")}
        for target in targets:
            start = time.monotonic()
            done = subprocess.run(["make", target], cwd=clone, env=clean, capture_output=True, text=True)
            lines = (done.stdout.strip() or done.stderr.strip() or "nothing said").splitlines()
            found[target] = {"minutes": round((time.monotonic() - start) / 60, 2), "said": lines[-1][:200]}
            print(target, found[target], flush=True)
            if done.returncode:
                sys.exit(f"make {target} failed:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    record("stranger", {"what": ", ".join(targets), **found})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", default=list(TARGETS))
    measure(tuple(parser.parse_args().targets))
