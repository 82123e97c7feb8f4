"""`make demo` timed, and what its study found.

python -m benchmarks.study.demo [--read FOLDER of one that ran]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from benchmarks.common import record
from synthgen.experiments.demo import MARK, run_demo


def measure(read: str | None = None) -> None:
    """Record the seconds of each stage and the study's findings: of a demo run now, or of a finished one's folder."""
    if read is None:
        with tempfile.TemporaryDirectory() as folder:
            found = run_demo(Path(folder) / "demo")
    else:
        found = json.loads((Path(read) / MARK).read_text())
    study, verdict = found["study"], found["verdict"]
    record(
        "demo",
        {
            "seconds": found["seconds"],
            "total_seconds": found["total_seconds"],
            "shards": {k: verdict[k] for k in ("status", "proposed", "accepted")},
            "patients": study["n_patients"],
            "arms": study["arms"],
            "differences": study["differences"],
            "conclusion": found["conclusion"],
        },
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--read", help="the folder of a demo that ran")
    measure(parser.parse_args().read)
