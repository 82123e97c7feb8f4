"""Reading and preparing blocks of cubes, here or in several processes; each block ends as one file on the disk."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from synthgen.cubes.cohort.writer import quantised
from synthgen.cubes.ingest.journal import BlockDone, SegmentWriter, segment_path, segment_writer
from synthgen.cubes.ingest.options import Ingestion
from synthgen.cubes.ingest.patients import Person
from synthgen.cubes.ingest.pipeline import EVERY, Passage, reflectance_cube, shaped
from synthgen.cubes.ingest.plan import (
    Plan,
    band_matrix,
    check_fits,
    hints_of,
    open_checked,
    patient_rule,
    reason_of,
    refusing,
)
from synthgen.cubes.ingest.quality_control import Check, Finding
from synthgen.cubes.ingest.radiometric import Correction, read_references
from synthgen.cubes.ingest.report import Refusal, SourceReport
from synthgen.cubes.readers.scaling import full_scale_of
from synthgen.cubes.readers.source import Source
from synthgen.errors import StorageError, SynthgenError
from synthgen.runs.processes.workers import interrupts_held, worker_pool

BLOCK = 8  # cubes of one file that are read at a time: the processes share a large file, too
NEGLIGIBLE = 1e-6  # weight of a band of the source that a target band can do without: the far tail of its Gaussian
AHEAD = 2  # blocks given out per process: none waits for work, and few are lost when all ends

Task = tuple[int, int]  # source, first cube


@dataclass(frozen=True)
class Job:
    """All that a process needs to know."""

    paths: tuple[Path, ...]
    options: Ingestion
    plan: Plan
    folder: Path


@dataclass(frozen=True, eq=False)
class Opened:
    """A source with all that its cubes have in common."""

    number: int
    source: Source
    matrix: np.ndarray | None  # [T, C], makes the target bands of its own
    correction: Correction | None
    full_scale: float
    scale_from: str
    notes: list[str]


class Worker:
    """Makes blocks of one job; opens each file once as long as its blocks come one after the other."""

    def __init__(self, job: Job):
        o = job.options
        self.job = job
        self.rule = patient_rule(o)
        self.references = read_references(o.dark, o.white, o.white_reflectance, hints_of(o))
        self._open: Opened | None = None

    def make(self, task: Task) -> BlockDone:
        """Read the cubes of a block, write what is left of them as a segment, and report the result of each."""
        number, start = task
        path, errors = self.job.paths[number], _Tally()
        try:
            opened = self._opened(number)
        except StorageError:
            raise
        except SynthgenError as error:
            return BlockDone(source=number, start=start, refused=(_refusal(error, path, None),))
        target = segment_path(self.job.folder, number, start)
        source, people = opened.source, list[Person]()
        with segment_writer(target) as out:
            for i in range(start, min(start + BLOCK, source.layout.count)):
                people += self._cube(opened, i, out, errors)
        return BlockDone(
            source=number,
            start=start,
            count=source.layout.count,
            kept=tuple(people),
            bytes=target.stat().st_size if people else 0,
            report=_report(opened) if start == 0 else None,
            refused=tuple(errors.refused),
            findings=tuple(errors.findings),
            notes=tuple(dict.fromkeys(opened.notes + list(source.notes) + errors.notes)),
            dropped=errors.dropped,
            no_data=errors.no_data,
            above=errors.above,
            below=errors.below,
            values=errors.values,
        )

    def _cube(self, opened: Opened, i: int, out: SegmentWriter, tally: _Tally) -> list[Person]:
        """Write cube `i`, or its patches; the person once for each cube written, none when it is refused."""
        o, passage, source, matrix = self.job.options, Passage(), opened.source, opened.matrix
        try:
            person = self.rule.person(source, i)
            needed = EVERY if matrix is None else np.flatnonzero((matrix > NEGLIGIBLE).any(axis=0))
            cube, masks = reflectance_cube(
                source, i, o, opened.correction, opened.full_scale, opened.scale_from, passage, needed
            )
        except StorageError:
            raise
        except SynthgenError as error:
            tally.refused.append(_refusal(error, source.path, i))
            return []
        if matrix is not None:
            cube = np.matmul(matrix[:, needed].astype(np.float32), cube.reshape(len(cube), -1)).reshape(
                -1, *cube.shape[1:]
            )
        written = 0
        for part, part_masks in shaped(cube, masks, o, passage):
            out.append(quantised(part), part_masks)
            tally.count(part)
            written += 1
        tally.findings += [
            Finding(path=str(source.path), cube=i, check=check, outcome=outcome, reason=reason)
            for check, outcome, reason in passage.events
        ]
        tally.notes += passage.notes
        tally.dropped += passage.dropped
        tally.no_data += passage.no_data
        return [person] * written

    def _opened(self, number: int) -> Opened:
        if self._open is None or self._open.number != number:
            o, plan = self.job.options, self.job.plan
            source = open_checked(self.job.paths[number], o, self.rule)
            matrix = band_matrix(source, plan.wavelengths_nm, o)
            notes = check_fits(source, (plan.height, plan.width), o)
            full, origin = 1.0, "dark and white references"
            if o.white is None:
                with refusing("scale"):
                    full, origin = full_scale_of(source, o.scale, look=False)
            correction = None if self.references is None else self.references.of(source)
            self._open = Opened(number, source, matrix, correction, full, origin, notes)
        return self._open


def _report(opened: Opened) -> SourceReport:
    source, declared = opened.source, opened.source.declared
    unused = declared.full_scale is not None and opened.correction is not None
    scales = (f"{declared.full_scale_from} was not applied: the references give reflectance",) * unused
    return SourceReport(
        path=str(source.path),
        format=source.format,
        variable=source.variable,
        axes=source.layout.axes,
        dtype=str(source.dtype),
        cubes=source.layout.count,
        kept=0,
        full_scale=opened.full_scale,
        scale_from=opened.scale_from,
        declared=declared.statements,
        applied=declared.applied,
        not_applied=declared.not_applied + scales,
        wavelengths_nm=source.wavelengths,
        wavelengths_from=source.wavelengths_from,
        resampled=opened.matrix is not None,
    )


class _Tally:
    """What adds up over the cubes of a block."""

    def __init__(self):
        self.refused: list[Refusal] = []
        self.findings: list[Finding] = []
        self.notes: list[str] = []
        self.dropped = self.no_data = self.above = self.below = self.values = 0

    def count(self, cube: np.ndarray) -> None:
        self.above += int((cube > 1).sum())
        self.below += int((cube < 0).sum())
        self.values += cube.size


def _refusal(error: SynthgenError, path: Path, cube: int | None) -> Refusal:
    usual: Check = "references" if "reference" in error.what else "file"
    check: Check = getattr(error, "check", usual)
    return Refusal(path=str(path), cube=cube, check=check, reason=reason_of(error, path))


def made_blocks(queue: deque[Task], job: Job, workers: int, stopped: Callable[[], bool]) -> Iterator[BlockDone]:
    """The blocks of the tasks in `queue` as they are finished; more tasks may be put into the queue meanwhile.

    At most `AHEAD` blocks per process are under way, so that memory holds about a cube per process. When `stopped`
    turns true nothing new is begun, and what is under way is finished.
    """
    if workers > 1:
        try:
            yield from _in_processes(queue, job, workers, stopped)
        except BrokenProcessPool as error:
            raise SynthgenError(
                "a process of the ingest has died",
                found=str(error).splitlines()[0],
                expected="enough memory for one cube per process, and a script guarded by `if __name__ == '__main__':`",
                remedy="repeat the command with --workers 1; what is done is kept",
            ) from error
        return
    worker = Worker(job)
    while queue and not stopped():
        with threadpool_limits(1):  # as in the processes: the order of sums, and so the last bit, stays the same
            block = worker.make(queue.popleft())
        yield block


def _in_processes(queue: deque[Task], job: Job, workers: int, stopped: Callable[[], bool]) -> Iterator[BlockDone]:
    running: set[Future[BlockDone]] = set()
    with worker_pool(workers, _begin, job) as pool:
        while running or (queue and not stopped()):
            while queue and not stopped() and len(running) < AHEAD * workers:
                with interrupts_held():
                    running.add(pool.submit(_make, queue.popleft()))
            finished, running = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
            for future in finished:
                yield future.result()


_worker: Worker | None = None


def _begin(job: Job) -> None:
    """In a new process."""
    global _worker
    os.environ["OMP_NUM_THREADS"] = "1"  # for torch, which is loaded only where cubes are resized
    threadpool_limits(1)
    _worker = Worker(job)


def _make(task: Task) -> BlockDone:
    assert _worker is not None
    return _worker.make(task)
