"""`synthgen gate`: judge a folder of shards before it is used, and write the verdict beside the shards."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from synthgen.contracts import Manifest, Rejection, ShardEntry, Verdict
from synthgen.cubes.wavelengths import same_wavelengths
from synthgen.errors import InputError, MismatchError
from synthgen.integration.artifacts import GatesFolder, bands_in_words, check_belongs, find_generator, open_cohort
from synthgen.integration.judging.judge import Findings, counted, judge_cubes, ranks
from synthgen.integration.judging.page import content_of
from synthgen.integration.judging.reference import open_bank
from synthgen.integration.judging.verdict import compose_verdict
from synthgen.quality.gates import Gates, load_gates
from synthgen.report.verdict_page import render
from synthgen.runs.files import write_json, write_text
from synthgen.runs.locks import one_at_a_time
from synthgen.runs.processes.device import Device, pick_device
from synthgen.runs.progress import progress
from synthgen.runs.signals import StopRequest
from synthgen.shards.manifest import gated, write_manifest
from synthgen.shards.reader import ShardFolder
from synthgen.shards.storage import Local, Place, Where, place_of

VERDICT, PAGE = "verdict.json", "verdict.html"


def gate_shards(
    shards: Annotated[Where, Field(description="folder of shards, of tokens or of cubes, or its URL")],
    gates_folder: GatesFolder,
    out: Annotated[
        str | os.PathLike | None, Field(description="folder for verdict.html and .json; beside the shards by default")
    ] = None,
    *,
    real: Annotated[
        str | os.PathLike | None, Field(description="training cohort, to show nearest neighbours from")
    ] = None,
    device: Device = None,
) -> tuple[Verdict, Manifest, Path]:
    """Judge every cube of a shard folder, every shard and the whole set.

    The manifest gets the verdicts and the ids of rejected cubes, which readers then skip; the shards stay as they are,
    so judging again, by these or by other gates, starts from all their cubes. `verdict.json` and `verdict.html` go
    into `out` (by default the shard folder). All three are written at the end: who interrupts it before has changed
    nothing.

    A shard's own verdict is taken at 0.05 / number of shards, so that among sound ones none fails in 19 of 20 folders;
    it leaves out the comparison of images, which is made for the whole set.

    Args:
        real: cohort whose training cubes are shown beside the nearest synthetic ones.

    Returns: the verdict on the set, the new manifest, the page.

    Raises:
        InputError: a shard is missing or altered. MismatchError: bands or size are not those of the gates, or the
        generator is another one. StorageError: another command is at work on the folder.
    """
    place = place_of(shards)
    place.must_exist()
    if out is None and not isinstance(place, Local):
        raise InputError("the page cannot be written into an object store", path=str(place), remedy="give --out")
    with ExitStack() as stack:
        stack.enter_context(place.alone())
        if out is not None and not _same(out, shards):
            stack.enter_context(one_at_a_time(out, make=True))
        return _gate(place, gates_folder, Path(out if out is not None else shards), real, device)


def _same(out: str | os.PathLike, shards: Where) -> bool:
    return "://" not in str(shards) and Path(out).resolve() == Path(shards).resolve()


def _gate(
    place: Place, gates_folder: str | os.PathLike, out: Path, real: str | os.PathLike | None, device: str | None
) -> tuple[Verdict, Manifest, Path]:
    gates, shards = load_gates(gates_folder), str(place)
    folder = ShardFolder.open(shards, accepted_only=False, skip_rejected=False)
    manifest = folder.manifest
    check_fits(gates, gates_folder, manifest.wavelengths_nm, manifest.size, shards)
    if not manifest.shards:
        raise InputError("holds no cubes", path=shards, remedy="write shards with `synthgen sample`")
    bank = None
    if real is not None:
        cohort = open_cohort(real)
        check_belongs(cohort, gates.wavelengths, gates.size, "gates", gates_folder)
        bank = open_bank(gates, cohort)
    folder.verify()
    _report_what_is_replaced(manifest, gates, shards)
    generator = find_generator(manifest, shards, pick_device(device)) if manifest.kind == "tokens" else None

    total, count, start = sum(s.count for s in manifest.shards), len(manifest.shards), 0
    rank = ranks(total, "set")
    everything = Findings(wanted=gates.images)
    judged: dict[str, tuple[Verdict, list[Rejection]]] = {}
    with progress("gates", total, "cube") as bar:
        for entry in manifest.shards:
            blocks = counted(folder.cubes_of(entry, generator), bar.advance)
            findings = judge_cubes(gates, blocks, rank[start : start + entry.count], bank)
            if count > 1:
                judged[entry.name] = _verdict_of(entry, gates, findings, manifest, 0.05 / count), findings.rejected
            everything.take(findings)
            start += entry.count
    unknown = max(manifest.proposed - total - sum(manifest.lost.values()), 0)
    everything.compare(gates)
    verdict = compose_verdict(gates, everything, manifest.generator_hash, lost=manifest.lost, unknown=unknown)
    if count == 1:
        judged[manifest.shards[0].name] = verdict, everything.rejected
    after = gated(manifest, verdict, judged)
    title = f"Shards {place.child('').rstrip('/').rsplit('/', 1)[-1]}"
    text = render(content_of(gates, verdict, everything, title=title, bank=bank, manifest=after))
    with StopRequest():  # the three files belong together: Ctrl-C waits for the last
        write_text(out / PAGE, text)
        write_json(out / VERDICT, _as_json(verdict, after))
        write_manifest(place, after)
    return verdict, after, out / PAGE


def _verdict_of(entry: ShardEntry, gates: Gates, findings: Findings, manifest: Manifest, alpha: float) -> Verdict:
    """The verdict on the cubes of one shard, at a level that is shared by all shards."""
    unknown = max(entry.last_id - entry.first_id + 1 - entry.count - sum(entry.lost.values()), 0)
    return compose_verdict(
        gates, findings, manifest.generator_hash, lost=entry.lost, unknown=unknown, alpha=alpha, images=False
    )


def check_fits(
    gates: Gates, gates_path: str | os.PathLike, wavelengths: Sequence[float], size: int, path: str | os.PathLike
) -> None:
    """MismatchError unless the gates are for cubes of these bands and this size."""
    remedy = "take gates that were calibrated on real cubes of these bands and this size (synthgen calibrate)"
    if not same_wavelengths(gates.wavelengths, wavelengths):
        raise MismatchError(
            "the cubes have other bands than the gates",
            path=path,
            found=bands_in_words(wavelengths),
            expected=f"{bands_in_words(gates.wavelengths)} as in {gates_path}",
            remedy=remedy,
        )
    if size != gates.size:
        raise MismatchError(
            "the cubes have another size than the gates",
            path=path,
            found=f"{size}x{size}",
            expected=f"{gates.size}x{gates.size} as in {gates_path}",
            remedy=remedy,
        )


def _report_what_is_replaced(manifest: Manifest, gates: Gates, path: str | os.PathLike) -> None:
    """One line where the verdict on record was not given by these gates on these cubes."""
    old = manifest.verdict
    if old is None:
        return
    if old.generator_hash not in (None, manifest.generator_hash):
        print(f"{path}: the verdict on record is of another generator's cubes; it is replaced", file=sys.stderr)
    elif old.gates_hash not in (None, gates.hash):
        print(f"{path}: the verdict on record was given by other gates; it is replaced", file=sys.stderr)


def _as_json(verdict: Verdict, manifest: Manifest) -> dict[str, Any]:
    """The verdict on the set, and that of each shard with the cubes rejected in it."""
    shards = [
        s.model_dump(mode="json", include={"name", "xxh128", "count", "status", "rejected", "verdict"})
        for s in manifest.shards
    ]
    return {**verdict.model_dump(mode="json"), "reason": verdict.reason, "shards": shards}
