"""`synthgen gate`: judge a folder of shards before it is used, and write the verdict beside the shards."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from synthgen.contracts import Manifest, Rejection, Verdict
from synthgen.cubes.wavelengths import same_wavelengths
from synthgen.errors import InputError, MismatchError
from synthgen.integration.bank import open_bank
from synthgen.integration.judging import Findings, drawn, judge_cubes, most_cubes, sampled, set_verdict
from synthgen.integration.supply import bands_in_words, check_belongs, find_generator, open_cohort
from synthgen.integration.verdict_content import content_of
from synthgen.quality.gates import Gates, load_gates
from synthgen.report.verdict_page import verdict_page
from synthgen.runs.device import pick_device
from synthgen.runs.files import write_json
from synthgen.runs.progress import progress
from synthgen.shards.reader import ShardFolder
from synthgen.shards.writer import record_gating

VERDICT, PAGE = "verdict.json", "verdict.html"


def gate_shards(
    shards: str | os.PathLike,
    gates_folder: str | os.PathLike,
    out: str | os.PathLike | None = None,
    *,
    real: str | os.PathLike | None = None,
    device: str | None = None,
) -> tuple[Verdict, Manifest, Path]:
    """Judge every cube of a shard folder, every shard and the whole set.

    The manifest gets the verdicts and the ids of rejected cubes, which readers then skip; the shards stay as they are,
    so judging again, by these or by other gates, starts from all their cubes. `verdict.json` and `verdict.html` are
    written into `out` (by default the shard folder).

    Args:
        real: cohort whose training cubes are shown beside the nearest synthetic ones.

    Returns: the verdict on the set, the new manifest, the page.

    Raises:
        InputError: a shard is missing or altered. MismatchError: bands or size are not those of the gates, or the
        generator is another one.
    """
    gates = load_gates(gates_folder)
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
    _say_what_is_replaced(manifest, gates, shards)
    generator = find_generator(manifest, shards, pick_device(device)) if manifest.kind == "tokens" else None

    total = sum(s.count for s in manifest.shards)
    most, start, everything, sample = most_cubes(gates), 0, Findings(), []
    judged: dict[str, tuple[Verdict, list[Rejection]]] = {}
    in_set = drawn(total, most, "set")
    with progress("gates", total, "cube") as bar:
        for entry in manifest.shards:
            here = in_set[start : start + entry.count]
            in_shard = here if len(manifest.shards) == 1 else drawn(entry.count, most, entry.name)
            found = judge_cubes(gates, folder.cubes_of(entry, generator), in_shard | here, bank)
            found.proposed = max(found.proposed, entry.last_id - entry.first_id + 1)  # some were lost when written
            own = set_verdict(gates, found, sampled(gates, found, in_shard), manifest.generator_hash)
            judged[entry.name] = own, found.rejected
            sample.append(sampled(gates, found, here))
            everything.take(found)
            start += entry.count
            bar.advance(entry.count)
    cubes = torch.cat(sample)
    everything.proposed = max(everything.proposed, manifest.proposed)
    alone = len(manifest.shards) == 1 and everything.proposed == found.proposed
    verdict = own if alone else set_verdict(gates, everything, cubes, manifest.generator_hash)
    manifest = record_gating(shards, verdict, judged)
    place = Path(out if out is not None else shards)
    page = place / PAGE
    write_json(place / VERDICT, _as_json(verdict, manifest))
    title = f"Shards {Path(shards).resolve().name}"
    verdict_page(page, content_of(gates, verdict, everything, cubes, title=title, bank=bank, manifest=manifest))
    return verdict, manifest, page


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


def _say_what_is_replaced(manifest: Manifest, gates: Gates, path: str | os.PathLike) -> None:
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
        s.model_dump(mode="json", include={"name", "sha256", "count", "status", "rejected", "verdict"})
        for s in manifest.shards
    ]
    return {**verdict.model_dump(mode="json"), "reason": verdict.reason, "shards": shards}
