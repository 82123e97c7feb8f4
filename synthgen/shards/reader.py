"""Reading shards back: checksums first, then tokens or cubes; by default only what the set gates have passed."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import torch
import xxhash
from torch import Tensor

from synthgen.contracts import ShardEntry, Status, Tokens, content_hash
from synthgen.errors import GateError, InputError, MismatchError, UndecidedError
from synthgen.generator.generator import Generator
from synthgen.shards.manifest import manifest_of
from synthgen.shards.packing import scores_of, unpack_block
from synthgen.shards.storage import Where, place_of

BLOCK_BYTES = 16 << 20  # float32 of a block of cubes: 64 of them at 64 pixels, 5 at 224; memory of this size is reused

_REWRITE = "write the shards again, or remove the manifest entry knowingly"


class ShardFolder:
    """A folder of shards and its manifest.

    Iterating checks every shard's checksum before its first cube is handed out: InputError names a shard that is
    missing or altered.

    Args:
        path: the folder, or its URL in an object store.
        accepted_only: read only shards whose status is pass; when there is none, reading raises GateError (they were
            failed) or UndecidedError (nobody certified them).
        skip_rejected: leave out the cubes that `synthgen gate` rejected one by one.
        gates_hash: the gates that must have judged the shards (any by default); MismatchError when it was others.
    """

    def __init__(
        self,
        path: Where,
        accepted_only: bool = True,
        *,
        skip_rejected: bool = True,
        gates_hash: str | None = None,
    ):
        self.place = place_of(path)
        self.path, self.accepted_only, self.skip_rejected = str(self.place), accepted_only, skip_rejected
        self.gates_hash = gates_hash
        self.manifest = manifest_of(self.place)
        self._checked: set[str] = set()

    @staticmethod
    def open(
        path: Where,
        accepted_only: bool = True,
        *,
        skip_rejected: bool = True,
        gates_hash: str | None = None,
    ) -> ShardFolder:
        """InputError when there is no folder, no manifest, or the manifest is damaged."""
        return ShardFolder(path, accepted_only, skip_rejected=skip_rejected, gates_hash=gates_hash)

    def __len__(self) -> int:
        """Cubes in the shards that are read."""
        skipped = lambda entry: len(entry.rejected) if self.skip_rejected else 0
        return sum(entry.count - skipped(entry) for entry in self.entries)

    @property
    def content_hash(self) -> str:
        """Hash over what is read: the shards' checksums, and the cubes that are left out of them."""
        left_out = lambda entry: sorted(r.id for r in entry.rejected) if self.skip_rejected else []
        return content_hash(*((e.name, e.xxh128, left_out(e)) for e in self.entries))

    def tokens(self) -> Iterator[Tokens]:
        """The tokens, block by block, ids ascending; MismatchError for a folder of cubes."""
        if self.manifest.kind != "tokens":
            raise MismatchError("holds cubes, not tokens", path=self.path, remedy="read it with cubes()")
        return self._tokens(self.entries)

    def cubes(self, generator: Generator | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Blocks of cubes float32 [n, C, H, W] (reflectance) and their ids int64 [n], ids ascending.

        Args:
            generator: decodes token shards (on its device); needless for cube shards. MismatchError when it is not
                the generator that made them.
        """
        return self._blocks(self.entries, generator)

    def cubes_of(self, entry: ShardEntry, generator: Generator | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Like `cubes`, of one shard, whatever its status."""
        return self._blocks((entry,), generator)

    def _blocks(self, entries: tuple[ShardEntry, ...], generator: Generator | None) -> Iterator[tuple[Tensor, Tensor]]:
        if self.manifest.kind == "cubes":
            return self._cubes(entries)
        if generator is None:
            raise InputError("holds tokens, which only their generator can decode", path=self.path, remedy="give it")
        if generator.hash != self.manifest.generator_hash:
            raise MismatchError(
                "the shards were made by another generator",
                path=self.path,
                found=self.manifest.generator_hash,
                expected=generator.hash,
                remedy="decode them with the generator that made them",
            )
        return ((generator.decode(block), block.id) for block in self._tokens(entries))

    def scores(self) -> Iterator[tuple[int, dict[str, float]]]:
        """Of each cube its id and what the per-cube gates measured when it was written; {} without gates."""
        for entry in self.entries:
            skipped = self._skipped(entry)
            for header, data in self._members(entry):
                if self.manifest.kind == "cubes":
                    rows = [(int(header["id"]), dict(header.get("scores", {})))]
                else:
                    table = scores_of(header, data)
                    ids = np.frombuffer(data, "<i8", header["count"]).tolist()
                    rows = [(k, {name: float(v[row]) for name, v in table.items()}) for row, k in enumerate(ids)]
                yield from (row for row in rows if row[0] not in skipped)

    def verify(self) -> None:
        """Check every shard of the manifest, accepted or not, against its checksum."""
        for entry in self.manifest.shards:
            self._open(entry).close()

    @property
    def entries(self) -> tuple[ShardEntry, ...]:
        """The shards that are read. Under `accepted_only`: GateError or UndecidedError when none has passed."""
        if not self.accepted_only:
            return self.manifest.shards
        self._check_verdicts()
        passed = tuple(s for s in self.manifest.shards if s.status == Status.PASS)
        if self.manifest.shards and not passed:
            failed = any(s.status == Status.FAIL for s in self.manifest.shards)
            kind = GateError if failed else UndecidedError
            raise kind(
                "none of the shards passed the set gates",
                path=self.path,
                found=", ".join(sorted({str(s.status) for s in self.manifest.shards})),
                expected="pass",
                remedy="judge them with `synthgen gate`, or read them uncertified (--gates report or off)",
            )
        return passed

    def _check_verdicts(self) -> None:
        """MismatchError unless the verdicts are of this generator's cubes and of one set of gates (that asked for)."""
        manifest = self.manifest
        verdicts = [v for v in (manifest.verdict, *(s.verdict for s in manifest.shards)) if v is not None]
        remedy = "judge the shards anew with `synthgen gate`"
        for verdict in verdicts:
            if verdict.generator_hash not in (None, manifest.generator_hash):
                raise MismatchError(
                    "the verdict on record is of another generator's cubes",
                    path=self.path,
                    found=verdict.generator_hash,
                    expected=manifest.generator_hash,
                    remedy=remedy,
                )
        gates = [v.gates_hash for v in verdicts]
        wanted = self.gates_hash or (gates[0] if gates else None)
        if other := [hash for hash in gates if hash != wanted]:
            raise MismatchError(
                "the verdict on record was given by other gates",
                path=self.path,
                found=other[0],
                expected=wanted,
                remedy=remedy,
            )

    def _open(self, entry: ShardEntry) -> BinaryIO:
        """A shard to read, checked against its checksum the first time."""
        path = self.place.child(entry.name)
        if entry.name in self._checked:
            return self.place.open(entry.name)
        found = self.place.size(entry.name)
        if found is None:
            raise InputError("a shard of the manifest is missing", path=path, remedy=_REWRITE)
        if found != entry.bytes:
            raise InputError(
                "the shard was altered or cut short",
                path=path,
                found=f"{found} bytes",
                expected=f"{entry.bytes} bytes",
                remedy=_REWRITE,
            )
        file = self.place.open(entry.name)
        if _checksum(file) != entry.xxh128:
            file.close()
            raise InputError("the shard was altered: its checksum is not the manifest's", path=path, remedy=_REWRITE)
        self._checked.add(entry.name)
        file.seek(0)
        return file

    def _members(self, entry: ShardEntry) -> Iterator[tuple[dict, bytes]]:
        """Pairs (header, data) of the shard's members."""
        header: dict = {}
        with self._open(entry) as shard, tarfile.open(fileobj=shard) as tar:
            for member in tar:
                shard.seek(member.offset_data)  # straight from the file: `extractfile` reads through two more layers
                data = shard.read(member.size)
                if not member.name.endswith(".json"):  # it comes before its data: the names are sorted
                    yield header, data
                    continue
                header = json.loads(data)
                made_by = header.get("generator_hash")
                if made_by != self.manifest.generator_hash:
                    raise MismatchError(
                        "the shard holds another generator's cubes",
                        path=self.place.child(entry.name),
                        found=made_by,
                        expected=self.manifest.generator_hash,
                        remedy=_REWRITE,
                    )

    def _skipped(self, entry: ShardEntry) -> set[int]:
        return {r.id for r in entry.rejected} if self.skip_rejected else set()

    def _tokens(self, entries: tuple[ShardEntry, ...]) -> Iterator[Tokens]:
        for entry in entries:
            skipped = self._skipped(entry)
            for header, data in self._members(entry):
                block = unpack_block(header, data)
                keep = [row for row, sample_id in enumerate(block.id.tolist()) if sample_id not in skipped]
                if keep:
                    yield block if len(keep) == len(block) else block[keep]

    def _cubes(self, entries: tuple[ShardEntry, ...]) -> Iterator[tuple[Tensor, Tensor]]:
        held: list[tuple[np.ndarray, float]] = []
        ids: list[int] = []
        block = max(1, BLOCK_BYTES // (4 * len(self.manifest.wavelengths_nm) * self.manifest.size**2))
        for entry in entries:
            skipped = self._skipped(entry)
            for header, data in self._members(entry):
                if header["id"] in skipped:
                    continue
                held.append((_array(data), header["scale"]))
                ids.append(header["id"])
                if len(ids) == block:
                    yield _joined(held), torch.tensor(ids, dtype=torch.int64)
                    held, ids = [], []
        if ids:
            yield _joined(held), torch.tensor(ids, dtype=torch.int64)


def _checksum(file: BinaryIO) -> str:
    """XXH3 of a file, a megabyte at a time; it finds damage, not forgery, ten times as fast as SHA-256."""
    found = xxhash.xxh3_128()
    while data := file.read(1 << 20):
        found.update(data)
    return found.hexdigest()


def _array(data: bytes) -> np.ndarray:
    """A `.npy` member as a view of its bytes."""
    start = io.BytesIO(data[:256])  # the header of an array that webdataset or numpy wrote takes 128 bytes
    np.lib.format.read_magic(start)
    shape, _, dtype = np.lib.format.read_array_header_1_0(start)
    return np.frombuffer(data, dtype, offset=start.tell()).reshape(shape)


def _joined(held: list[tuple[np.ndarray, float]]) -> Tensor:
    """Stored cubes [C, H, W] times their scales: float32 [n, C, H, W], each read once and written once."""
    cubes = torch.empty((len(held), *held[0][0].shape), dtype=torch.float32)
    for row, (stored, scale) in zip(cubes.numpy(), held, strict=True):
        np.multiply(stored, np.float32(scale), out=row)
    return cubes
