"""What synthetic cubes cost the training loop, on any machine: `python -m benchmarks.run --only loop`.

Three runs of `pretrain.py` stand side by side: without synthetic cubes, with half, and with half whose decoded cubes
are kept. One at a time goes on for a few seconds while the others are stopped (SIGSTOP), in turn and each turn in
another order, so whatever else the machine does meets them all. Time is what a run was let go on for; only steps after
a full turnover of the pool count: what was admitted before the first step has been used up by then.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import ROOT
from benchmarks.common import record
from synthgen.errors import SynthgenError
from synthgen.integration.artifacts import default_cohort
from synthgen.runs.folder import read_metrics
from synthgen.science.bootstrap import middle

BATCH, REUSE = 64, 8
ARMS = {
    "0": ("--synthetic-ratio", "0"),
    "0.5": ("--synthetic-ratio", "0.5", "--pool-cache", "off"),
    "0.5, decoded cache": ("--synthetic-ratio", "0.5", "--pool-cache", "on"),
}
SETTINGS = ("--gates", "report", "--certify-count", "64", "--log-every", "1", "--steps", "1000000",
            "--checkpoint-every", "1000000", "--monitor-every", "0")  # fmt: skip
WARM = 5  # steps of the run without synthetic cubes before any counts
DRAWS = 2000


class Stopwatch:
    """A run that goes on only while it is let, and the seconds that it was let at each of its steps."""

    def __init__(self, name: str, data: Path, out: Path):
        self.name, self.out, self.slices = name, out, []
        self.log = out.with_suffix(".log")
        command = [sys.executable, "pretrain.py", "--data", str(data), "--out", str(out), *ARMS[name], *SETTINGS]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)

    def lines(self) -> list[dict[str, Any]]:
        done = (self.out / "metrics.jsonl").exists()
        return [m for m in read_metrics(self.out) if "samples_seen" in m] if done else []

    def turned_over(self) -> bool:
        """Whether all cubes that were admitted before the first step have been drawn as often as they may."""
        lines = self.lines()
        if not lines or self.name == "0":
            return len(lines) > WARM
        return lines[-1]["synthetic_seen"] >= REUSE * lines[0]["pool/accepted"]

    def go_on(self, seconds: float | None) -> None:
        """For so many seconds, or until the pool has turned over; SynthgenError if the run has ended."""
        began = time.time()
        os.killpg(self.process.pid, signal.SIGCONT)
        while (time.time() - began < seconds) if seconds is not None else not self.turned_over():
            time.sleep(0.05 if seconds is not None else 1)
            if self.process.poll() is not None:
                raise SynthgenError("a run of the benchmark ended", path=self.log, found=self.log.read_text()[-500:])
        os.killpg(self.process.pid, signal.SIGSTOP)
        if seconds is not None:
            self.slices.append((began, time.time()))

    def clock(self) -> np.ndarray:
        """For each counted step, by its number since counting began: the seconds that the run had been let go on."""
        edges, ends = (np.array(side) for side in zip(*self.slices, strict=True))
        before = np.concatenate([[0.0], np.cumsum(ends - edges)])
        stamps = np.array([m["time"] for m in self.lines()])
        stamps = stamps[stamps > edges[0]]
        which = np.searchsorted(edges, stamps) - 1
        return before[which] + np.minimum(stamps, ends[which]) - edges[which]

    def end(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def measure(seconds: float = 15, turns: int = 16, device_note: str = "cpu") -> None:
    """samples/s at ratio 0.5, with and without decoded cubes kept, over ratio 0; `turns` slices of `seconds` each."""
    with tempfile.TemporaryDirectory() as folder:
        data = default_cohort(folder).path
        runs: list[Stopwatch] = []
        try:
            for name in ARMS:
                runs.append(Stopwatch(name, data, Path(folder) / name.replace(", ", "_").replace(" ", "_")))
                runs[-1].go_on(None)
                print(f"{name}: {len(runs[-1].lines())} steps until the pool has turned over", flush=True)
            began = {run.name: len(run.lines()) for run in runs}
            for turn in range(turns):
                for run in np.random.default_rng(turn).permutation(np.array(runs, dtype=object)):
                    run.go_on(seconds)
            found = compared({run.name: run.clock() for run in runs}, seconds)
            lines = {run.name: run.lines() for run in runs}
        finally:
            for run in runs:
                run.end()
    record(
        "loop_speed",
        {
            "on": device_note,
            "batch": BATCH,
            "reuse": REUSE,
            "slices": turns,
            "seconds_a_slice": seconds,
            "counted_from_step": began,
            "steps": {name: len(made) for name, made in lines.items()},
            "pools": {
                name: {k: round(v, 3) for k, v in made[-1].items() if k.startswith(("pool/", "window/"))}
                for name, made in lines.items()
                if name != "0"
            },
            **found,
            "asked_at_least": [0.8, 0.85],
        },
    )


def compared(clocks: dict[str, np.ndarray], seconds: float) -> dict[str, Any]:
    """Rates and their ratios; intervals: 95 %, bootstrap over turns (the steps of a slice, fractions included)."""
    edges = seconds * np.arange(1, int(min(c[-1] for c in clocks.values()) / seconds) + 1)  # the first has half a step
    made = {name: np.diff(np.interp(edges, clock, np.arange(len(clock)))) for name, clock in clocks.items()}
    turns = len(edges) - 1
    picked = np.random.default_rng(0).integers(turns, size=(DRAWS, turns))
    rates = {name: BATCH * steps.sum() / (turns * seconds) for name, steps in made.items()}
    found: dict[str, Any] = {"samples_per_second": {name: round(float(rate), 1) for name, rate in rates.items()}}
    for key, name in (("ratio_half_over_none", "0.5"), ("with_decoded_cache", "0.5, decoded cache")):
        found[key] = round(float(rates[name] / rates["0"]), 3)
        drawn = made[name][picked].sum(1) / made["0"][picked].sum(1)
        found[f"{key}, interval"] = [round(q, 3) for q in middle(drawn)]
    return found


def measure_on_gpu() -> None:
    """With slices of three seconds: a step takes milliseconds there."""
    measure(seconds=3, turns=10, device_note=torch.cuda.get_device_name())
