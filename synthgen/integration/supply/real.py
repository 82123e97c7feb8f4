"""The real samples of a batch: held where they fit, else read ahead from the cohort file."""

from __future__ import annotations

import os
import weakref
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Literal

import numpy as np
import psutil
import torch
from torch import Tensor

from synthgen.cubes.cohort.cohort import Cohort
from synthgen.cubes.cohort.mapped import map_cubes
from synthgen.errors import InputError
from synthgen.runs.processes.cores import usable_cores

HELD_SHARE = 0.5  # of the free memory of a machine (shared by its processes) that real cubes may take
DEVICE_SHARE = 0.25  # of the free memory of a GPU
READERS = 8  # threads at most: more do not help one disk


class RealCubes:
    """The real cubes of some patients of a cohort.

    `kept` states where, the first that can be:

    - "device": a quarter of a GPU's free memory holds them;
    - "memory": half of the free memory does, pinned where there is a GPU, which then fetches them itself;
    - "mapped": the cohort file, mapped into memory (as `CohortWriter` writes it: uncompressed, a cube in one piece);
    - "file": a compressed cohort file, through HDF5.

    From a file threads read the cubes of the next step, announced by `expect`, while this one computes.

    Args:
        cohort: the cohort.
        patients: whose cubes to use.
        device: where batches are wanted.
        free: bytes of memory that may be used; measured by default.
    """

    def __init__(self, cohort: Cohort, patients: tuple[str, ...], device: torch.device, free: int | None = None):
        self.cohort, self.device = cohort, device
        self.index = cohort.index_of(patients)
        if not len(self.index):
            raise InputError("has no cube of the training patients", path=cohort.path)
        size = 4 * len(self.index) * cohort.bands * cohort.height * cohort.width
        free = room() if free is None else free
        self.kept: Literal["device", "memory", "mapped", "file"]
        self._held: Tensor | None = None
        self._coming: tuple[tuple[int, ...], Tensor, list[Future[None]]] | None = None
        if size <= free:
            self._held, self.kept = torch.from_numpy(cohort.cubes(self.index)), "memory"
            if device.type == "cuda" and size <= torch.cuda.mem_get_info(device)[0] * DEVICE_SHARE:
                self._held, self.kept = self._held.to(device), "device"
            elif device.type == "cuda":
                _pin(self._held)
            return
        self._mapped = map_cubes(cohort)
        self.kept = "file" if self._mapped is None else "mapped"
        cores = usable_cores() // _here()
        self._threads = 1 if self._mapped is None else max(1, min(READERS, cores))  # HDF5 lets in one at a time
        self._readers = ThreadPoolExecutor(self._threads, "real cubes")

    def __len__(self) -> int:
        return len(self.index)

    def draw(self, positions: np.ndarray) -> tuple[Tensor, Tensor]:
        """Cubes float32 [n, C, H, W] and their indices in the cohort int64 [n], on the device."""
        return self._cubes(positions), torch.from_numpy(self.index[positions]).to(self.device)

    def expect(self, positions: np.ndarray) -> None:
        """Begin to read the cubes that the next `draw` will want; nothing to do where all are held."""
        if self._held is None:
            self._coming = self._begin(positions)

    def _cubes(self, positions: np.ndarray) -> Tensor:
        if self._held is not None:
            return self._fetched(self._held, torch.from_numpy(positions))
        coming, self._coming = self._coming, None
        if coming is None or coming[0] != tuple(positions):
            coming = self._begin(positions)
        for part in coming[2]:
            part.result()
        return coming[1].to(self.device, non_blocking=True)

    def _fetched(self, held: Tensor, positions: Tensor) -> Tensor:
        if held.device == self.device or not held.is_pinned():
            return held[positions.to(held.device)].to(self.device)
        cubes = torch.empty((len(positions), *held.shape[1:]), dtype=held.dtype, device=self.device)
        for cube, position in zip(cubes, positions.tolist(), strict=True):
            cube.copy_(held[position], non_blocking=True)  # a megabyte and more each, straight from where it lies
        return cubes

    def _begin(self, positions: np.ndarray) -> tuple[tuple[int, ...], Tensor, list[Future[None]]]:
        shape = (len(positions), self.cohort.bands, self.cohort.height, self.cohort.width)
        cubes = torch.empty(shape, pin_memory=self.device.type == "cuda")
        parts = np.array_split(np.arange(len(positions)), min(self._threads, max(1, len(positions))))
        read = [
            self._readers.submit(self._read, self.index[positions[part]], cubes[part[0] : part[-1] + 1].numpy())
            for part in parts
            if len(part)
        ]
        return tuple(positions), cubes, read

    def _read(self, index: np.ndarray, into: np.ndarray) -> None:
        if self._mapped is not None:
            self._mapped.read(index, into)
        else:
            into[...] = self.cohort.cubes(index)


def room() -> int:
    """Bytes of memory that this process may hold cubes in."""
    return int(psutil.virtual_memory().available * HELD_SHARE / _here())


def _here() -> int:
    """Processes of this run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def _pin(cubes: Tensor) -> None:
    """Lock the memory of a tensor in place until it goes away, so that a GPU can fetch from it; torch's `pin_memory`
    would copy it, into twice the size at worst. Where the system refuses, the memory stays as it is.
    """
    runtime, place = torch.cuda.cudart(), cubes.data_ptr()
    if runtime is not None and int(runtime.cudaHostRegister(place, cubes.nbytes, 0)) == 0:
        weakref.finalize(cubes, runtime.cudaHostUnregister, place)
