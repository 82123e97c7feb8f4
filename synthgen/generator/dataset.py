"""The stream of synthetic cubes: an IterableDataset whose ranks and workers never make the same id twice."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from synthgen.contracts import Admission, Gate, Tokens
from synthgen.errors import ConfigError, MismatchError
from synthgen.generator.generator import Generator
from synthgen.generator.samplers import pick_sampler, time_grid
from synthgen.runs.processes.device import pick_device


@dataclass(frozen=True)
class Chunk:
    """One block of proposals.

    tokens: the accepted ones. cubes: their cubes float32 [n, C, H, W], or None when nobody needed them decoded.
    proposed: how many were sampled. rejected: (id, reason) of those the gates turned down. admission: what the gates
    reported of every proposal, None without gates.
    """

    tokens: Tokens
    cubes: Tensor | None
    proposed: int
    rejected: list[tuple[int, str]]
    admission: Admission | None = None


class SyntheticRetinaDataset(IterableDataset):
    """Endless (or `count`) synthetic cubes from a generator.

    The k-th proposal of slot r of W has the id start + k W + r; slots are ranks x DataLoader workers. A cube depends on
    (generator, seed, id) alone. Every iteration begins at `start` and gives the same cubes, whatever the number of
    workers; after `set_epoch(e)` the ids are the `count` ones that follow those of epoch e - 1.

    Args:
        generator: a generator folder, a packaged name, or a Generator.
        device: where to sample; default CUDA where there is some. In DataLoader workers only the CPU works.
        seed, steps, sampler: of the sampling.
        count: ids proposed over all ranks and workers together; None: without end.
        gates: judges every cube, as `load_gates(name)` gives it; rejected ones are left out (fewer than `count` come
            through).
        output: "cubes" yields {"cube": float32 [C, H, W], "is_synthetic": True, "id": int}; "tokens" one-cube Tokens.
        rank, world: of this process; default torch.distributed, else environment RANK and WORLD_SIZE, else 0 of 1.
        start: the first id.
        chunk: proposals per block; default the generator's own chunk (a smaller one wastes padding).

    Yields, when iterated, in the order of the ids of its slot. `state_dict` / `load_state_dict` resume it (in the
    process that iterates it: DataLoader workers keep their own copies): the next iteration is the rest of the one that
    was begun last, the one after it is whole again.
    """

    def __init__(
        self,
        generator: str | os.PathLike | Generator = "phantom64",
        *,
        device: torch.device | str | None = None,
        seed: int = 0,
        steps: int = 8,
        sampler: str = "ab2",
        count: int | None = None,
        gates: Gate | None = None,
        output: Literal["cubes", "tokens"] = "cubes",
        rank: int | None = None,
        world: int | None = None,
        start: int = 0,
        chunk: int | None = None,
    ):
        super().__init__()
        pick_sampler(sampler)
        time_grid(steps)
        if output not in ("cubes", "tokens"):
            raise ConfigError("unknown output", found=repr(output), expected="cubes or tokens")
        if (count is not None and count < 0) or start < 0 or (chunk is not None and chunk < 1):
            raise ConfigError("count, start and chunk must not be negative", found=f"{count}, {start}, {chunk}")
        if gates is not None and not callable(gates):
            raise ConfigError(
                "gates are to be loaded first", found=f"gates={gates!r}", remedy=f"give gates=load_gates({gates!r})"
            )
        given = isinstance(generator, Generator)
        self.generator = generator if given else Generator.load(generator, "cpu")  # moved when the stream starts
        self.device = self.generator.device if given and device is None else pick_device(device)
        self.seed, self.steps, self.sampler, self.count, self.gates = seed, steps, sampler, count, gates
        self.output, self.start, self.chunk = output, start, chunk or self.generator.chunk
        self.rank, self.world = _place(rank, world)
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # persistent workers see it change
        self._begin: dict[str, int] | None = None  # a loaded state, for the next iteration
        self._state = {"next": 0, "epoch": 0, "workers": 0}  # of the iteration that was begun last

    def __iter__(self) -> Iterator[dict[str, Any] | Tokens]:
        decode, (slot, slots), state = self.output == "cubes", self._slot(), self._started()
        for chunk, first, after in self._blocks(decode, state):
            for row, sample_id in enumerate(chunk.tokens.id.tolist()):
                state["next"] = (sample_id - first - slot) // slots + 1  # exact also when stopped inside a block
                if chunk.cubes is not None and decode:
                    yield {"cube": chunk.cubes[row], "is_synthetic": True, "id": sample_id}
                else:
                    yield chunk.tokens[row : row + 1]
            state["next"] = after
        state["next"] = 0  # what is left when all is done is the state of a new iteration

    def chunks(self) -> Iterator[Chunk]:
        """The same stream in blocks, with what was rejected; cubes are there if the output or the gates need them."""
        state = self._started()
        for chunk, _, after in self._blocks(self.output == "cubes", state):
            state["next"] = after
            yield chunk
        state["next"] = 0  # what is left when all is done is the state of a new iteration

    def set_epoch(self, epoch: int) -> None:
        """The ids of the iterations that begin from now on; ConfigError for a stream without end, which has no epochs.

        As with torch's DistributedSampler, call it before each epoch that is to see other cubes than the first.
        """
        if epoch < 0 or (epoch > 0 and self.count is None):
            expected = "0 for a stream without end" if self.count is None else "0 or more"
            raise ConfigError(
                "there is no such epoch", found=epoch, expected=expected, remedy="give count, or another seed or start"
            )
        self._epoch.fill_(epoch)

    def state_dict(self) -> dict[str, int]:
        """The next proposal of this slot in the iteration begun last, and the stream that it belongs to."""
        return {**self._state, "seed": self.seed, "start": self.start, "rank": self.rank, "world": self.world}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on where the other left off; MismatchError when it was another stream."""
        here = {name: state.get(name, 0) for name in self._state}
        own = {**self.state_dict(), **here}
        if own != {**state, **here}:
            raise MismatchError("the state is of another stream", found=state, expected=own)
        self.set_epoch(here["epoch"])
        self._begin, self._state = here, dict(here)

    def _started(self) -> dict[str, int]:
        """The state of an iteration that begins now: at the beginning, or once where a loaded state resumes."""
        worker = get_worker_info()
        workers, epoch, begin = 0 if worker is None else worker.num_workers, int(self._epoch), self._begin
        if begin is not None and begin["workers"] != workers and begin["next"] > 0:
            raise MismatchError(
                "the state was left by another number of DataLoader workers", found=workers, expected=begin["workers"]
            )
        at = 0 if begin is None or begin["epoch"] != epoch else begin["next"]
        self._state = {"next": at, "epoch": epoch, "workers": workers}
        self._begin = None
        return self._state

    def _blocks(self, decode: bool, state: dict[str, int]) -> Iterator[tuple[Chunk, int, int]]:
        """Blocks from the state's next proposal on, each with the first id of its epoch and the proposal after it."""
        slot, slots = self._slot()
        self._refuse_cuda_in_workers()
        self.generator.to(self.device)
        first, k = self.start + state["epoch"] * (self.count or 0), state["next"]
        while True:
            ids = [first + (k + i) * slots + slot for i in range(self.chunk)]
            if self.count is not None:
                ids = [i for i in ids if i < first + self.count]
            if not ids:
                return
            k += len(ids)
            yield self._block(ids, decode), first, k

    def _block(self, ids: list[int], decode: bool) -> Chunk:
        tokens = self.generator.sample(ids, self.seed, self.steps, self.sampler)
        if not decode and self.gates is None:
            return Chunk(tokens, None, len(ids), [])
        cubes = self.generator.decode(tokens)
        if self.gates is None:
            return Chunk(tokens, cubes, len(ids), [])
        admission = self.gates(cubes)
        keep = admission.accept.nonzero().squeeze(1).to(cubes.device)
        lost = (~admission.accept).nonzero().squeeze(1).tolist()
        rejected = [(ids[row], reason) for row, reason in zip(lost, admission.reasons, strict=True)]
        return Chunk(tokens[keep], cubes[keep], len(ids), rejected, admission)

    def _slot(self) -> tuple[int, int]:
        worker = get_worker_info()
        if worker is None:
            return self.rank, self.world
        return self.rank * worker.num_workers + worker.id, self.world * worker.num_workers

    def _refuse_cuda_in_workers(self) -> None:
        if self.device.type != "cuda":
            return
        forked = getattr(torch.cuda, "_is_in_bad_fork", lambda: False)()
        if get_worker_info() is not None or forked:
            raise ConfigError(
                "the generator cannot sample on CUDA in a DataLoader worker or after a fork",
                remedy="use num_workers=0 with device cuda, or device='cpu' in the workers",
            )


def _place(rank: int | None, world: int | None) -> tuple[int, int]:
    """Rank and world as given, or of torch.distributed, or of the environment; ConfigError when they do not fit."""
    running = dist.is_available() and dist.is_initialized()
    if world is None:
        world = dist.get_world_size() if running else int(os.environ.get("WORLD_SIZE", "1"))
    if rank is None:
        rank = dist.get_rank() if running else int(os.environ.get("RANK", "0"))
    if not 0 <= rank < world:
        raise ConfigError("rank does not fit the world", found=f"rank {rank} of {world}")
    return rank, world
