"""What a folder of shards holds before the first is written: nothing, or shards that the new ones go with."""

from __future__ import annotations

from synthgen.contracts import Gate, Manifest, Status, Verdict
from synthgen.errors import InputError, MismatchError
from synthgen.generator.generator import Generator
from synthgen.shards.manifest import MANIFEST, manifest_of, settings, stamped
from synthgen.shards.storage import Place, Where, place_of


def check_destination(out: Where, fresh: Manifest) -> None:
    """Raise now what `write_shards` would raise of the place: for whoever has much to do before. Changes nothing."""
    place = place_of(out)
    if place.could_be():
        _found(place, fresh)


def fresh_manifest(
    generator: Generator,
    *,
    kind: str,
    dtype: str,
    seed: int,
    steps: int,
    sampler: str,
    gates: Gate | None = None,
    verdict: Verdict | None = None,
) -> Manifest:
    """The manifest of a folder without shards."""
    gates_hash = getattr(gates, "hash", None)
    if verdict is None:
        verdict = Verdict(status=Status.UNCERTIFIED, generator_hash=generator.hash)
    provenance = generator.provenance
    seen_by_gates = getattr(gates, "provenance", None)
    if seen_by_gates is not None:
        provenance = provenance.model_copy(update={"also": (*provenance.also, seen_by_gates)})
    return Manifest(
        kind=kind,
        dtype=dtype if kind == "cubes" else None,
        generator_hash=generator.hash,
        generator=generator.source,
        seed=seed,
        steps=steps,
        sampler=sampler,
        wavelengths_nm=generator.wavelengths,
        size=generator.size,
        verdict=verdict.model_copy(update={"gates_hash": gates_hash}),
        provenance=provenance,
    )


def begin(place: Place, fresh: Manifest) -> Manifest:
    """The manifest to go on from: that of the folder when it fits, else `fresh`."""
    old = _found(place, fresh)
    if old is None:
        return fresh
    for name in place.names():
        if name.endswith(".partial"):  # a killed process left it
            place.remove(name)
    assert fresh.verdict is not None
    return stamped(old, fresh.verdict)


def _found(place: Place, fresh: Manifest) -> Manifest | None:
    """The folder's manifest, None where there is none; MismatchError when it is of other settings than `fresh`."""
    names = place.names()
    if MANIFEST not in names:
        if any(name.endswith(".tar") for name in names):
            raise InputError(
                "holds tar files but no manifest", path=str(place), expected=MANIFEST, remedy="choose another folder"
            )
        return None
    old = manifest_of(place)
    for name, was, wanted in settings(old, fresh):
        if was != wanted:
            raise MismatchError(
                f"holds shards of another {name}",
                path=str(place),
                found=was,
                expected=wanted,
                remedy="choose another folder, or remove this one",
            )
    return old
