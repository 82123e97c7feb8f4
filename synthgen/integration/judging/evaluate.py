"""`synthgen evaluate`: judge the cubes of any program against a real cohort."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import Field

from synthgen.contracts import Verdict
from synthgen.cubes.readers.open import open_source
from synthgen.cubes.readers.scaling import full_scale_of, reflectance
from synthgen.cubes.readers.source import (
    GivenAxes,
    GivenScale,
    GivenUnit,
    GivenVariable,
    GivenWavelengths,
    Hints,
    Source,
    given_hints,
)
from synthgen.errors import InputError, must_exist
from synthgen.integration.artifacts import GatesFolder, check_belongs, find_generator, open_cohort
from synthgen.integration.judging.judge import Blocks, counted, judge_cubes, ranks
from synthgen.integration.judging.page import content_of
from synthgen.integration.judging.reference import open_bank
from synthgen.integration.judging.shards import check_fits
from synthgen.integration.judging.verdict import compose_verdict
from synthgen.quality.gates import Gates, load_gates
from synthgen.report.verdict_page import render
from synthgen.runs.files import write_json, write_text
from synthgen.runs.locks import one_at_a_time
from synthgen.runs.processes.device import Device, pick_device
from synthgen.runs.progress import progress
from synthgen.runs.signals import StopRequest
from synthgen.shards.manifest import MANIFEST
from synthgen.shards.reader import ShardFolder
from synthgen.shards.storage import Local, place_of

READ = 32  # cubes of an external file in memory at once


def evaluate(
    synthetic: Annotated[
        str | os.PathLike, Field(description="cubes of any program: a file, or a folder of shards or its URL")
    ],
    real: Annotated[str | os.PathLike, Field(description="cohort of real cubes")],
    gates_folder: GatesFolder,
    out: Annotated[
        str | os.PathLike, Field(description="page to write; the verdict goes beside it as .json")
    ] = "report.html",
    *,
    source_wavelengths: GivenWavelengths = None,
    wavelength_unit: GivenUnit = None,
    variable: GivenVariable = None,
    axes: GivenAxes = None,
    scale: GivenScale = None,
    device: Device = None,
) -> tuple[Verdict, tuple[Path, Path]]:
    """Judge cubes against gates, and show them beside real ones.

    Args:
        synthetic: a file or folder that `open_source` opens, or a folder of shards.
        real: cohort. Its training cubes are where nearest neighbours are looked up, those of its calibration and test
            patients are the real side of the distributions.
        out: HTML page to write; the verdict goes beside it as JSON.
        source_wavelengths, wavelength_unit, variable, axes, scale: as for ingest, where a file states none. A file
            without wavelengths is taken to have those of the real cohort; the page states it.

    Returns: the verdict; page and JSON.

    Raises InputError or MismatchError for cubes that cannot be read or do not fit the gates. Nothing is written then.
    """
    page = Path(out) / "report.html" if Path(out).is_dir() else Path(out)
    record = page.with_suffix(".json")
    if record == page:
        raise InputError("the page would be written over by its JSON", path=page, expected="a name that ends in .html")
    hints = given_hints(variable, axes, source_wavelengths or None, wavelength_unit)
    with one_at_a_time(page):
        return _evaluate(synthetic, real, gates_folder, page, record, hints, scale, device)


def _evaluate(
    synthetic: str | os.PathLike,
    real: str | os.PathLike,
    gates_folder: str | os.PathLike,
    page: Path,
    record: Path,
    hints: Hints,
    scale: float | None,
    device: str | None,
) -> tuple[Verdict, tuple[Path, Path]]:
    gates = load_gates(gates_folder)
    cohort = open_cohort(real)
    check_belongs(cohort, gates.wavelengths, gates.size, "gates", gates_folder)
    place, notes, manifest = place_of(synthetic), [], None
    path = must_exist(synthetic, "any") if isinstance(place, Local) else Path(str(place))
    if not isinstance(place, Local) or (path / MANIFEST).exists():
        folder = ShardFolder.open(synthetic, accepted_only=False, skip_rejected=False)
        manifest = folder.manifest
        check_fits(gates, gates_folder, manifest.wavelengths_nm, manifest.size, path)
        generator = find_generator(manifest, path, pick_device(device)) if manifest.kind == "tokens" else None
        total, blocks = len(folder), folder.cubes(generator)
    else:
        source, notes = _open(path, hints, gates)
        layout = source.layout
        if layout.rows != layout.columns:
            raise InputError("the cubes are not square", path=path, found=f"{layout.rows}x{layout.columns}")
        check_fits(gates, gates_folder, source.wavelengths, layout.rows, path)
        full, origin = full_scale_of(source, scale)
        done = "".join(f" {note}." for note in source.declared.applied)
        notes.append(f"Reflectance 1 is {full:g} ({origin}).{done}")
        total, blocks = layout.count, _blocks(source, full)
    if total == 0:
        raise InputError("holds no cubes", path=path)
    bank = open_bank(gates, cohort)
    with progress("gates", total, "cube") as bar:
        findings = judge_cubes(gates, counted(blocks, bar.advance), ranks(total, "set"), bank)
    findings.compare(gates)
    if manifest is None:
        verdict = compose_verdict(gates, findings)
    else:
        unknown = max(manifest.proposed - total - sum(manifest.lost.values()), 0)
        verdict = compose_verdict(gates, findings, manifest.generator_hash, lost=manifest.lost, unknown=unknown)
    text = render(content_of(gates, verdict, findings, title=path.resolve().name, bank=bank, notes=notes))
    value = verdict.model_dump(mode="json")
    rejected = [r.model_dump(mode="json") for r in findings.rejected]
    about = {**value, "reason": verdict.reason, "synthetic": str(path), "real": str(real), "rejected": rejected}
    with StopRequest():  # the two files belong together: Ctrl-C waits for the second
        write_text(page, text)
        write_json(record, about)
    return verdict, (page, record)


def _open(path: Path, hints: Hints, gates: Gates) -> tuple[Source, list[str]]:
    """The source; where it knows no wavelengths it gets those of the gates, and a note reports it."""
    try:
        return open_source(path, hints), []
    except InputError as error:
        if error.what != "wavelengths absent":
            raise
    nm = gates.wavelengths
    note = f"The file names no wavelengths: those of the gates are assumed, {nm[0]:g} to {nm[-1]:g} nm."
    return open_source(path, replace(hints, wavelengths=nm)), [note]


def _blocks(source: Source, full: float) -> Blocks:
    count = source.layout.count
    for start in range(0, count, READ):
        ids = range(start, min(start + READ, count))
        cubes = [reflectance(source, i, full) for i in ids]
        yield torch.from_numpy(np.stack(cubes)), torch.tensor(list(ids), dtype=torch.int64)
