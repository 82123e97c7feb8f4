"""Checkpoints that are whole or absent: written aside, checksummed, fsynced, renamed; the last few are kept.

checkpoints/step_00000120/manifest.json      step, number of processes, bytes and sha256 of every file
                          shared.safetensors  what is the same on every rank (model, optimiser, EMA)
                          rank_00000.safetensors ...  what is each rank's own (random states, pool, counters)
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from synthgen.errors import InputError, NonFiniteError, writing
from synthgen.runs.files import read_json, remove, sha256, sync, write_json
from synthgen.runs.finite import in_words, not_finite
from synthgen.runs.processes.ranks import any_rank
from synthgen.runs.state import load_state, save_state


class Restored(NamedTuple):
    """A checkpoint read back: `own` holds the own state of every rank that wrote it, by rank."""

    step: int
    shared: Any
    own: list[Any]


class Checkpoints:
    """The checkpoints of one run folder.

    Args:
        folder: where they live (made on the first save).
        keep: how many of the newest to keep.
    """

    def __init__(self, folder: str | os.PathLike, keep: int = 3):
        self.folder, self.keep = Path(folder), keep

    def save(
        self,
        step: int,
        shared: Any,
        own: Any = None,
        *,
        rank: int = 0,
        world: int = 1,
        barrier: Callable[[], None] = lambda: None,
    ) -> Path:
        """Write the checkpoint of `step`. Every rank calls; `barrier` waits for all of them.

        Raises StorageError when the disk is full: the partial folder is removed, older checkpoints stay. NonFiniteError
        on every rank, before anything is written, when a value in `shared` is not finite on one (a rank's own state may
        hold measured values of which some are missing).
        """
        final = self.folder / f"step_{step:08d}"
        bad = not_finite(shared)
        if any_rank(bool(bad)):
            steps = self.steps()
            raise NonFiniteError(
                f"the state after step {step} is not finite and is not written",
                path=self.folder,
                found=in_words(bad) if bad else "such values on another process",
                remedy=f"the checkpoint of step {steps[-1]} is kept" if steps else "there is no earlier checkpoint",
            )
        partial = self.folder / f".step_{step:08d}.partial"
        with writing(final):
            if rank == 0:
                remove(partial)
                partial.mkdir(parents=True)
            barrier()
            try:
                save_state(partial / f"rank_{rank:05d}.safetensors", own)
                if rank == 0:
                    save_state(partial / "shared.safetensors", shared)
                barrier()
                if rank == 0:
                    self._publish(partial, final, step, world)
            except BaseException:
                if rank == 0:
                    remove(partial)
                raise
            barrier()
        return final

    def _publish(self, partial: Path, final: Path, step: int, world: int) -> None:
        files = {p.name: {"bytes": p.stat().st_size, "sha256": sha256(p)} for p in sorted(partial.iterdir())}
        write_json(partial / "manifest.json", {"step": step, "world": world, "files": files})
        sync(partial)
        if final.exists():  # the same step again, after a resume: identical content, so either copy will do
            remove(final)
        os.replace(partial, final)
        sync(self.folder)
        for old in self.steps()[: -self.keep]:
            remove(self.folder / f"step_{old:08d}")

    def steps(self) -> list[int]:
        """Steps that have a checkpoint folder, oldest first."""
        if not self.folder.is_dir():
            return []
        return sorted(int(p.name[5:]) for p in self.folder.glob("step_*") if p.name[5:].isdigit())

    def is_valid(self, step: int) -> bool:
        folder = self.folder / f"step_{step:08d}"
        try:
            manifest = read_json(folder / "manifest.json")
            return all(
                (folder / name).stat().st_size == about["bytes"] and sha256(folder / name) == about["sha256"]
                for name, about in manifest["files"].items()
            )
        except (InputError, OSError, KeyError, TypeError):
            return False

    def latest(self) -> int | None:
        """The newest step whose files all match their checksums, or None."""
        return next((s for s in reversed(self.steps()) if self.is_valid(s)), None)

    def load(self, step: int | None = None) -> Restored:
        """Read a checkpoint (the newest valid one by default); InputError when there is none."""
        if step is None:
            step = self.latest()
        if step is None or not self.is_valid(step):
            raise InputError(
                "has no valid checkpoint to resume from", path=self.folder, remedy="start without --resume"
            )
        folder = self.folder / f"step_{step:08d}"
        world = read_json(folder / "manifest.json")["world"]
        own = [load_state(folder / f"rank_{r:05d}.safetensors") for r in range(world)]
        return Restored(step, load_state(folder / "shared.safetensors"), own)
