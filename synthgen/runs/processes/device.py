"""The accelerator of a run: device, precision, processes, threads."""

from __future__ import annotations

import os
from typing import Annotated

import torch
from accelerate import Accelerator
from pydantic import Field

from synthgen.errors import ConfigError
from synthgen.runs.processes.cores import usable_cores

Device = Annotated[str | None, Field(description="cpu, cuda, cuda:1; by default the best there is")]


def set_threads() -> int:
    """Use every core, shared among the processes of this machine; accelerate's launcher sets one thread each.

    `SYNTHGEN_THREADS` overrides. Returns the number of threads.
    """
    given = os.environ.get("SYNTHGEN_THREADS")
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    cores = usable_cores()
    threads = int(given) if given else max(1, cores // local)
    torch.set_num_threads(threads)
    return threads


def make_accelerator(precision: str = "auto", cpu: bool = False) -> Accelerator:
    """An Accelerator on CUDA where there is some, else on the CPU (gloo when there are several processes).

    Args:
        precision: "auto" (bf16 on CUDA, float32 elsewhere), "fp32", "bf16" or "fp16".
        cpu: stay on the CPU even where there is a GPU.
    """
    on_cpu = cpu or not torch.cuda.is_available()
    if precision == "fp16" and on_cpu:
        raise ConfigError("precision fp16 needs a CUDA device", remedy="use fp32 or bf16")
    place, cards = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if not on_cpu and place >= cards:
        raise ConfigError(
            "more processes than GPUs",
            found=os.environ.get("LOCAL_WORLD_SIZE", place + 1),
            expected=f"at most {cards}",
            remedy="hide the GPUs with CUDA_VISIBLE_DEVICES= to run on the CPU",
        )
    mixed = {"auto": "no" if on_cpu else "bf16", "fp32": "no"}.get(precision, precision)
    accelerator = Accelerator(cpu=on_cpu, mixed_precision=mixed)
    set_threads()
    return accelerator


def pick_device(device: str | torch.device | None = None) -> torch.device:
    """The device given, else CUDA where there is some, else the CPU. ConfigError when it is not there."""
    if device is None or device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    picked = torch.device(device)
    if picked.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("no CUDA device on this machine", found=str(device), expected="cpu")
    return picked
