"""What a sweep reports while it runs: one line for each job that ends, with what came out and the time left."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from synthgen.experiments.sweep.plan import KINDS, Cell, Job, Sweep, jobs, record
from synthgen.runs.files import read_json

GUESS = {"coder": 60.0, "flow": 60.0, "speed": 30.0}  # seconds of a job beside its training, until one has ended


class Clock:
    """How many jobs of each kind have ended, and how long the rest will take.

    Args: the sweep, and the cells that are to be done.
    """

    def __init__(self, sweep: Sweep, todo: Sequence[Cell]):
        self.width = sweep.devices or 1
        self.total = {kind: len(jobs(kind, todo)) for kind in KINDS}
        self.spent: dict[str, list[float]] = {kind: [] for kind in KINDS}
        self.guess = {
            "coder": GUESS["coder"] + 60 * float(sweep.autoencoder.get("minutes") or 0),
            "flow": GUESS["flow"] + 60 * float(sweep.diffusion.get("minutes") or 0),
            "speed": GUESS["speed"],
        }

    def ended(self, job: Job, seconds: float) -> float:
        """Note a job that has ended; returns the seconds left for all kinds together, by the means so far."""
        if seconds:
            self.spent[job.kind].append(seconds)
        else:  # it was not begun, for want of what it needs
            self.total[job.kind] -= 1
        left = 0.0
        for kind, spent in self.spent.items():
            each = sum(spent) / len(spent) if spent else self.guess[kind]
            left += each * max(self.total[kind] - len(spent), 0) / (1 if kind == "speed" else self.width)
        return left

    def count(self, kind: str) -> str:
        """Such as 'autoencoder 3/9'."""
        done = len(self.spent[kind])
        return f"{KINDS[kind]} {done}/{max(self.total[kind], done)}"


def words_of(sweep: Sweep, job: Job, failure: str | None, count: str, left: float) -> str:
    """The line of a job that has ended."""
    names = ", ".join(f"{c.name} seed {c.seed}" for c in job.cells)
    clock = f"{int(left // 3600)}:{int(left // 60) % 60:02d}:{int(left) % 60:02d} left"
    return f"{count}  {names}: {f'FAILED: {failure}' if failure else _found(sweep, job)}  {clock}"


def _found(sweep: Sweep, job: Job) -> str:
    if job.kind == "coder":
        path = Path(sweep.out) / job.name / "screen.json"
        return f"interpolation distance {read_json(path)['interpolation_frechet']:.4g}" if path.exists() else "stopped"
    parts = []
    for cell in job.cells:
        found = record(sweep, cell)
        if found is None:
            parts.append("stopped")
        elif job.kind == "speed":
            parts.append(f"{found['speed']['cubes_per_s'][0]:.3g} cubes/s" if found["speed"] else "not timed")
        else:
            value, low, high = found["figures"]["frechet"]
            parts.append(
                f"distance {value:.3g} [{low:.3g}, {high:.3g}], |MS-SSIM| {found['figures']['ms_ssim_gap'][0]:.3g}"
            )
    return "; ".join(parts)
