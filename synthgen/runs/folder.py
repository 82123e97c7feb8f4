"""The run folder: what was asked, from what it was made, on what it ran, what came out.

config.yaml  command.json  inputs.json  environment.json  metrics.jsonl  events.out.tfevents.*  checkpoints/
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Collection
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
import yaml
from pydantic_core import to_jsonable_python

from synthgen.config import RUN_SETTINGS, Config, fields, read_table
from synthgen.errors import ConfigError, MismatchError, StorageError, SynthgenError, writing
from synthgen.runs.checkpoint import Checkpoints
from synthgen.runs.files import json_text, read_json, write_json, write_text
from synthgen.runs.locks import one_at_a_time
from synthgen.runs.processes.ranks import any_rank
from synthgen.runs.trackers import check_installed, open_trackers, still_there

COMMAND = "command.json"
FREE = frozenset((  # settings that do not change what a run computes
    "resume", "out", "cpu", "log_every", "checkpoint_every", "monitor_every", "monitor_count", "pool_cache", "compile",
    "tracker",
))  # fmt: skip
LENGTH = frozenset(("steps", "minutes", "patience"))  # a run may be made longer, which is reported
REPORTED = LENGTH | {"precision"}  # and go on in another precision, as after gradients that bf16 has made NaN
INPUTS, ENVIRONMENT = "inputs.json", "environment.json"
_PACKAGES = ("torch", "torchvision", "accelerate", "lightly", "timm", "numpy", "h5py", "safetensors", "webdataset")


class RunFolder:
    """A run's folder on one rank; only `main` (rank 0) writes. A context manager that holds the folder: another command
    that would write here is refused meanwhile.

    Nothing is written before `begin`, so a run that is refused leaves the folder as it was.

    Args:
        path: the folder. A fresh run refuses a folder that already holds a run (ConfigError), unless `resume`.
        config: the resolved configuration, written to `config.yaml`. A resumed run is the one that was begun: a setting
            that would make it another is refused (MismatchError); see `FREE` and `REPORTED`. Files and folders named in
            it are known by their contents instead, where these were given to `made_from`.

    Raises on every rank when one cannot have the folder.
    """

    def __init__(
        self, path: str | os.PathLike, config: Config, *, resume: bool = False, main: bool = True, keep: int = 3
    ):
        self.path, self.main, self.config, self.resume = Path(path), main, config, resume
        self.checkpoints = Checkpoints(self.path / "checkpoints", keep)
        self.inputs: dict[str, str] = {}
        self._metrics = self._events = None
        self._trackers: list[Any] = []
        check_installed(getattr(config, "tracker", ""))
        self._held, refused = ExitStack(), None
        if self.path.exists() and not self.path.is_dir():
            raise StorageError("is a file where the run folder should be", path=self.path)
        if resume and not (self.checkpoints.steps() or (self.path / RUN_SETTINGS).is_file()):
            remedy = "check --out, or begin without --resume"
            raise ConfigError("there is no run to resume", path=self.path, remedy=remedy)
        if main:
            try:
                self._held.enter_context(one_at_a_time(self.path, make=True))
            except SynthgenError as error:
                refused = error
        if any_rank(refused is not None):
            self._held.close()
            raise refused or StorageError("the main process cannot have this folder", path=self.path)
        try:
            if not resume and self.checkpoints.steps():
                raise ConfigError(
                    "already holds a run",
                    path=self.path,
                    remedy="add --resume to go on with it or choose another --out",
                )
            kept = read_json(self.path / INPUTS) if resume and (self.path / INPUTS).exists() else {}
            self._kept: dict[str, str] = kept.get("contents", {})
            self._seen: list[dict[str, Any]] = kept.get("provenance", [])
            self._changed: dict[str, list[Any]] = {}
            if resume and (self.path / RUN_SETTINGS).is_file():
                self._changed = _changes(self.path / RUN_SETTINGS, config, self._kept.keys())
            self._check_length()
        except BaseException:
            self._held.close()
            raise

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self._held.close()

    def _check_length(self) -> None:
        """MismatchError where the run has made more steps than it is resumed with."""
        asked, made = getattr(self.config, "steps", None), self.checkpoints.steps()
        if asked is None or not made or made[-1] <= asked or (done := self.checkpoints.latest() or 0) <= asked:
            return
        raise MismatchError(
            f"has already made {done} steps",
            path=self.path,
            found=f"--steps {asked}",
            expected=f"at least {done}",
            remedy="leave --steps out to finish it as it was begun, or begin another run in another --out",
        )

    def made_from(self, **contents: str | None) -> None:
        """Hashes of what the run is made from, each by the name of its setting (None: the run has no such thing).

        MismatchError where a resumed run was begun with other contents, whatever the name of the file.
        """
        for name, content in contents.items():
            kept = self._kept.get(name)
            if self._kept and content != kept:
                setting = f"--{name.replace('_', '-')}"
                raise MismatchError(
                    f"the run was begun with other contents of {setting}" if name != "split" else _SPLIT,
                    path=self.path,
                    found=content or "none",
                    expected=kept or "none",
                    remedy="put back what the run was begun with, or begin another run in another --out",
                )
            if content is not None:
                self.inputs[name] = content

    def begin(self, step: int, *, provenance: dict[str, Any] | None = None, **facts: Any) -> list[dict[str, Any]]:
        """Write what the run is, before step `step`, when nothing can refuse it any more.

        Args:
            provenance: of the patients that are trained on, as plain values. facts: what else `environment.json` is to
                say of this sitting.

        Returns: every provenance that the run has had so far, the present one last.

        Raises MismatchError where the run was begun with something that it has no longer.
        """
        self.made_from(**dict.fromkeys(self._kept.keys() - self.inputs.keys()))
        if provenance is not None and provenance not in self._seen:
            self._seen.append(provenance)
        if not self.main:
            return self._seen
        if self.resume and not self._kept and self.inputs:
            print(
                f"{self.path}: the run was begun by a version that did not keep what it was made from; whether "
                f"{', '.join(sorted(self.inputs))} are the same cannot be determined",
                file=sys.stderr,
            )
        for name, (was, now) in self._changed.items():
            follow = ": schedules follow it" if name in LENGTH else ""
            print(f"resumed with {name} {now} in place of {was}{follow}", file=sys.stderr)
        earlier: list[dict[str, Any]] = []
        if self.resume and (self.path / ENVIRONMENT).exists():
            last = read_json(self.path / ENVIRONMENT)
            earlier = [*last.pop("earlier", []), {**last, "until_step": step}]
        if not self.resume:  # what a run that died before its first checkpoint has left
            (self.path / "metrics.jsonl").unlink(missing_ok=True)
        write_text(self.path / RUN_SETTINGS, self.config.to_yaml())
        record_command(self.path, self.config)
        write_json(self.path / INPUTS, {"contents": self.inputs, "provenance": self._seen})
        own = {**environment(), "from_step": step, "changed": self._changed, **facts}
        write_json(self.path / ENVIRONMENT, own | ({"earlier": earlier} if earlier else {}))
        settings = {
            k: v if isinstance(v, int | float | str) else str(v) for k, v in _flat(self.config.model_dump()).items()
        }
        self._trackers = open_trackers(getattr(self.config, "tracker", ""), self.path, settings)
        return self._seen

    def log(self, step: int, **values: float | int | str | None) -> None:
        """One line of `metrics.jsonl`, a point in TensorBoard for each number, and the same to each tracker."""
        if not self.main:
            return
        with writing(self.path / "metrics.jsonl"):
            if self._metrics is None:
                self._metrics = (self.path / "metrics.jsonl").open("a", encoding="utf-8")
                from torch.utils.tensorboard import SummaryWriter

                self._events = SummaryWriter(str(self.path), flush_secs=30)
            self._metrics.write(json_text({"step": step, "time": round(time.time(), 3), **values}) + "\n")
            self._metrics.flush()
            for name, value in values.items():
                if isinstance(value, int | float) and self._events is not None:
                    self._events.add_scalar(name, value, step)
        numbers = {k: v for k, v in values.items() if isinstance(v, int | float)}
        self._trackers = still_there(self._trackers, lambda tracker: tracker.log(numbers, step=step))

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
        still_there(self._trackers, lambda tracker: tracker.finish())
        self._trackers = []


_SPLIT = "the run was begun with another split of the patients"


def _changes(saved: Path, config: Config, known: Collection[str]) -> dict[str, list[Any]]:
    """Settings that a resumed run changes and may change, [before, now] by name; MismatchError naming another one.

    known: settings whose contents are compared instead.
    """
    was, now = _flat(read_table(saved)), _flat(yaml.safe_load(config.to_yaml()))
    apart = FREE | set(known)
    changed = [k for k in now if k in was and now[k] != was[k] and k not in apart and not _same_file(was[k], now[k])]
    for name in changed:
        if name not in REPORTED:
            raise MismatchError(
                f"the run was begun with another {name}",
                path=saved,
                found=now[name],
                expected=was[name],
                remedy=f"resume without --{name.replace('_', '-')}, or begin another run in another --out",
            )
    return {name: [was[name], now[name]] for name in changed}


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Tables within tables as dotted names."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        result |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return result


def _same_file(one: Any, other: Any) -> bool:
    """Two ways to write the path of one file that exists."""
    return (
        isinstance(one, str)
        and isinstance(other, str)
        and Path(one).exists()
        and Path(one).resolve() == Path(other).resolve()
    )


def record_command(folder: str | os.PathLike, config: Config) -> None:
    """Write `command.json`: which command made the folder, and the defaults that its settings had then."""
    defaults = {name: default for name, (_, _, default) in fields(type(config)).items()}
    write_json(Path(folder) / COMMAND, to_jsonable_python({"command": config.command, "defaults": defaults}))


def read_command(folder: str | os.PathLike) -> tuple[str, dict[str, Any]]:
    """What `record_command` wrote: the command ("" where no command made the folder) and its defaults."""
    path = Path(folder) / COMMAND
    result = read_json(path) if path.exists() else {"command": "", "defaults": {}}
    return result["command"], result["defaults"]


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
