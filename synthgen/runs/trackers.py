"""Experiment trackers beside `metrics.jsonl` and TensorBoard: wandb, mlflow and others, through accelerate.

They are not installed with synthgen; each is configured as its own page says (WANDB_MODE, MLFLOW_TRACKING_URI, ...).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from synthgen.errors import ConfigError

KNOWN = ("wandb", "mlflow", "comet_ml", "aim", "clearml", "dvclive", "swanlab", "trackio")
PACKAGES = {"comet_ml": "comet-ml"}  # where pip's name is another


def names_of(text: str) -> list[str]:
    """The trackers to open; TensorBoard's events are the run folder's own."""
    return [name for part in text.split(",") if (name := part.strip()) not in ("", "tensorboard")]


def _known(text: str) -> str:
    if unknown := set(names_of(text)) - set(KNOWN):
        raise ValueError(
            f"unknown tracker {sorted(unknown)[0]!r}; there are tensorboard (always on), {', '.join(KNOWN)}"
        )
    return text


Trackers = Annotated[
    str,
    AfterValidator(_known),
    Field(description=f"experiment trackers beside TensorBoard, separated by commas: {', '.join(KNOWN)}"),
]


def check_installed(text: str) -> None:
    """ConfigError for a tracker that is not installed."""
    from accelerate.tracking import get_available_trackers

    there = {str(name) for name in get_available_trackers()} if text else set()
    for name in names_of(text):
        if name not in there:
            remedy = f"install it (pip install {PACKAGES.get(name, name)}), or leave --tracker out"
            raise ConfigError("the experiment tracker is not installed", found=name, remedy=remedy)


def open_trackers(text: str, folder: Path, settings: dict[str, Any]) -> list[Any]:
    """accelerate's trackers of these names, with the settings of the run, which has the name of its folder.

    ConfigError where one cannot be started."""
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    opened = []
    for name in names_of(text):
        kind, run = LOGGER_TYPE_TO_CLASS[name], {"name": folder.name, "dir": str(folder)} if name == "wandb" else {}
        if name == "mlflow":  # the name that it takes first is the experiment's
            run = {"run_name": folder.name}
        place = (str(folder),) if kind.requires_logging_directory else ()
        plain = {k: v if isinstance(v, int | float | str) else str(v) for k, v in settings.items()}
        try:
            tracker = kind("synthgen", *place, **run)
            tracker.start()
            tracker.store_init_configuration(plain)
        except Exception as error:  # each has errors of its own: no account, no server, no disk
            raise ConfigError(
                "the experiment tracker cannot be started",
                found=f"{name}: {str(error).splitlines()[0] if str(error) else type(error).__name__}",
                remedy=f"set {name} up as its own page describes, or leave --tracker out",
            ) from error
        opened.append(tracker)
    return opened


def still_there(trackers: list[Any], act: Callable[[Any], object]) -> list[Any]:
    """The trackers that take `act`. One that does not is named and left out from then on: no run is lost to it."""
    kept = []
    for tracker in trackers:
        try:
            act(tracker)
            kept.append(tracker)
        except Exception as error:  # a server that has gone, a quota
            print(f"warning: {tracker.name} takes no more metrics: {error}; metrics.jsonl does", file=sys.stderr)
    return kept
