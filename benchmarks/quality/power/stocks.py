"""Stocks of the power study: every cube of a planted fault judged once, then drawn from as often as wanted."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.quality.power.plain import Plain
from synthgen.contracts import Admission
from synthgen.quality.gates import Gates
from synthgen.quality.per_cube.acceptance import AcceptanceCounts
from synthgen.quality.sets.table import Rows

POOL = 120  # pictures of each fault whose pairs are computed; a verdict takes 60 of them


@dataclass(frozen=True)
class Stock:
    """Every cube of a fault, judged once: rows of all, outcome at the per-cube gates, similarities of the pool."""

    rows: Rows
    accept: np.ndarray
    copy: np.ndarray
    score: np.ndarray
    pigment: np.ndarray
    side: np.ndarray
    reasons: np.ndarray
    similarity: np.ndarray
    pool: np.ndarray
    plain: np.ndarray

    def draw(
        self, n: int, rng: np.random.Generator, extra: Stock | None = None, copies: int = 0
    ) -> tuple[Rows, AcceptanceCounts, np.ndarray, np.ndarray]:
        """n admitted cubes of different patients (all, if fewer), and the counts of all proposals behind them.

        copies: so many of `extra` are proposed besides. Also, of n proposals: plain features and encoder coordinates.
        """
        owner = np.unique(self.rows.patients, return_inverse=True)[1]
        order = rng.permutation(len(owner))
        first = order[np.sort(np.unique(owner[order], return_index=True)[1])]  # one eye of each patient
        enough = np.flatnonzero(np.cumsum(self.accept[first]) >= n)
        chosen = first[: enough[0] + 1] if len(enough) else first
        acceptance = self.acceptance(chosen)
        rows = self.rows.take(chosen[self.accept[chosen]])
        generic, coordinates = self.plain[chosen[: n - copies]], self.rows["encoder"][chosen[: n - copies]]
        if extra is not None and copies:
            planted = rng.permutation(len(extra.accept))[:copies]
            acceptance.merge(extra.acceptance(planted))
            slipped = planted[extra.accept[planted]]
            rows = Rows.cat([rows.take(np.arange(len(rows) - len(slipped))), extra.rows.take(slipped)])
            generic = np.concatenate([generic, extra.plain[planted]])
            coordinates = np.concatenate([coordinates, extra.rows["encoder"][planted]])
        return Rows(rows.columns, np.arange(len(rows)), rows.made_by), acceptance, generic, coordinates

    def acceptance(self, which: np.ndarray) -> AcceptanceCounts:
        names = ("copy", "score", "pigment", "side")
        scores = {name: torch.from_numpy(getattr(self, name)[which]) for name in names}
        scores["authenticity"] = scores.pop("score")
        reasons = tuple(str(r) for r in self.reasons[which] if r)
        return AcceptanceCounts.of(Admission(torch.from_numpy(self.accept[which]), reasons, scores))

    def pictures(self, count: int, rng: np.random.Generator) -> np.ndarray:
        some = rng.permutation(len(self.similarity))[:count]
        return self.similarity[np.ix_(some, some)]


@torch.no_grad()
def stock_of(gates: Gates, cubes, patients: np.ndarray, plain: Plain, show=lambda k: None) -> Stock:
    """Judge blocks of cubes (an iterable of tensors) once."""
    parts, outcome, reasons, pictures, generic = [], [], [], [], []
    for block in cubes:
        admission = gates(block)
        parts.append(gates.rows(admission, everything=True))
        names = ("copy", "authenticity", "pigment", "side")
        outcome.append(np.stack([admission.accept.numpy(), *(admission.scores[k].numpy() for k in names)]))
        why = iter(admission.reasons)
        reasons += [("" if ok else next(why)) for ok in admission.accept.tolist()]
        if sum(map(len, pictures)) < 2 * POOL:
            pictures.append(block.clone())
        generic.append(plain(block))
        show(len(block))
    columns = {k: np.concatenate([p[k] for p in parts]) for k in parts[0].columns}
    accept, copy, score, pigment, side = np.concatenate(outcome, axis=1)
    some = torch.cat(pictures)[_apart(2 * POOL)]
    return Stock(
        Rows.of(columns, patients, gates.hash),
        accept.astype(bool),
        copy.astype(bool),
        score.astype(np.float32),
        pigment.astype(np.int64),
        side.astype(np.int64),
        np.array(reasons, object),
        gates.similarity(some[:POOL], everything=True),
        np.arange(len(some)),
        np.concatenate(generic),
    )


def _apart(count: int) -> np.ndarray:
    """Places of one eye of each of the first count / 2 patients, left and right in turn: fellow eyes stand together."""
    patient = np.arange(count // 2)
    return 2 * patient + patient % 2


def file_of(name: str) -> str:
    return name.replace(" ", "_").replace("%", "pct")


def some_of(stock: Stock, which: np.ndarray, similarity: np.ndarray) -> Stock:
    names = ("accept", "copy", "score", "pigment", "side", "reasons")
    parts = [getattr(stock, name)[which] for name in names]
    return Stock(stock.rows.take(which), *parts, similarity, np.arange(len(similarity)), stock.plain[which])


def save(cache: Path, name: str, stock: Stock) -> None:
    arrays = {f"row.{k}": v for k, v in stock.rows.columns.items()}
    names = ("accept", "copy", "score", "pigment", "side", "similarity", "pool", "plain")
    arrays |= {k: getattr(stock, k) for k in names}
    owner = np.unique(stock.rows.patients, return_inverse=True)[1]
    about = {"made_by": stock.rows.made_by, "reasons": stock.reasons.tolist()}
    np.savez(cache / f"{file_of(name)}.npz", owner=owner, about=np.array(json.dumps(about)), **arrays)


def load(cache: str | Path, name: str) -> Stock:
    with np.load(Path(cache) / f"{file_of(name)}.npz") as held:
        about = json.loads(str(held["about"]))
        columns = {k.removeprefix("row."): held[k] for k in held.files if k.startswith("row.")}
        rows = Rows.of(columns, held["owner"], about["made_by"])
        first = (held[k] for k in ("accept", "copy", "score", "pigment", "side"))
        reasons = np.array(about["reasons"], object)
        return Stock(rows, *first, reasons, held["similarity"], held["pool"], held["plain"])
