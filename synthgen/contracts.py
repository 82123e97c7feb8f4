"""What passes between the rooms: cube batches, sample identities, tokens, verdicts, manifests, provenance.

Shapes are written `N` cubes, `C` bands, `H` x `W` pixels, `L` quantiser levels, `h` x `w` tokens, `G` x `G` base cells.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, TypedDict

import torch
from pydantic import Field
from torch import Tensor

from synthgen.config import Config
from synthgen.errors import MismatchError
from synthgen.runs.keys import content_hash as content_hash


class CubeBatch(TypedDict):
    """A batch of cubes.

    cube: float32 [B, C, H, W], reflectance in [0, 1]. is_synthetic: bool [B]. id: int64 [B], the index in the cohort
    for a real cube, the sample id for a synthetic one.
    """

    cube: Tensor
    is_synthetic: Tensor
    id: Tensor


@dataclass(frozen=True)
class Tokens:
    """Cubes as a generator's codes; decoding is deterministic, so these are the cubes.

    indices: int32 [N, L, h, w], entries of the codebook of each residual level.
    base: float16 [N, C, G, G], mean normalised log-reflectance per band and cell; G = 0 where the generator has no
        base spectrum.
    id: int64 [N], the sample ids (or -1 for encoded real cubes).
    generator_hash: hash of the generator that made them and alone can decode them.
    """

    indices: Tensor
    base: Tensor
    id: Tensor
    generator_hash: str

    def __len__(self) -> int:
        return self.indices.shape[0]

    def __getitem__(self, which: slice | Tensor | Sequence[int]) -> Tokens:
        if not isinstance(which, slice):
            which = torch.as_tensor(which, device=self.indices.device)
        return Tokens(self.indices[which], self.base[which], self.id[which], self.generator_hash)

    def to(self, device: torch.device | str) -> Tokens:
        return Tokens(self.indices.to(device), self.base.to(device), self.id.to(device), self.generator_hash)

    @staticmethod
    def cat(parts: Sequence[Tokens]) -> Tokens:
        """Join blocks of one generator; MismatchError when they come from several."""
        hashes = {p.generator_hash for p in parts}
        if len(hashes) != 1:
            raise MismatchError("tokens of different generators cannot be joined", found=sorted(hashes))
        return Tokens(
            torch.cat([p.indices for p in parts]),
            torch.cat([p.base for p in parts]),
            torch.cat([p.id for p in parts]),
            parts[0].generator_hash,
        )


class Status(StrEnum):
    """Outcome of a check. `absent`: the structure is not there; `uncertified`: admitted without certificate."""

    PASS = "pass"
    FAIL = "fail"
    UNDECIDED = "undecided"
    ABSENT = "absent"
    UNCERTIFIED = "uncertified"


class Check(Config):
    """One quality statistic beside its limit."""

    name: str
    status: Status
    value: float | None = Field(default=None, description="the statistic")
    interval: tuple[float, float] | None = Field(default=None, description="95 % interval of the statistic")
    limit: float | None = Field(default=None, description="the calibrated limit")
    n: int = Field(default=0, description="number of cubes behind the value")
    reason: str = Field(default="", description="the outcome in words")


class Embedding(Config):
    """A feature space that a result rests on."""

    name: str
    hash: str
    dimension: int
    trained_on: str = Field(description="what it was trained on, in words; 'nothing' for an untrained one")


class Verdict(Config):
    """The verdict of the set gates on a set of cubes."""

    status: Status
    checks: tuple[Check, ...] = ()
    proposed: int = Field(default=0, description="cubes proposed to the per-cube gates")
    accepted: int = Field(default=0, description="cubes that passed them")
    generator_hash: str | None = None
    gates_hash: str | None = None
    embeddings: tuple[Embedding, ...] = Field(default=(), description="the feature spaces behind the checks")

    @property
    def reason(self) -> str:
        """The first two checks that kept the verdict from a pass, in words, and how many there are."""
        bad = [c for c in self.checks if c.status == self.status and self.status != Status.PASS]
        more = f"; and {len(bad) - 2} more" if len(bad) > 2 else ""
        return "; ".join(f"{c.name}: {c.reason or c.status}" for c in bad[:2]) + more or str(self.status)


@dataclass(frozen=True)
class Admission:
    """The verdict of the per-cube gates on N cubes: accept bool [N], a reason for each rejected, scores [N] by gate.

    columns: what the set gates need to know of each cube, [N] or [N, d] by name, so that it is computed once.
    """

    accept: Tensor
    reasons: tuple[str, ...]
    scores: dict[str, Tensor] = field(default_factory=dict)
    columns: dict[str, Tensor] = field(default_factory=dict)


class Gate(Protocol):
    """Anything that judges cubes: float32 [N, C, H, W] reflectance -> Admission."""

    def __call__(self, cubes: Tensor) -> Admission: ...


class Provenance(Config):
    """Which cohort and which patients something was made from, so that a leak can be named and refused.

    Patients are kept as salted hashes: whoever holds the patient list can ask whether a patient was seen, nobody can
    read the list from the hashes alone without guessing ids.
    """

    cohort_hash: str
    salt: str
    patients: tuple[str, ...] = Field(default=(), description="salted hashes, sorted")
    also: tuple[Provenance, ...] = Field(default=(), description="provenance of the generator and gates behind this")

    @staticmethod
    def of(cohort_hash: str, patients: Iterable[str], also: Sequence[Provenance] = ()) -> Provenance:
        salt = cohort_hash[:16]
        return Provenance(
            cohort_hash=cohort_hash, salt=salt, patients=tuple(sorted(hash_patients(patients, salt))), also=tuple(also)
        )

    def seen(self, patients: Iterable[str]) -> list[str]:
        """The patients of `patients` that are among those seen here or by anything this was made with."""
        wanted = sorted(set(patients))
        mine = set(self.patients)
        hit = {p for p, h in zip(wanted, hash_patients(wanted, self.salt), strict=True) if h in mine}
        for other in self.also:
            hit.update(other.seen(wanted))
        return sorted(hit)


class Rejection(Config):
    """A cube that the per-cube gates rejected, and why."""

    id: int
    reason: str


class ShardEntry(Config):
    """One shard of a manifest.

    status: what a reader obeys. It is pass where the whole set passed and this shard did not fail by itself.
    """

    name: str
    xxh128: str = Field(description="XXH3 of its bytes, 128 bits: what `xxh128sum` prints")
    bytes: int
    count: int = Field(description="cubes in the file, the rejected ones among them")
    first_id: int
    last_id: int
    status: Status = Status.UNCERTIFIED
    lost: dict[str, int] = Field(
        default={}, description="proposals of its range rejected before it was written, by reason"
    )
    rejected: tuple[Rejection, ...] = Field(default=(), description="cubes in the file that are not to be used")
    verdict: Verdict | None = Field(default=None, description="of this shard's own cubes, by `synthgen gate`")


class Manifest(Config):
    """`manifest.json` of a folder of shards. Fields that an older one lacks have their defaults."""

    version: int = Field(default=2, description="of this format; 2: checksums are XXH3")
    kind: str = Field(description="tokens or cubes")
    dtype: str | None = Field(default=None, description="of cubes: uint16 (reflectance x 65535) or float16")
    generator_hash: str
    generator: str | None = Field(default=None, description="where that generator is: a packaged name or a folder")
    seed: int
    steps: int
    sampler: str
    wavelengths_nm: tuple[float, ...]
    size: int
    proposed: int = 0
    lost: dict[str, int] = Field(default={}, description="proposals rejected before they were written, by reason")
    shards: tuple[ShardEntry, ...] = ()
    verdict: Verdict | None = None
    provenance: Provenance | None = None


def hash_patients(patients: Iterable[str], salt: str) -> list[str]:
    return [hashlib.blake2b(f"{salt}/{p}".encode(), digest_size=16).hexdigest() for p in patients]
