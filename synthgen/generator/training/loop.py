"""What both trainings share: budget, learning rate, the loop with its checkpoints, stops and validations."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, ClassVar, Literal, NamedTuple

import torch
import torch.distributed as dist
from accelerate import Accelerator
from pydantic import Field

from synthgen.config import Config
from synthgen.contracts import Provenance
from synthgen.errors import MismatchError, Stopped
from synthgen.runs.folder import RunFolder
from synthgen.runs.progress import progress
from synthgen.runs.randomness import capture, restore
from synthgen.runs.signals import StopRequest
from synthgen.runs.trackers import Trackers
from synthgen.science.schedules import cosine, warm_up


class LoopOptions(Config):
    """The options of every training of this room."""

    several: ClassVar[bool] = True
    data: str = Field(description="cohort file (HDF5)")
    out: str = Field(description="run folder")
    resume: bool = Field(default=False, description="go on from the newest checkpoint in the run folder")
    patients: Literal["train", "known", "all"] = Field(
        default="train",
        description="learn from the split's training patients; known: the same, and the provenance names the "
        "calibration patients, who choose the weights, too; all: learn from all (then nothing is held out)",
    )
    steps: int = Field(default=20_000, ge=1, description="training steps")
    minutes: float | None = Field(
        default=None, gt=0, description="stop after so many minutes of training, if before `steps`"
    )
    batch_size: int = Field(default=16, ge=1, description="cubes per step and process")
    warmup: int = Field(default=30, ge=0, description="steps of linear learning-rate warm-up, before the cosine")
    seed: int = Field(default=0, description="seed of initial weights, data order, augmentation and noise")
    validate_every: int = Field(default=500, ge=1, description="steps between validations on held-out patients")
    checkpoint_every: int = Field(default=500, ge=1, description="steps between checkpoints")
    log_every: int = Field(default=20, ge=1, description="steps between lines of the training losses")
    tracker: Trackers = ""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        default="auto", description="auto: bf16 on CUDA, else fp32"
    )
    cpu: bool = Field(default=False, description="stay on the CPU even where there is a GPU")


class Finished(NamedTuple):
    """How far a training went: steps, seconds of training, and whether it was the time that ended it."""

    steps: int
    seconds: float
    by_time: bool


class Task(NamedTuple):
    """What the loop calls.

    step(k, done) makes step k (done: the fraction of training behind it, 0-1) and returns its losses.
    validate(k) returns figures. state() is the tree to checkpoint, the same on every rank; restore(tree) puts it back.
    finished() tells whether to stop early.
    """

    step: Callable[[int, float], dict[str, float]]
    validate: Callable[[int], dict[str, float]]
    state: Callable[[], Any]
    restore: Callable[[Any], None]
    finished: Callable[[], bool] = lambda: False


def learning_rate(step: int, done: float, peak: float, warmup: int, floor: float = 0.02) -> float:
    """A cosine from `peak` to floor x peak as `done` goes from 0 to 1, times a linear warm-up over `warmup` steps."""
    return peak * cosine(done, floor) * warm_up(step, warmup)


def run_loop(
    name: str,
    options: LoopOptions,
    accelerator: Accelerator,
    folder: RunFolder,
    task: Task,
    provenance: Provenance | None = None,
) -> Finished:
    """Train until the steps, the minutes or the task say so; checkpoint on the way, at the end and when asked to stop.

    provenance: of the patients that are trained on, for the run's record.

    Raises Stopped (after a checkpoint) on SIGINT or SIGTERM to any process; MismatchError when resumed with another
    number of processes.
    """
    rank, world = accelerator.process_index, accelerator.num_processes
    begun, seconds, by_time, saved = 0, 0.0, False, -1
    if options.resume:
        restored = folder.checkpoints.load()
        if len(restored.own) != world:
            raise MismatchError(
                "the checkpoint was written by another number of processes",
                path=folder.path,
                found=world,
                expected=len(restored.own),
            )
        begun, seconds, saved = restored.step, restored.shared["seconds"], restored.step
        task.restore(restored.shared["task"])
        restore(restored.own[rank])
    seen = None if provenance is None else provenance.model_dump(mode="json")
    folder.begin(begun, provenance=seen, precision=accelerator.mixed_precision)
    if options.resume:
        folder.rewind(begun)

    def save(step: int) -> None:
        nonlocal saved
        if saved != step:
            shared = {"seconds": seconds, "task": task.state()} if rank == 0 else None
            folder.checkpoints.save(
                step, shared, capture(), rank=rank, world=world, barrier=accelerator.wait_for_everyone
            )
            saved = step

    step = begun
    with StopRequest() as stop, progress(name, options.steps, done=begun, show=accelerator.is_main_process) as bar:
        if options.minutes:
            bar.limit = options.minutes * 60 - seconds
        while step < options.steps and not task.finished():
            start = time.monotonic()
            limit = options.minutes * 60 if options.minutes else math.inf
            spent = _agree_max(seconds, accelerator)
            if spent >= limit:
                by_time = True
                break
            losses = task.step(step, max(step / options.steps, spent / limit))
            step += 1
            if step % options.log_every == 0 or step == 1:
                folder.log(step, **losses)
            bar.advance(1, **{k: losses[k] for k in list(losses)[:3]})
            seconds += time.monotonic() - start
            if step % options.validate_every == 0 and step < options.steps:
                folder.log(step, **task.validate(step))
            asked = _agree_max(float(bool(stop)), accelerator) > 0
            if asked or step % options.checkpoint_every == 0:
                save(step)
            if asked:
                raise Stopped(
                    f"{name} was asked to stop after step {step}; a checkpoint is written",
                    path=folder.path,
                    remedy="go on with --resume",
                    exit_code=stop.exit_code if stop else 143,
                )
        save(step)
    return Finished(step, seconds, by_time)


def _agree_max(value: float, accelerator: Accelerator) -> float:
    """The largest of the ranks' values, so that all take the same branch."""
    if accelerator.num_processes == 1 or not dist.is_initialized():
        return value
    tensor = torch.tensor([value], dtype=torch.float64 if accelerator.device.type == "cpu" else torch.float32)
    tensor = tensor.to(accelerator.device)
    dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return float(tensor)
