r"""From a camera's files to a cohort file: every step optional, every cube checked, the patient of each one named.

    synthgen ingest scans/ eyes.h5 --dark dark.hdr --white white.hdr --size 224 --bands 450:900:30 \
        --patient-pattern '(?P<patient>P\d+)_(?P<eye>OD|OS)' --registration correct --workers 8
    synthgen ingest eyes_224.h5 eyes_64.h5 --size 64 --patches
    synthgen ingest jasperRidge2_R198.mat jasper.h5 --size 64 --bands 450:900:30 \
        --source-wavelengths 380:2490:9.46 --each-file-a-patient

(the last file keeps 198 of 224 bands and lists them in `SlectBands`; the 224 wavelengths are given, and its nominal
maximum of 5000 is read from `maxValue`). What the files declare of their numbers (gain, offset, scale, no data) is
applied and listed in the report; a file that does not state which value means reflectance 1 needs `scale`.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from synthgen.config import build
from synthgen.cubes.cohort.cohort import Cohort, CohortWriter
from synthgen.cubes.cohort.splits import load_or_make_split, split_patients
from synthgen.cubes.ingest.journal import BlockDone, WorkFolder, read_segment, segment_path, sync_folder
from synthgen.cubes.ingest.options import VERSION, Ingestion, check_effect, steps
from synthgen.cubes.ingest.plan import Plan, hints_of, make_plan, nothing_usable, patient_rule
from synthgen.cubes.ingest.radiometric import read_references
from synthgen.cubes.ingest.report import IngestReport
from synthgen.cubes.ingest.sources import check_same, digest, expand, mark
from synthgen.cubes.ingest.worker import BLOCK, Job, Task, made_blocks
from synthgen.cubes.readers.scaling import MUCH_CLIPPED, given_full_scale
from synthgen.errors import ConfigError, InputError, Stopped, SynthgenError, writing
from synthgen.runs.files import write_json
from synthgen.runs.processes.cores import usable_cores
from synthgen.runs.progress import progress
from synthgen.runs.signals import StopRequest

MANY = 64  # files; below, starting processes takes longer than they save


def ingest(
    sources: Annotated[Sequence[str | os.PathLike], Field(description="files or folders to read")],
    out: Annotated[str | os.PathLike, Field(description="cohort file to write (HDF5)")],
    *,
    workers: Annotated[int, Field(ge=0, description="processes; 0: one per core where there are many files")] = 0,
    restart: Annotated[bool, Field(description="discard what an unfinished ingest has done")] = False,
    **settings: Annotated[Any, Ingestion],
) -> IngestReport:
    """Read cubes of any known format into one cohort file at `out`, beside it `<out>.ingest_report.json`.

    Args:
        sources: files, or folders (see `find_sources`).
        out: appears whole or not at all, with its split by patient beside it.
        workers: the result does not depend on their number. With more than one, as 0 means for 64 files or more, a
            script needs the usual guard `if __name__ == "__main__":`.
        settings: fields of `Ingestion`.

    A file or a cube that cannot be used is left out and listed, the rest goes on. What is done is kept in
    `<out>.partial/` until all is: after Ctrl-C, a kill or a full disk the same call goes on where it stopped.

    Raises:
        InputError: the only file cannot be used, or nothing usable remains.
        ConfigError: `<out>.partial/` is of other options or other files.
        StorageError: `out` cannot be written.
        Stopped: on SIGINT or SIGTERM.
    """
    start, out = time.monotonic(), Path(out)
    options = build(Ingestion, settings)
    _check(options, workers, out)
    paths, notes = expand(sources, out, [path for path in (options.dark, options.white) if path is not None])
    patient_rule(options).check_sources(paths)
    return _Run(options, paths, out, workers or _usual_workers(len(paths)), notes).run(start, restart)


class _Run:
    """One ingest: agree on what all cubes share, make blocks, join them."""

    def __init__(self, options: Ingestion, paths: list[Path], out: Path, workers: int, notes: list[str]):
        self.options, self.paths, self.out, self.workers, self.notes = options, paths, out, workers, notes
        self.folder = WorkFolder(out)

    def run(self, start: float, restart: bool) -> IngestReport:
        asked = {"version": VERSION, "options": self._asked(), "sources": [mark(path) for path in self.paths]}
        head = None if restart else self.folder.head()
        if head is None:
            plan = make_plan(self.paths, self.options)
        else:
            check_same(asked, head, self.folder.path)
            plan = build(Plan, head["plan"], self.folder.path / "head.json")
        try:
            self.folder.begin(None if head is not None else asked | {"plan": plan.model_dump(mode="json")})
            self._make_blocks(plan)
            blocks = [self.folder.done[key] for key in sorted(self.folder.done)]
            if not any(block.kept for block in blocks):
                self.folder.discard()
                raise self._nothing_left(blocks)
            report = self._join(plan, blocks, start)
        finally:
            self.folder.close()
        self.folder.discard()
        return report

    def _make_blocks(self, plan: Plan) -> None:
        """Make every block that the journal lacks, and note each when it is done."""
        done = self.folder.done
        queue: deque[Task] = deque()
        for number in range(len(self.paths)):
            first = done.get((number, 0))
            queue.extend([(number, 0)] if first is None else [t for t in _further(first) if t not in done])
        if not queue:
            return
        job = Job(tuple(self.paths), self.options, plan, self.folder.path)
        known = _cubes_in(done.values())
        with (
            StopRequest() as stop,
            progress(f"ingest {self.out.name}", max(plan.expected_cubes, known), "cube", done=known) as bar,
        ):
            refused = sum(len(block.refused) for block in done.values())
            for block in made_blocks(queue, job, min(self.workers, len(queue)), lambda: bool(stop)):
                self.folder.note(block)
                if block.start == 0:
                    queue.extendleft(reversed(_further(block)))
                refused += len(block.refused)
                bar.advance(max(1, min(BLOCK, block.count - block.start)), refused=refused)
                bar.total = max(bar.total, bar.done + len(queue))
            if stop and queue:
                raise Stopped(
                    f"{_cubes_in(done.values())} cubes are done and kept in {self.folder.path.name}",
                    path=self.out,
                    remedy="repeat the command to go on, or add --restart to begin again",
                    exit_code=stop.exit_code,
                )

    def _join(self, plan: Plan, blocks: list[BlockDone], start: float) -> IngestReport:
        """The blocks in order of the sources as one cohort file; it gets its name when it is whole and on the disk."""
        shape, target = (plan.height, plan.width), plan.wavelengths_nm
        reports = [block.report for block in blocks if block.report and block.count]
        applied = dict.fromkeys(done for report in reports for done in report.applied)
        scales = dict.fromkeys(f"{report.full_scale:g} ({report.scale_from})" for report in reports)
        made = steps(self.options, list(applied), list(scales), target)
        about = {"version": VERSION, "steps": made, "patients": _patients_from(self.options)}
        joined = self.folder.path / "joined.h5"
        kept = sum(len(block.kept) for block in blocks)
        with (
            CohortWriter(joined, target, *shape, attributes={"ingest": about}) as writer,
            progress(f"write {self.out.name}", kept, "cube") as bar,
        ):
            for block in blocks:
                segment = read_segment(segment_path(self.folder.path, *block.key), len(block.kept), plan.width)
                for person, (stored, masks) in zip(block.kept, segment if block.kept else (), strict=True):
                    writer.append_stored(
                        stored, person.patient, eye=person.eye, visit=person.visit, label=person.label, masks=masks
                    )
                    bar.advance()
        with writing(self.out):
            os.replace(joined, self.out)
            sync_folder(self.out.parent)
        report = self._report(plan, blocks, made, start)
        write_json(self.out.with_name(self.out.name + ".ingest_report.json"), report.model_dump(mode="json"))
        return report

    def _report(self, plan: Plan, blocks: list[BlockDone], made: list[dict[str, Any]], start: float) -> IngestReport:
        kept_of: dict[int, int] = {}
        for block in blocks:
            kept_of[block.source] = kept_of.get(block.source, 0) + len(block.kept)
        values = sum(block.values for block in blocks)
        notes = self.notes + [note for block in blocks for note in block.notes]
        above = sum(block.above for block in blocks) / values
        if above > MUCH_CLIPPED:
            notes.append(f"more than {MUCH_CLIPPED:.0%} of the values were above 1: give the true --scale")
        split, about_split = self._split()
        return IngestReport(
            out=str(self.out),
            kept=sum(kept_of.values()),
            patients=len({person.patient for block in blocks for person in block.kept}),
            height=plan.height,
            width=plan.width,
            wavelengths_nm=plan.wavelengths_nm,
            sources=tuple(
                block.report.model_copy(update={"kept": kept_of[block.source]}) for block in blocks if block.report
            ),
            refused=tuple(refusal for block in blocks for refusal in block.refused),
            findings=tuple(finding for block in blocks for finding in block.findings),
            steps=tuple(made),
            split=split,
            dropped_patches=sum(block.dropped for block in blocks),
            no_data_pixels=sum(block.no_data for block in blocks),
            clipped_above=above,
            clipped_below=sum(block.below for block in blocks) / values,
            notes=tuple(dict.fromkeys(notes + about_split)),
            seconds=round(time.monotonic() - start, 2),
        )

    def _split(self) -> tuple[dict[str, int] | None, list[str]]:
        """Write the sidecar of the split; patients of each part, and what is to be reported of it."""
        o, cohort = self.options, Cohort.open(self.out)
        if len(cohort.patients) < 3:
            return None, ["fewer than 3 patients: no split into train, calibration and test"]
        there = self.out.with_name(self.out.name + ".split.json").exists()
        try:
            split = load_or_make_split(cohort, o.split, o.split_seed)
        except InputError as error:
            return None, [f"the split of earlier contents was left as it is: {error}"]
        kept = there and (o.split, o.split_seed) != _DEFAULT_SPLIT
        note = ["the split that was there already was kept: delete it to draw another"] if kept else []
        return {part: len(patients) for part, patients in split._asdict().items()}, note

    def _nothing_left(self, blocks: list[BlockDone]) -> SynthgenError:
        dropped, refused = sum(b.dropped for b in blocks), [r for b in blocks for r in b.refused]
        if not refused:
            return InputError(
                "no patch has enough field of view",
                path=self.paths[0],
                found=f"{dropped} patches dropped",
                remedy="choose a smaller --size",
            )
        return nothing_usable([InputError(r.reason, path=r.path) for r in refused])

    def _asked(self) -> dict[str, Any]:
        """The options, with what the files named in them hold: another table gives another cohort."""
        asked = self.options.model_dump(mode="json", exclude={"split", "split_seed"})
        for name in ("patient_table", "dark", "white"):
            path = getattr(self.options, name)
            if path is not None:
                asked[name] = digest(path)
        return asked


_DEFAULT_SPLIT = (Ingestion().split, Ingestion().split_seed)


def _check(options: Ingestion, workers: int, out: Path) -> None:
    """Everything that can be refused before a file is opened."""
    if workers < 0:
        raise ConfigError("'workers' must be 0 or more", found=workers)
    if options.patches and options.size is None:
        raise ConfigError("patches need a size", remedy="give --size 64")
    check_effect(options)
    if options.scale is not None:
        given_full_scale(options.scale)
        if options.white is not None:
            raise ConfigError("'scale' and 'white' contradict each other", remedy="leave --scale out")
    if out.is_dir():
        raise InputError("is a folder", path=out, expected="a file to write")
    split_patients(("a", "b", "c"), options.split, options.split_seed)  # ConfigError for impossible shares
    patient_rule(options)
    read_references(options.dark, options.white, options.white_reflectance, hints_of(options))


def _usual_workers(files: int) -> int:
    cores = usable_cores()
    return cores if files >= MANY else 1


def _further(first: BlockDone) -> list[Task]:
    """The blocks of a file after its first one, which tells how many cubes there are."""
    return [(first.source, start) for start in range(BLOCK, first.count, BLOCK)]


def _cubes_in(blocks) -> int:
    return sum(max(1, min(BLOCK, block.count - block.start)) for block in blocks)


def _patients_from(options: Ingestion) -> str:
    if options.patient_table is not None:
        return f"table {options.patient_table.name}"
    if options.patient_pattern is not None:
        return f"pattern {options.patient_pattern}"
    return "the files, else each file" if options.each_file_a_patient else "the files"
