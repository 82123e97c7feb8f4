"""`synthgen view`: what the cube viewer shows, gathered from a file or from shards, a generator, gates."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field

from synthgen.contracts import Provenance
from synthgen.cubes.ingest.quality_control import broken_pixels
from synthgen.cubes.readers.open import open_source
from synthgen.cubes.readers.scaling import full_scale_of, reflectance
from synthgen.cubes.readers.source import (
    GivenAxes,
    GivenScale,
    GivenUnit,
    GivenVariable,
    GivenWavelengths,
    Hints,
    given_hints,
)
from synthgen.errors import ConfigError, InputError, MismatchError
from synthgen.generator.generator import Generator
from synthgen.generator.samplers import SamplerSteps, Seed
from synthgen.integration.artifacts import PACKAGED, check_belongs, find_generator, open_cohort
from synthgen.integration.judging.reference import Bank, open_bank
from synthgen.integration.judging.shards import check_fits
from synthgen.integration.pages.cube import draw_cube, title_of
from synthgen.quality.gates import Gates, load_gates
from synthgen.quality.per_cube.plausibility import GATES
from synthgen.quality.segmenter.segmenter import Segmenter, load_segmenter
from synthgen.report.verdict_style import number
from synthgen.report.viewer import Score, ViewerCube, viewer_page
from synthgen.runs.processes.device import Device, pick_device
from synthgen.shards.manifest import MANIFEST
from synthgen.shards.reader import ShardFolder
from synthgen.shards.storage import Local, place_of

CERTAIN = 0.5  # probability from which a pixel is drawn as a structure
SMALLEST = 16  # rows that the segmenter reads
_LABELS = {
    "spectra": "spectra of the structures, distance",
    "physics": "physics, worst contrast",
    "density": "distance to the 5th nearest real cube",
}
_DISTANCE = "distance to the nearest training cube"
_OF_GATES = "distance to the nearest training cube of the gates"
_OTHERS = (
    "Nearest cubes are those of the training patients of {}, which the generator is not known to have learned from; "
    "a copy of a cube that it did learn from need not show beside it."
)


@dataclass(frozen=True)
class Held:
    """Cubes to show: float32 [n, C, H, W], what stands beside each, their bands in nm, what their generator saw."""

    cubes: np.ndarray
    about: list[ViewerCube]
    wavelengths: tuple[float, ...]
    provenance: Provenance | None = None


def view(
    file: Annotated[
        str | os.PathLike, Field(description="cohort, shards (or their URL), or anything that can be ingested")
    ],
    out: Annotated[str | os.PathLike, Field(description="picture (.png) of one cube, or page (.html) with several")],
    index: Annotated[int, Field(ge=0, description="which cube of the file; of a page the first")] = 0,
    *,
    bands: Annotated[Literal["all", "six"], Field(description="of a picture: all, or six of them")] = "all",
    count: Annotated[int, Field(ge=1, description="of a page: cubes")] = 8,
    generator: Annotated[
        str | None, Field(description="of a page: sample this generator's cubes beside those of the file")
    ] = None,
    gates_folder: Annotated[
        str | None, Field(description="of a page: show the verdict of these gates on each cube")
    ] = None,
    real: Annotated[
        str | os.PathLike | None, Field(description="of a page: cohort to show nearest cubes from; needs --gates")
    ] = None,
    seed: Seed = 0,
    steps: SamplerSteps = 8,
    device: Device = None,
    source_wavelengths: GivenWavelengths = None,
    wavelength_unit: GivenUnit = None,
    variable: GivenVariable = None,
    axes: GivenAxes = None,
    scale: GivenScale = None,
) -> Path:
    """Draw one cube as a picture (see `draw_cube`), or write a page to look through several; returns what was written.

    Args:
        generator: samples `count` cubes of ids 0, 1, ... beside those of the file.
        gates_folder: judges the synthetic cubes: those of the shards or of the generator; without either those of the
            file. With the packaged generator the packaged gates by default.
        real: cohort that nearest training cubes come from; with a generator by default the file.

    Raises InputError, MismatchError and ConfigError for what cannot be read or does not belong together.
    """
    hints = given_hints(variable, axes, source_wavelengths, wavelength_unit)
    if Path(out).suffix.lower() != ".html":
        return draw_cube(file, out, index, bands=bands, hints=hints, scale=scale)
    if count < 1:
        raise ConfigError("'count' must be at least 1", found=count)
    place, where = place_of(file), pick_device(device)
    if not isinstance(place, Local) or (Path(file) / MANIFEST).exists():
        if generator is not None:
            raise ConfigError("shards already hold a generator's cubes", path=file, remedy="leave --generator out")
        beside, judged = None, _from_shards(file, index, count, where)
    else:
        beside, judged = _from_file(Path(file), index, count, hints, scale), None
        if generator is not None:
            judged = _sampled(generator, count, seed, steps, where)
            gates_folder = gates_folder or (PACKAGED if generator == PACKAGED else None)
            _must_match(beside, judged, file)
            real = real if real is not None else file
        elif gates_folder is not None:
            beside, judged = None, beside
    gates = load_gates(gates_folder) if gates_folder is not None else None
    shown, far, notes = [], [], []
    if judged is not None:
        if gates is not None:
            check_fits(gates, str(gates_folder), judged.wavelengths, judged.cubes.shape[-1], file)
        bank = _bank(gates, real, gates_folder)
        if bank is not None and not _trained_on(bank, judged.provenance):
            notes.append(_OTHERS.format(bank.cohort.path.name))
        shown, far = _judged(judged, gates, bank)
    listed = shown + (beside.about if beside is not None else [])
    if beside is not None and judged is not None and not far:  # no training cube to show: a real one of the file
        n = len(beside.about)
        listed = [replace(c, partner=len(shown) + k % n) if k < len(shown) else c for k, c in enumerate(listed)]
    listed = [replace(c, partner=c.partner + len(listed)) if far and c.partner is not None else c for c in listed]
    nm = (judged or beside).wavelengths  # type: ignore[union-attr]
    cubes = _with_structures(listed + far, nm, gates)
    viewer_page(
        out,
        cubes,
        nm,
        title=Path(str(file)).name,
        note=". ".join([_note(cubes, nm, gates_folder), *notes]),
        listed=len(listed),
    )
    return Path(out)


def _from_file(path: Path, index: int, count: int, hints: Hints, scale: float | None) -> Held:
    source = open_source(path, hints)
    total = source.layout.count
    if not 0 <= index < total:
        raise InputError("no cube of that index", path=path, found=index, expected=f"0 to {total - 1}")
    full, _ = full_scale_of(source, scale)
    cubes, about = [], []
    for i in range(index, min(index + count, total)):
        cube = reflectance(source, i, full)
        cube[broken_pixels(cube)] = 0
        masks = source.masks(i) if source.masks is not None else {}
        cubes.append(cube)
        about.append(
            ViewerCube(title_of(source, i).replace(f", {path.name}", ""), "real", cube, masks, "masks of the file")
        )
    return Held(np.stack(cubes), about, source.wavelengths)


def _from_shards(file: str | os.PathLike, index: int, count: int, device: torch.device) -> Held:
    folder = ShardFolder.open(file, accepted_only=False, skip_rejected=False)
    manifest = folder.manifest
    if not 0 <= index < len(folder):
        raise InputError("no cube of that index", path=file, found=index, expected=f"0 to {len(folder) - 1}")
    generator = find_generator(manifest, file, device) if manifest.kind == "tokens" else None
    rejected = {r.id: r.reason for entry in manifest.shards for r in entry.rejected}
    each = ((c, int(i)) for cubes, ids in folder.cubes(generator) for c, i in zip(cubes, ids, strict=True))
    scores = dict(islice(folder.scores(), index, index + count))
    cubes, about = [], []
    for cube, sample_id in islice(each, index, index + count):
        array = cube.cpu().numpy()
        status = f"rejected: {rejected[sample_id]}" if sample_id in rejected else ""
        stored = [Score(_LABELS.get(k, _OF_GATES), number(v)) for k, v in scores.get(sample_id, {}).items()
                  if k in (*GATES, "authenticity")]  # fmt: skip
        accepted = False if status else True if stored else None
        status = status or ("admitted when written" if stored else "")
        about.append(ViewerCube(f"cube {sample_id}", "synthetic", array, {}, "", status, accepted, stored))
        cubes.append(array)
    return Held(np.stack(cubes), about, manifest.wavelengths_nm, manifest.provenance)


def _sampled(name: str, count: int, seed: int, steps: int, device: torch.device) -> Held:
    generator = Generator.load(name, device)
    cubes = generator.decode(generator.sample(range(count), seed, steps, "ab2")).cpu().numpy()
    about = [ViewerCube(f"cube {i} of {Path(name).name}", "synthetic", cube) for i, cube in enumerate(cubes)]
    return Held(cubes, about, generator.wavelengths, generator.provenance)


def _must_match(one: Held, other: Held, file: str | os.PathLike) -> None:
    if one.cubes.shape[1:] != other.cubes.shape[1:]:
        raise MismatchError(
            "the generator's cubes have another shape than those of the file",
            path=file,
            found="x".join(map(str, one.cubes.shape[1:])),
            expected="x".join(map(str, other.cubes.shape[1:])),
            remedy="ingest the file with the generator's --bands and --size first",
        )


def _bank(gates: Gates | None, real: str | os.PathLike | None, gates_folder: str | None) -> Bank | None:
    """Where nearest training cubes are looked up; None without gates, which measure how near they are."""
    if gates is None or real is None:
        return None
    cohort = open_cohort(real)
    check_belongs(cohort, gates.wavelengths, gates.size, "gates", str(gates_folder))
    return open_bank(gates, cohort)


def _trained_on(bank: Bank, provenance: Provenance | None) -> bool:
    """Whether the bank holds what the generator learned from: its cohort; of cubes without one, that of the gates."""
    if provenance is None:
        return bank.of_the_gates
    return bank.cohort.content_hash in [p.cohort_hash for p in (provenance, *provenance.also)]


def _judged(held: Held, gates: Gates | None, bank: Bank | None) -> tuple[list[ViewerCube], list[ViewerCube]]:
    """The cubes with the verdicts of the gates, and their nearest training cubes; partners are places among these."""
    if gates is None:
        return held.about, []
    block = torch.from_numpy(held.cubes)
    admission = gates(block)
    near, index = admission.scores["authenticity"], admission.scores["nearest"]
    limit = gates.limits.authenticity.limit
    if bank is not None and not bank.of_the_gates:
        result = bank.nearest(block)
        near, index, limit = result.score, result.index, bank.limit
    reasons = iter(admission.reasons)
    label, kind, near_word = _DISTANCE if bank is not None else _OF_GATES, "training", "the nearest, at "
    if bank is not None and not _trained_on(bank, held.provenance):
        kind, near_word = f"nearest in {bank.cohort.path.name}", "at "
        label = f"distance to the {kind}"
    shown, far = [], []
    for row, cube in enumerate(held.about):
        accepted = bool(admission.accept[row])
        status = "admitted" if accepted else f"rejected: {next(reasons)}"
        distance, ends = float(near[row]), gates.limits.plausible.limits or {}
        ok = None if limit is None else distance >= limit
        scores = [Score(label, number(distance), "" if limit is None else f"at least {number(limit)}", ok)]
        for name in GATES:
            value, end = float(admission.scores[name][row]), ends.get(name)
            ok = None if end is None else value <= end
            scores.append(Score(_LABELS[name], number(value), "" if end is None else f"at most {number(end)}", ok))
        shown.append(replace(cube, status=status, accepted=accepted, scores=scores))
        if bank is not None:
            place = int(index[row])
            shown[-1] = replace(shown[-1], partner=row, partner_note=f"{near_word}{number(distance)}")
            far.append(ViewerCube(bank.name(place), kind, bank.picture(place), _masks(bank, place), "masks"))
    return shown, far


def _masks(bank: Bank, place: int) -> dict[str, np.ndarray]:
    return {name: m[0] for name, m in bank.cohort.masks(bank.index[[place]]).items()}


def _with_structures(cubes: Sequence[ViewerCube], nm: Sequence[float], gates: Gates | None) -> list[ViewerCube]:
    """Cubes without masks get those that the segmenter of the gates, or the packaged one, finds."""
    bare = [k for k, c in enumerate(cubes) if not set(c.masks) - {"fov"}]
    segmenter: Segmenter | None = gates.instruments.segmenter if gates is not None else None
    if not bare or min(cubes[0].cube.shape[1:]) < SMALLEST:
        return list(cubes)
    segmenter = segmenter if segmenter is not None else load_segmenter()
    if segmenter.unreadable(nm) is not None:
        return list(cubes)
    block = torch.from_numpy(np.stack([np.nan_to_num(cubes[k].cube, posinf=0.0, neginf=0.0) for k in bare]))
    likely = segmenter.probabilities(block, nm).numpy() >= CERTAIN
    result = dict(enumerate(cubes))
    for k, masks in zip(bare, likely, strict=True):
        named = dict(zip(segmenter.structures, masks, strict=True))
        result[k] = replace(cubes[k], masks=named, found="segmented by the segmenter")
    return [result[k] for k in range(len(cubes))]


def _note(cubes: Sequence[ViewerCube], nm: Sequence[float], gates_folder: str | None) -> str:
    rows, columns = cubes[0].cube.shape[1:]
    text = f"{len(nm)} bands, {nm[0]:.0f}-{nm[-1]:.0f} nm; {rows} x {columns} pixels"
    return text + (f"; gates: {Path(gates_folder).name}" if gates_folder else "")
