"""`--preflight`: a few steps of every stage of a training at the size asked for, then what the whole will take.

The very training runs, in a folder of its own beside `--out` that is taken away again: its data are read, its stages
join one after the other as they would, it validates and saves. So what does not fit or cannot work shows in a minute.
"""

from __future__ import annotations

import os
import resource
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from synthgen.config import Config
from synthgen.errors import ConfigError
from synthgen.runs.folder import read_metrics
from synthgen.runs.processes.ranks import any_rank

STEPS = 6  # stages join at fractions of a training: the discriminators at 0.3, say
TIMED = 3  # of them, the last: every stage has joined, and nothing is compiled or filled any more
GB = 2**30


def preflight(train: Callable[[Any], Any], config: Config) -> dict[str, Any]:
    """What the training `train(config)` will take, measured on a few steps.

    Returns: minutes_before (the first step), seconds_a_step, cubes_per_second (of all processes), minutes_a_validation,
    minutes (all in all, or what `--minutes` allows), and gigabytes (the peak of this process on its card, or in
    memory). Of a recipe of several trainings, a table for each by its name.

    Raises whatever the training raises, and ConfigError where it does not fit into memory or its place is taken.
    """
    out, main = str(config.out), int(os.environ.get("RANK", "0")) == 0
    place = f"{Path(out).resolve()}.preflight"
    if main and Path(place).exists():
        raise ConfigError(
            "is there already, from a preflight that was killed or is at work, or as a folder of yours",
            path=place,
            remedy="remove it, or give another --out",
        )
    begun = time.time()
    try:
        train(shortened(config, out, place))
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise ConfigError(
            "does not fit into memory",
            found=str(error).split(". ")[0],
            remedy="a smaller --batch-size, or --accumulate, --crop or fewer channels where there are such",
        ) from error
    else:
        found: dict[str, Any] = {}
        for name, part in _runs(config):
            found[name], begun = _predicted(part, Path(place, name), begun)
        return {**(found if len(found) > 1 else found[""]), "gigabytes": round(_peak(), 2)}
    finally:
        any_rank(False)  # the others have ended too
        if main:
            shutil.rmtree(place, ignore_errors=True)


def shortened(config: Config, out: str, place: str) -> Config:
    """The training with few steps, every one logged, in another place; settings of settings likewise."""
    few: dict[str, Any] = {"steps": STEPS, "log_every": 1, "minutes": None, "resume": False, "tracker": ""}
    change: dict[str, Any] = {}
    for name in type(config).model_fields:
        value = getattr(config, name)
        if isinstance(value, Config) and "out" in type(value).model_fields:
            change[name] = shortened(value, out, place)
        elif isinstance(value, str) and (name == "out" or _comes_out(value, out)):
            change[name] = place + value[len(out.rstrip("/")) :]
        elif name in few:
            change[name] = few[name]
    return config.model_copy(update=change)


def _comes_out(path: str, out: str) -> bool:
    """Whether a path is of something that the training itself will leave in `out`: what is there is only read."""
    return path.startswith(out.rstrip("/") + "/") and not Path(path).exists()


def _runs(config: Config) -> list[tuple[str, Config]]:
    """The run folders within `--out`, "" for itself, and the settings of each."""
    inner = [(name, getattr(config, name)) for name in type(config).model_fields]
    parts = [(n, v) for n, v in inner if isinstance(v, Config) and "out" in type(v).model_fields]
    return parts or [("", config)]


def _predicted(config: Config, folder: Path, begun: float) -> tuple[dict[str, float], float]:
    """What a run that was begun then will take, and when its short one ended."""
    lines = read_metrics(folder)
    steps = {line["step"]: line["time"] for line in reversed(lines)}  # the first line of a step is that of its losses
    last = max(steps)
    a_step = (steps[last] - steps[last - TIMED]) / TIMED
    before, end = max(0.0, steps[1] - a_step - begun), max(line["time"] for line in lines)
    whole, batch = config.steps, config.batch_size
    validation = end - steps[last]
    every = getattr(config, "validate_every", 0)
    minutes = (before + whole * a_step + validation * (whole // every if every else 1)) / 60
    if (limit := getattr(config, "minutes", None)) is not None:
        minutes = min(minutes, before / 60 + limit)
    predicted = {
        "minutes_before": round(before / 60, 2),
        "seconds_a_step": round(a_step, 4),
        "cubes_per_second": round(batch * int(os.environ.get("WORLD_SIZE", "1")) / max(a_step, 1e-9), 2),
        "minutes_a_validation": round(validation / 60, 2),
        "minutes": round(minutes, 1),
    }
    return predicted, end


def _peak() -> float:
    """GB: the most that this process has held on its card, or without one in memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / GB
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GB
