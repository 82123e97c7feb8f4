"""`synthgen doctor`: is everything installed, what does this machine have, and what will run well on it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import ssl
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import psutil
import torch
from pydantic import Field

import synthgen
from synthgen.generator.generator import Generator
from synthgen.integration.artifacts import PACKAGED
from synthgen.quality.gates import load_gates
from synthgen.runs.processes.cores import usable_cores
from synthgen.runs.processes.device import set_threads

GB = 2**30
OLDEST = (3, 11)
LEAST_DISK, LEAST_MEMORY, LEAST_SHARED = 2 * GB, 4 * GB, GB // 2  # policy: a demo and its shards; a training at 64
ROOM = 1.5  # policy: discriminators and the allocator are not in the computed needs
# Of the larger of a recipe's two trainings: GB before the first cube, GB for each cube of a batch, and the batch.
# Computed on shapes by `python -m benchmarks.speed.memory` (benchmarks/results/memory.json).
NEEDS = {
    "224 (configs/retina224.yaml)": (9.49, 0.034, 64),
    "224, --diffusion.channels 256": (2.37, 0.017, 64),
    "672 (configs/retina672.yaml)": (9.49, 0.305, 8),
    "672, --diffusion.channels 256": (2.37, 0.154, 8),
}
Status = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """One thing looked at: how it stands, what was found, and what to do about it."""

    area: str
    name: str
    status: Status
    found: str
    remedy: str = ""


def examine(
    folder: Annotated[str | os.PathLike, Field(description="where runs will be written")] = ".",
    *,
    measure: Annotated[bool, Field(description="time the packaged generator (a few seconds)")] = True,
) -> list[Finding]:
    """Look at the installation, the devices, memory, disk and processes."""
    findings = [*installation(), *devices(), *memory_and_disk(folder), *processes(os.environ), *recipes(card_memory())]
    return [*findings, *(speed() if measure else [])]


def installation() -> list[Finding]:
    """Python, the packages that the wheel asks for, the packaged generator and gates, the standard library."""
    area, version = "installation", platform.python_version()
    old = sys.version_info < OLDEST
    findings = [
        Finding(area, "python", "problem" if old else "ok", version, "install Python 3.11 or newer" if old else "")
    ]
    try:
        mine, wanted = importlib.metadata.version("synthgen"), importlib.metadata.requires("synthgen") or []
    except importlib.metadata.PackageNotFoundError:
        mine, wanted = "", []
    where = Path(synthgen.__file__).parent
    remedy = "" if mine else "pip install . in the repository, or `make setup`"
    findings.append(
        Finding(area, "synthgen", "ok" if mine else "warning", f"{mine or 'not installed'}, in {where}", remedy)
    )
    missing, held = [], {}
    for line in wanted:
        if "extra ==" in line:
            continue
        name = re.split(r"[<>=!~;\[ ]", line, maxsplit=1)[0]
        try:
            held[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    words = f"{len(held)} of {len(held) + len(missing)}; torch {held.get('torch', torch.__version__)}"
    remedy = f"pip install {' '.join(missing)}" if missing else ""
    findings.append(Finding(area, "packages", "problem" if missing else "ok", words, remedy))
    shadowed = not hasattr(ssl, "SSLContext")
    remedy = f"another module stands in for it: {ssl.__file__}; leave that folder" if shadowed else ""
    findings.append(Finding(area, "standard library", "problem" if shadowed else "ok", "ssl is Python's own", remedy))
    return [*findings, _packaged("generator", lambda: Generator.load(PACKAGED, "cpu")), _packaged("gates", _gates)]


def _gates() -> Any:
    return load_gates(PACKAGED)


def _packaged(what: str, load: Any) -> Finding:
    try:
        return Finding("installation", f"packaged {what}", "ok", f"{PACKAGED}, {load().hash[:8]}")
    except Exception as error:  # whatever is wrong with it is what the page must report
        remedy = "install the package again: its files are damaged or missing"
        return Finding("installation", f"packaged {what}", "problem", str(error).splitlines()[0], remedy)


def devices() -> list[Finding]:
    """Cards and cores."""
    area, findings = "devices", []
    if torch.cuda.is_available():
        for k in range(torch.cuda.device_count()):
            p = torch.cuda.get_device_properties(k)
            how = "bf16" if torch.cuda.is_bf16_supported() else "no bf16: give --precision fp16"
            findings.append(Finding(area, f"cuda:{k}", "ok", f"{p.name}, {p.total_memory / GB:.0f} GB, {how}"))
    elif shutil.which("nvidia-smi"):
        words = f"nvidia-smi is there, but torch {torch.__version__} sees no card"
        remedy = "install a build of torch for the driver's CUDA version, or update the driver"
        findings.append(Finding(area, "cuda", "warning", words, remedy))
    else:
        findings.append(Finding(area, "cuda", "ok", "none: everything runs on the CPU"))
    cores, quota = usable_cores(), _quota()
    words = f"{cores} for this process"
    if quota is not None and quota < cores:
        remedy = f"more threads than that only wait for one another: set SYNTHGEN_THREADS={max(1, int(quota))}"
        return [*findings, Finding(area, "cores", "warning", f"{words}, but a quota of {quota:g}", remedy)]
    return [*findings, Finding(area, "cores", "ok", words)]


def _quota() -> float | None:
    """Cores that a container may use (cgroup v2), None without a limit."""
    try:
        most, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return None if most == "max" else int(most) / int(period)
    except (OSError, ValueError):
        return None


def memory_and_disk(folder: str | os.PathLike) -> list[Finding]:
    """Free memory, free disk, shared memory."""
    area, free = "memory and disk", psutil.virtual_memory().available
    remedy = "close other programs; at 64 pixels take smaller batches" if free < LEAST_MEMORY else ""
    findings = [Finding(area, "memory", "warning" if remedy else "ok", f"{free / GB:.1f} GB free", remedy)]
    place = Path(folder).absolute()
    while not place.exists():
        place = place.parent
    space, writable = shutil.disk_usage(place).free, os.access(place, os.W_OK)
    status: Status = "problem" if not writable else "warning" if space < LEAST_DISK else "ok"
    remedy = "" if status == "ok" else f"give --out a folder with at least {LEAST_DISK / GB:.0f} GB that may be written"
    words = f"{space / GB:.1f} GB free in {place}" + ("" if writable else ", which may not be written")
    findings.append(Finding(area, "disk", status, words, remedy))
    shared = Path("/dev/shm")
    if shared.exists() and (size := shutil.disk_usage(shared).total) < LEAST_SHARED:
        words = f"{size / 2**20:.0f} MB in /dev/shm"
        remedy = "DataLoader workers and NCCL pass arrays there: start the container with --shm-size 2g"
        findings.append(Finding(area, "shared memory", "warning", words, remedy))
    return findings


def processes(environment: Mapping[str, str], config: Path | None = None) -> list[Finding]:
    """What accelerate's launcher would do here.

    Args:
        environment: variables of the process. config: accelerate's default configuration; its usual place.
    """
    area, findings = "processes", []
    home = Path(environment.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    path = config if config is not None else home / "accelerate" / "default_config.yaml"
    if path.exists():
        import yaml

        settings = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        many = int(settings.get("num_processes") or 1)
        if settings.get("use_cpu") and many > 1:
            words = f"{path} asks for {many} processes on the CPU, of which accelerate starts one"
            remedy = f"synthgen pretrain --processes {many} (also without a GPU)"
            findings.append(Finding(area, "accelerate", "warning", words, remedy))
    if environment.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes") and "RANK" not in environment:
        words = "ACCELERATE_USE_CPU is set: `accelerate launch --num_processes N` starts one process"
        remedy = "synthgen pretrain --processes N, or unset it"
        findings.append(Finding(area, "accelerate", "warning", words, remedy))
    threads = environment.get("SYNTHGEN_THREADS")
    if threads and (not threads.isdigit() or not 1 <= int(threads) <= usable_cores()):
        remedy = f"a whole number from 1 to {usable_cores()}, or unset it"
        findings.append(Finding(area, "SYNTHGEN_THREADS", "warning", threads, remedy))
    if environment.get("OMP_NUM_THREADS") == "1" and not threads:
        words = "1; trainings use every core all the same, other programs of numpy and torch one"
        findings.append(Finding(area, "OMP_NUM_THREADS", "ok", words))
    if not findings or all(f.status == "ok" for f in findings):
        findings.append(Finding(area, "several", "ok", "synthgen pretrain --processes N"))
    return findings


def card_memory() -> float | None:
    """GB of the smallest card, None without one."""
    if not torch.cuda.is_available():
        return None
    return min(torch.cuda.get_device_properties(k).total_memory for k in range(torch.cuda.device_count())) / GB


def recipes(card: float | None) -> list[Finding]:
    """Which recipe fits a card of `card` GB; on the CPU the small one."""
    area, findings = (
        "recipes",
        [Finding("recipes", "64 (configs/phantom64.yaml)", "ok", "runs well, with and without a GPU")],
    )
    for name, (fixed, each, batch) in NEEDS.items():
        need = fixed + each * batch
        if card is None:
            words, status, remedy = f"needs a GPU of about {need * ROOM:.0f} GB", "warning", "a GPU, or 64 pixels here"
        elif need * ROOM <= card:
            words, status, remedy = f"runs well: {need:.1f} GB of {card:.0f}, by computation", "ok", ""
        elif fixed + each * batch / 4 <= card:
            words, status, remedy = (
                f"tight: {need:.1f} GB of {card:.0f}",
                "warning",
                "start with a quarter of the batch",
            )
        else:
            words, status, remedy = f"too large: {need:.1f} GB", "warning", "take --diffusion.channels 256"
        findings.append(Finding(area, name, status, words, remedy))  # type: ignore[arg-type]
    return findings


def speed() -> list[Finding]:
    """How fast the packaged generator makes cubes here: one chunk to warm up, one to time."""
    set_threads()
    generator = Generator.load(PACKAGED, "cuda" if torch.cuda.is_available() else "cpu")
    ids, rate = range(generator.chunk), 0.0
    for _ in range(2):
        began = time.monotonic()
        generator.decode(generator.sample(ids, 0, 8, "ab2")).sum().item()  # the sum waits for the device
        rate = len(ids) / (time.monotonic() - began)
    size, threads = generator.size, torch.get_num_threads()
    words = f"{rate:.2g} cubes/s of {size}x{size} on {generator.device}, {threads} threads"
    return [Finding("speed", f"packaged generator, {PACKAGED}", "ok", words)]


def healthy(findings: Sequence[Finding]) -> bool:
    """Whether nothing is a problem."""
    return all(f.status != "problem" for f in findings)


def print_findings(findings: Sequence[Finding]) -> None:
    """Print them by area, with what to do below each that is not well."""
    from rich.console import Console

    console = Console()
    marks = {"ok": "[green]ok     [/]", "warning": "[yellow]note   [/]", "problem": "[red]problem[/]"}
    area = ""
    for f in findings:
        if f.area != area:
            area = f.area
            console.print(f"[bold]{area}[/]")
        console.print(f"  {marks[f.status]} {f.name}: {f.found}", highlight=False, soft_wrap=True)
        if f.remedy:
            console.print(f"          -> {f.remedy}", markup=False, highlight=False, soft_wrap=True)
    text = "everything that is needed is there" if healthy(findings) else "something is missing: see 'problem'"
    console.print(f"[bold]{text}[/]")
