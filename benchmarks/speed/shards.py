"""Shards: bytes a cube, and how fast they are read beside other formats: `python -m benchmarks.speed.shards`.

Everything is written to one folder and read back in turn, from the page cache, on one core. Tokens are random: nothing
packs them smaller than their bits.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import webdataset

from benchmarks.common import in_turn, record
from synthgen.contracts import Manifest, Tokens
from synthgen.generator.generator import Generator
from synthgen.shards.manifest import write_manifest
from synthgen.shards.reader import ShardFolder
from synthgen.shards.storage import place_of
from synthgen.shards.writer import CUBE_SHARD_BYTES, TOKEN_SHARD, Part, Range, _write_shard

BANDS, CODES = 16, 1024
TOKEN_DESIGNS = {  # tokens, base grid
    "224, 8/8, base 4x4": ((1, 28, 28), 4),
    "224, 8/8, no base": ((1, 28, 28), 0),
    "672, 8/8, base 4x4": ((1, 84, 84), 4),
}
ASKED = {"224, 8/8, base 4x4": 1700, "224, 8/8, no base": 1100}  # bytes a cube in all
SIZES = {64: 2000, 224: 200}  # cubes of each size


def measure() -> None:
    torch.set_num_threads(1)
    packaged = Generator.load("phantom64", "cpu").autoencoder.config
    side = packaged.size // packaged.compression
    designs = {**TOKEN_DESIGNS, "64, packaged": ((packaged.levels, side, side), packaged.base_grid)}
    with tempfile.TemporaryDirectory() as folder:
        found = {
            "tokens": {name: tokens(Path(folder) / f"t{k}", *d) for k, (name, d) in enumerate(designs.items())},
            "cubes": {f"{size}x{size}": cubes(Path(folder) / f"c{size}", size, n) for size, n in SIZES.items()},
        }
    for name, most in ASKED.items():
        found["tokens"][name]["bytes_asked"] = most
    record("shards", found)


def tokens(folder: Path, shape: tuple[int, ...], grid: int, count: int = 10_000) -> dict:
    """Bytes a cube of token shards with their manifest; cubes/s read and unpacked, beside one `.npy` a cube."""
    rng = np.random.default_rng(0)
    indices = torch.from_numpy(rng.integers(0, CODES, (count, *shape), dtype=np.int32))
    base = torch.from_numpy(rng.standard_normal((count, BANDS, grid, grid)).astype(np.float16))
    held = Tokens(indices, base, torch.arange(count), "0" * 32)
    _fill(folder / "ours", "tokens", 224, held, None, TOKEN_SHARD)
    plain = [
        {"codes.npy": _npy(indices[k].numpy().astype("<u2")), **({"base.npy": _npy(base[k].numpy())} if grid else {})}
        for k in range(count)
    ]
    _plain_tars(folder / "plain", plain, TOKEN_SHARD)
    total = sum(path.stat().st_size for path in (folder / "ours").iterdir())
    first = next(iter(ShardFolder.open(folder / "ours", accepted_only=False).tokens()))
    assert torch.equal(first.indices, indices[: len(first)]) and torch.equal(first.base, base[: len(first)])
    jobs = {
        "ours": lambda: _drain(ShardFolder.open(folder / "ours", accepted_only=False).tokens()),
        "webdataset, .npy of tokens": lambda: _drain(_webdataset(folder / "plain")),
    }
    return {
        "bytes_a_cube": round(total / count, 1),
        "bytes_of_the_bits_alone": round(np.prod(shape) * 10 / 8 + 2 * BANDS * grid**2),
        "cubes_per_second": {k: round(count / s) for k, s in in_turn(jobs).items()},
    }


def cubes(folder: Path, size: int, count: int) -> dict:
    """Cubes/s read back as uint16 arrays or tensors, the same cubes in every format."""
    rng = np.random.default_rng(0)
    stored = rng.integers(0, 65536, (count, BANDS, size, size), dtype=np.uint16)
    shape = (1, 28, 28)
    held = Tokens(torch.zeros(count, *shape), torch.zeros(count, BANDS, 0, 0), torch.arange(count), "0" * 32)
    values = torch.from_numpy(stored.astype(np.float32) / 65535)
    each = max(1, CUBE_SHARD_BYTES // stored[0].nbytes)
    _fill(folder / "ours", "cubes", size, held, values, each)
    _plain_tars(folder / "plain", [{"npy": _npy(cube)} for cube in stored], each)
    back = torch.cat([block for block, _ in ShardFolder.open(folder / "ours", accepted_only=False).cubes()])
    assert (back - values).abs().max() < 1e-6
    jobs: dict[str, Callable[[], object]] = {
        "ours": lambda: _drain(ShardFolder.open(folder / "ours", accepted_only=False).cubes()),
        "ours, checksums verified before": _verified(folder / "ours"),
        "webdataset, .npy": lambda: _drain(_webdataset(folder / "plain")),
        "webdataset, .npy, to float32 reflectance": lambda: _drain(
            torch.from_numpy(s["npy"].astype(np.float32) / 65535) for s in _webdataset(folder / "plain")
        ),
        **_others(folder, stored),
    }
    return {"cubes_per_second": {k: round(count / s, 1) for k, s in in_turn(jobs).items()}}


def _verified(folder: Path) -> Callable[[], object]:
    shards = ShardFolder.open(folder, accepted_only=False)
    shards.verify()
    return lambda: _drain(shards.cubes())


def _others(folder: Path, stored: np.ndarray) -> dict[str, Callable[[], object]]:
    """Formats whose packages are installed: `pip install zarr`, `pip install mosaicml-streaming`."""
    jobs: dict[str, Callable[[], object]] = {}
    try:
        import zarr

        chunks = (1, *stored.shape[1:])
        place = str(folder / "zarr")
        array = zarr.create_array(place, shape=stored.shape, chunks=chunks, dtype=stored.dtype, compressors=None)
        array[:] = stored
        jobs["zarr, a cube a chunk"] = lambda: _drain(zarr.open_array(place)[k] for k in range(len(stored)))
    except ImportError:
        print("zarr: not measured, not installed")
    try:
        from streaming import MDSWriter, StreamingDataset

        columns = {"cube": f"ndarray:uint16:{','.join(map(str, stored[0].shape))}"}
        with MDSWriter(out=str(folder / "mds"), columns=columns) as out:
            for cube in stored:
                out.write({"cube": cube})
        jobs["mosaicml-streaming"] = lambda: _drain(StreamingDataset(local=str(folder / "mds"), batch_size=1))
    except ImportError:
        print("mosaicml-streaming: not measured, not installed")
    return jobs


def _fill(folder: Path, kind: str, size: int, held: Tokens, values: torch.Tensor | None, each: int) -> None:
    place = place_of(folder)
    place.make()
    manifest = Manifest(
        kind=kind, dtype="uint16" if kind == "cubes" else None, generator_hash="0" * 32, seed=0, steps=8, sampler="ab2",
        wavelengths_nm=tuple(np.linspace(450, 900, BANDS)), size=size, proposed=len(held),
    )  # fmt: skip
    for number, first in enumerate(range(0, len(held), each)):
        end = min(first + each, len(held))
        part = Part(held[first:end], None if values is None else values[first:end])
        entry = _write_shard(place, manifest, Range(number, first, end), part, {})
        manifest = manifest.model_copy(update={"shards": (*manifest.shards, entry)})
    write_manifest(place, manifest)


def _plain_tars(folder: Path, members: list[dict[str, bytes]], each: int) -> None:
    folder.mkdir(parents=True)
    for number, first in enumerate(range(0, len(members), each)):
        with webdataset.TarWriter(str(folder / f"{number:05d}.tar"), encoder=False) as tar:
            for k, member in enumerate(members[first : first + each]):
                tar.write({"__key__": f"{first + k:012d}", **member})


def _webdataset(folder: Path) -> Iterator[dict]:
    files = sorted(str(path) for path in folder.glob("*.tar"))
    return iter(webdataset.WebDataset(files, shardshuffle=False, empty_check=False).decode())


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def _drain(items) -> int:
    return sum(1 for _ in items)


if __name__ == "__main__":
    measure()
