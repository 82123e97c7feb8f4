"""The manifest of a shard folder: read, written, and stamped with what the gates found."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from synthgen.contracts import Manifest, Rejection, Status, Verdict
from synthgen.errors import InputError, MismatchError
from synthgen.runs.files import json_text
from synthgen.shards.storage import Place

MANIFEST = "manifest.json"
VERSION = Manifest.model_fields["version"].get_default()  # of the manifests that this code writes


def manifest_of(place: Place) -> Manifest:
    """The manifest of a shard folder; InputError when it is missing or damaged."""
    place.must_exist()
    path = place.child(MANIFEST)
    if place.size(MANIFEST) is None:
        raise InputError(f"is not a folder of shards: it has no {MANIFEST}", path=str(place), remedy="check the path")
    values = read_sheet(place, MANIFEST)
    if isinstance(values, dict) and isinstance(made := values.get("version"), int) and made > VERSION:
        raise InputError(
            "was written by a newer version of synthgen",
            path=path,
            found=f"manifest version {made}",
            expected=f"at most {VERSION}",
            remedy="read it with that version, or write the shards again with this one",
        )
    if isinstance(values, dict) and values.get("version", 1) == 1:
        raise InputError(
            "was written by an older version of synthgen",
            path=path,
            found="manifest version 1, SHA-256 checksums",
            expected=f"version {VERSION}",
            remedy="write the shards again with this version: the same seed gives the same cubes",
        )
    try:
        return Manifest.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(
            "is not a manifest of shards", path=path, found=f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        ) from None


def read_sheet(place: Place, name: str) -> Any:
    """The value in a JSON file; InputError when it is missing or is not JSON."""
    with place.open(name) as file:
        try:
            return json.loads(file.read().decode("utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise InputError("is not valid JSON", path=place.child(name), found=str(error)) from None


def gated(manifest: Manifest, verdict: Verdict, shards: Mapping[str, tuple[Verdict, Sequence[Rejection]]]) -> Manifest:
    """The manifest with what `synthgen gate` found: the verdict of the set, and by the name of each shard its own
    verdict and the cubes that were rejected. The tar files stay as they are; readers skip what was rejected.

    MismatchError when the verdict is of another generator's cubes.
    """
    if verdict.generator_hash not in (None, manifest.generator_hash):
        raise MismatchError(
            "the verdict is of another generator's cubes",
            found=verdict.generator_hash,
            expected=manifest.generator_hash,
            remedy="judge these shards themselves with `synthgen gate`",
        )
    entries = tuple(
        s.model_copy(update={"verdict": shards[s.name][0], "rejected": tuple(shards[s.name][1])})
        for s in manifest.shards
    )
    return stamped(manifest.model_copy(update={"shards": entries}), verdict)


def write_manifest(place: Place, manifest: Manifest) -> None:
    text = json_text(manifest.model_dump(mode="json"), indent=2) + "\n"
    place.write(MANIFEST, lambda file: file.write(text.encode()))


def settings(old: Manifest, fresh: Manifest) -> list[tuple[str, Any, Any]]:
    """What must agree before shards are added to a folder: (name, as it is there, as wanted)."""
    names = ("kind", "dtype", "generator_hash", "seed", "steps", "sampler", "wavelengths_nm", "size")
    if old.kind == "cubes" and old.dtype is None:  # written before there was a choice
        old = old.model_copy(update={"dtype": "uint16"})
    pairs = [(name.replace("_", " "), getattr(old, name), getattr(fresh, name)) for name in names]
    was, wanted = (m.verdict.gates_hash if m.verdict is not None else None for m in (old, fresh))
    return [*pairs, ("gates hash", was, wanted)]


def stamped(manifest: Manifest, verdict: Verdict) -> Manifest:
    """The manifest with `verdict`, and its status on every shard; what is neither pass nor fail is 'uncertified'.

    A shard whose own cubes failed stays failed.
    """
    shards = tuple(s.model_copy(update={"status": stamp(verdict, s.verdict)}) for s in manifest.shards)
    return manifest.model_copy(update={"verdict": verdict, "shards": shards})


def stamp(verdict: Verdict | None, own: Verdict | None = None) -> Status:
    if own is not None and own.status == Status.FAIL:
        return Status.FAIL
    sure = verdict is not None and verdict.status in (Status.PASS, Status.FAIL)
    return verdict.status if verdict is not None and sure else Status.UNCERTIFIED
