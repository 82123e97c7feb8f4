"""Which records of a sweep may stand in one table: alike in all but what they are compared by."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from synthgen.errors import MismatchError
from synthgen.runs.files import read_json

GRID = "grid"  # the table of the cells that the axes below span; the others are named variants
AXES = ("autoencoder.compression", "autoencoder.latent_channels", "diffusion.channels")
JUDGED = ("cohort", "gates_hash", "samples", "sampler")  # without these alike, no two figures can be compared
Record = dict[str, Any]


def read_records(folder: Path) -> list[Record]:
    """Every record of a folder, finished or failed, by file name. MismatchError for the first that does not belong."""
    found = [(path, read_json(path)) for path in sorted(folder.glob("*.json"))]
    must_belong([(path, r) for path, r in found if r["status"] == "done"])
    return [r for _, r in found]


def must_belong(done: Sequence[tuple[Path, Record]]) -> None:
    """MismatchError for the first finished record that differs from most where it must not.

    All are judged on one cohort by one set of gates, as many samples of one sampler; those of one name differ in their
    seed alone; those of the grid in its axes besides.
    """
    _alike(done, lambda r: {key: r.get(key) for key in JUDGED}, "all records")
    named: dict[str, list[tuple[Path, Record]]] = defaultdict(list)
    for path, r in done:
        named[r["name"]].append((path, r))
    for name, many in named.items():
        _alike(many, settings, f"the seeds of {name}")
        _each_once(many)
    grid = [(path, r) for path, r in done if r["table"] == GRID]
    _alike(grid, lambda r: {k: v for k, v in settings(r).items() if k not in AXES}, "the cells of the grid")


def settings(record: Record) -> dict[str, Any]:
    """What was asked of a cell, but for the seed: `autoencoder.minutes` and so on."""
    found = {"table": record["table"], "steps": record["steps"]}
    for part in ("autoencoder", "diffusion"):
        found |= {f"{part}.{key}": value for key, value in record[part].items() if key != "seed"}
    return found


def _alike(group: Sequence[tuple[Path, Record]], of: Callable[[Record], Mapping[str, Any]], who: str) -> None:
    facts = [of(r) for _, r in group]
    for key in sorted({key for fact in facts for key in fact}):
        values = [repr(fact.get(key, "the default")) for fact in facts]
        (usual, _), *others = Counter(values).most_common()
        if others:
            odd = next(k for k, value in enumerate(values) if value != usual)
            raise MismatchError(
                f"does not belong here: {who} must be alike in '{key}'",
                path=group[odd][0],
                found=values[odd],
                expected=f"{usual}, as in {values.count(usual)} of {len(values)}",
                remedy="give it a folder of its own, or delete it and run the sweep again",
            )


def _each_once(many: Sequence[tuple[Path, Record]]) -> None:
    seen: dict[int, Path] = {}
    for path, r in many:
        if r["seed"] in seen:
            raise MismatchError(
                f"holds the same cell and seed as {seen[r['seed']].name}",
                path=path,
                found=f"{r['name']}, seed {r['seed']}",
                remedy="keep one of the two",
            )
        seen[r["seed"]] = path
