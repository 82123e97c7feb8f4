"""The run folder: what was asked, on what it ran, what came out.

config.yaml  environment.json  metrics.jsonl  events.out.tfevents.*  checkpoints/
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
import yaml

from synthgen.config import RUN_SETTINGS, Config, read_table
from synthgen.errors import ConfigError, MismatchError, StorageError, writing
from synthgen.runs.checkpoint import Checkpoints
from synthgen.runs.files import write_json, write_text

FREE = frozenset((  # settings that do not change what a run computes
    "resume", "out", "cpu", "log_every", "checkpoint_every", "monitor_every", "monitor_count", "pool_cache", "compile",
))  # fmt: skip
LENGTH = frozenset(("steps", "minutes", "patience"))  # a run may be made longer, which is said
_PACKAGES = ("torch", "torchvision", "accelerate", "lightly", "timm", "numpy", "h5py", "safetensors", "webdataset")


class RunFolder:
    """A run's folder on one rank; only `main` (rank 0) writes configuration and metrics.

    Args:
        path: the folder. A fresh run refuses a folder that already holds a run (ConfigError), unless `resume`.
        config: the resolved configuration, written to `config.yaml`. A resumed run is the one that was begun: a setting
            that would make it another is refused (MismatchError); see `FREE` and `LENGTH`.
    """

    def __init__(
        self, path: str | os.PathLike, config: Config, *, resume: bool = False, main: bool = True, keep: int = 3
    ):
        self.path, self.main = Path(path), main
        self.checkpoints = Checkpoints(self.path / "checkpoints", keep)
        self._metrics = self._events = None
        if self.path.exists() and not self.path.is_dir():
            raise StorageError("is a file where the run folder should be", path=self.path)
        if not resume and self.checkpoints.steps():
            raise ConfigError(
                "already holds a run", path=self.path, remedy="add --resume to go on with it or choose another --out"
            )
        if resume and not (self.checkpoints.steps() or (self.path / RUN_SETTINGS).is_file()):
            remedy = "check --out, or begin without --resume"
            raise ConfigError("there is no run to resume", path=self.path, remedy=remedy)
        if resume and (self.path / RUN_SETTINGS).is_file():
            _check_same_run(self.path / RUN_SETTINGS, config, main)
        if main:
            with writing(self.path):
                self.path.mkdir(parents=True, exist_ok=True)
            if not resume:  # what a run that died before its first checkpoint has left
                (self.path / "metrics.jsonl").unlink(missing_ok=True)
            write_text(self.path / RUN_SETTINGS, config.to_yaml())
            write_json(self.path / "environment.json", environment())

    def log(self, step: int, **values: float | int | str | None) -> None:
        """One line of `metrics.jsonl`, and a point in TensorBoard for each number."""
        if not self.main:
            return
        with writing(self.path / "metrics.jsonl"):
            if self._metrics is None:
                self._metrics = (self.path / "metrics.jsonl").open("a", encoding="utf-8")
                from torch.utils.tensorboard import SummaryWriter

                self._events = SummaryWriter(str(self.path), flush_secs=30)
            self._metrics.write(json.dumps({"step": step, "time": round(time.time(), 3), **values}) + "\n")
            self._metrics.flush()
            for name, value in values.items():
                if isinstance(value, int | float) and self._events is not None:
                    self._events.add_scalar(name, value, step)

    def rewind(self, step: int) -> None:
        """After a resume from `step`: forget the metrics of later steps, which will be run again."""
        path = self.path / "metrics.jsonl"
        if self.main and path.exists():
            kept = [line for line in path.read_text(encoding="utf-8").splitlines() if _step_of(line) <= step]
            write_text(path, "".join(line + "\n" for line in kept))

    def metrics(self) -> list[dict[str, Any]]:
        return read_metrics(self.path)

    def close(self) -> None:
        for writer in (self._metrics, self._events):
            if writer is not None:
                writer.close()
        self._metrics = self._events = None


def _check_same_run(saved: Path, config: Config, main: bool) -> None:
    """MismatchError naming the first setting that is not what the run was begun with; a word on a new length."""
    was, now = _flat(read_table(saved)), _flat(yaml.safe_load(config.to_yaml()))
    changed = [k for k in now if k in was and now[k] != was[k] and k not in FREE and not _same_file(was[k], now[k])]
    for name in changed:
        if name not in LENGTH:
            raise MismatchError(
                f"the run was begun with another {name}",
                path=saved,
                found=now[name],
                expected=was[name],
                remedy=f"resume without --{name.replace('_', '-')}, or begin another run in another --out",
            )
        if main:
            print(f"resumed with {name} {now[name]} in place of {was[name]}: schedules follow it", file=sys.stderr)


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Tables within tables as dotted names."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found


def _same_file(one: Any, other: Any) -> bool:
    """Two ways to write the path of one file that exists."""
    return (
        isinstance(one, str)
        and isinstance(other, str)
        and Path(one).exists()
        and Path(one).resolve() == Path(other).resolve()
    )


def read_metrics(folder: str | os.PathLike) -> list[dict[str, Any]]:
    """The lines of a run's `metrics.jsonl`; a torn last line (power cut) is left out."""
    path = Path(folder) / "metrics.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if _step_of(line) < float("inf")]


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (json.JSONDecodeError, KeyError, TypeError):
        return float("inf")


def environment() -> dict[str, Any]:
    """Versions, device and commit, as written to `environment.json`."""
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, cwd=Path(__file__).parent
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        commit = ""
    cuda = torch.cuda.is_available()
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": versions,
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "cuda": torch.version.cuda if cuda else None,
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        "threads": torch.get_num_threads(),
        "commit": commit or None,
    }
