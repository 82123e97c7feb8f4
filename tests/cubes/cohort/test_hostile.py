"""Hostile input: a clean error or a correct read; no crash, no memory blow-up, nothing left behind."""

import io
import pickle
import random
import re
import resource
import zipfile

import h5py
import numpy as np
import pytest
import scipy.io

from synthgen.cubes.cohort.cohort import Cohort, CohortWriter
from synthgen.cubes.ingest.run import ingest
from synthgen.cubes.readers.describe import describe, render
from synthgen.cubes.readers.open import Hints, open_source
from synthgen.errors import InputError, SynthgenError
from tests.formats import export_cube

NM = tuple(range(450, 600, 25))
CUBES = np.random.default_rng(0).uniform(0.1, 0.9, (4, len(NM), 12, 12)).astype(np.float32)
KINDS = ("plain.h5", "heap.h5", "packed.h5", "v5.mat", "v7.mat", "v73.mat", "array.npy")
# These consist of a format of ours, and where it is more than one file the name of the one that is damaged.
EXPORTED = {
    "header.hdr": ("envi", {"interleave": "bil", "byte_order": "big"}, None),
    "raw.hdr": ("envi", {}, "raw.raw"),
    "plain.tif": ("tiff", {}, None),
    "zlib.tif": ("tiff", {"compression": "zlib", "byte_order": "big"}, None),
    "lzw.tif": ("ome-tiff", {"compression": "lzw"}, None),
    "ome.tif": ("ome-tiff", {}, None),
    "array.npz": ("npz", {}, None),
    "bands": ("pictures", {}, "bands/band_475nm.png"),
}
ALL_KINDS = (*KINDS, *EXPORTED)
GIVEN = {"source_wavelengths": NM, "each_file_a_patient": True, "size": 8}


def make(path):
    """A good file of the kind that its name says."""
    image = (CUBES[0].transpose(1, 2, 0) * 4000).astype(np.uint16)
    if path.name in EXPORTED:
        form, settings, _ = EXPORTED[path.name]
        return export_cube(path, image.transpose(2, 0, 1), NM, form, **settings)
    variables = {"Y": image, "wavelengths": np.array(NM, float)}
    if path.name == "heap.h5":  # texts of variable length, as h5py writes them by default
        with h5py.File(path, "w") as f:
            f.create_dataset("cubes", data=(CUBES * 65535).astype("<u2")).attrs["scale"] = 65535
            f["wavelengths_nm"], f["patient_id"] = np.array(NM, float), ["p0", "p1", "p2", "p3"]
            f.attrs["made"] = "elsewhere"
    elif path.suffix == ".h5":
        with CohortWriter(path, NM, 12, 12, compress=path.name == "packed.h5") as out:
            for i, cube in enumerate(CUBES):
                out.append(cube, f"p{i}", eye="L", label=1.0, masks={"artery": cube[0] > 0.5})
    elif path.name == "v73.mat":
        with h5py.File(path, "w", userblock_size=512) as f:
            for name, value in variables.items():
                f[name] = value.T
        with open(path, "r+b") as f:
            f.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM")
    elif path.suffix == ".mat":
        scipy.io.savemat(path, variables, do_compression=path.name == "v7.mat")
    else:
        np.save(path, CUBES)
    return path


def mutate(whole, rng):
    """The bytes of a file, damaged."""
    data = bytearray(whole)
    numbers = list(re.finditer(rb"(?<=[\s\"{=:,(\[])\d{1,6}(?=[\s\"},:)\]])", bytes(data[:4096])))
    kind = rng.choice(["bit", "bits", "header", "cut", "ones", "insert"] + ["number"] * 2 * bool(numbers))
    if kind in ("bit", "bits"):
        for _ in range(1 if kind == "bit" else 20):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind == "header":
        for _ in range(3):
            data[rng.randrange(min(2048, len(data)))] = rng.randrange(256)
    elif kind == "cut":
        del data[rng.randrange(len(data)) :]
    elif kind == "ones":
        at = rng.randrange(min(len(data) - 8, 4096))
        data[at : at + 8] = b"\xff" * 8
    elif kind == "number":  # of a text header, OME-XML or JSON
        found = rng.choice(numbers)
        data[found.start() : found.end()] = rng.choice([b"-1", b"0", b"nan", b"1e9", b"99999999999999999999", b"70000"])
    else:
        data[rng.randrange(len(data)) : 0] = rng.randbytes(8)
    return bytes(data)


def outcomes(path, out):
    """Read a file in every way; the number of ways that worked."""

    def read():
        cohort = Cohort.open(path)
        cohort.cubes(), cohort.masks(), cohort.check_finite()

    worked = 0

    def read_source():
        source = open_source(path)
        for i in range(source.layout.count):
            cube = source.read(i)
            assert cube.ndim == 3 and len(cube) == len(source.wavelengths)

    ways = read, read_source, lambda: ingest([path], out, **GIVEN), lambda: render(describe(path))
    for way in ways:
        try:
            way()
            worked += 1
        except SynthgenError as error:
            lines = str(error).splitlines()
            if len(lines) != 1 or "\0" in lines[0]:
                raise RuntimeError(f"not one line of text: {lines}") from error
    return worked


WRITTEN = {f"o.h5{end}" for end in ("", ".ingest_report.json", ".split.json", ".hash.json")}


def survive(kind, count, tmp_path, seed):
    source = make(tmp_path / "bad" / kind)
    damaged = source.parent / (EXPORTED.get(kind, (None, None, None))[2] or kind)
    whole, out = damaged.read_bytes(), tmp_path / "out" / "o.h5"
    files = everything(source.parent)
    rng = random.Random(f"{seed} {kind}")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(count):
        for sidecar in set(everything(source.parent)) - set(files):
            sidecar.unlink()
        damaged.write_bytes(mutate(whole, rng))
        outcomes(source, out)
        assert set(everything(source.parent)) - set(files) <= {source.with_name(f"{kind}.hash.json")}
        if out.parent.exists():
            assert {p.name for p in out.parent.iterdir()} <= WRITTEN
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 500_000, f"{grown} kB more memory"


def everything(folder):
    return sorted(p for p in folder.rglob("*") if p.is_file())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ALL_KINDS)
def test_damaged_files(kind, tmp_path):
    (tmp_path / "bad").mkdir()
    good = tmp_path / "good" / kind
    good.parent.mkdir()
    assert outcomes(make(good), tmp_path / "out" / "o.h5") >= 2  # the good file is read
    survive(kind, 20, tmp_path, seed=0)


@pytest.mark.torture
@pytest.mark.parametrize("kind", ALL_KINDS)
def test_damaged_files_full_count(kind, tmp_path, torture_record):
    (tmp_path / "bad").mkdir()
    survive(kind, 500, tmp_path, seed=1)
    torture_record(f"damaged input survived: {kind}", 500)


class Trap:
    """Unpickling it would write a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_no_pickle_is_ever_loaded(tmp_path):
    trap = tmp_path / "sprung"
    (tmp_path / "a.mat").write_bytes(pickle.dumps(Trap(trap)))
    (tmp_path / "b.npy").write_bytes(pickle.dumps(Trap(trap)))
    np.save(tmp_path / "c.npy", np.array([Trap(trap)], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "d.npz", wavelengths=NM, cube=np.array([Trap(trap)], dtype=object))
    (tmp_path / "e.tif").write_bytes(pickle.dumps(Trap(trap)))
    for name in ("a.mat", "b.npy", "c.npy", "d.npz", "e.tif"):
        with pytest.raises(InputError):
            ingest([tmp_path / name], tmp_path / "o.h5", **GIVEN)
        with pytest.raises(InputError):
            describe(tmp_path / name)
    assert not trap.exists()


@pytest.mark.parametrize("size", [b"\0" * 8, b"\xf0" + b"\xff" * 7])
@pytest.mark.parametrize("index", [b"\0\0", b"\1\0"])
def test_a_heap_that_would_hang_hdf5_is_refused(tmp_path, size, index):
    path = make(tmp_path / "heap.h5")
    data = bytearray(path.read_bytes())
    at = data.index(b"GCOL") + 16
    data[at : at + 2], data[at + 8 : at + 16] = index, size
    path.write_bytes(data)
    if (index, size[0]) == (b"\1\0", 0):
        return  # an empty text: legal
    for read in (Cohort.open, describe, lambda p: ingest([p], tmp_path / "o.h5", **GIVEN)):
        with pytest.raises(InputError, match="texts are damaged"):
            read(path)


def test_a_reference_that_asks_for_gigabytes_is_refused(tmp_path):
    path = make(tmp_path / "heap.h5")
    with h5py.File(path) as f:
        at = f["patient_id"].id.get_offset()
    data = bytearray(path.read_bytes())
    data[at : at + 4] = b"\xff" * 4
    path.write_bytes(data)
    with pytest.raises(InputError, match="text of 4294967295 bytes"):
        Cohort.open(path)


def test_declared_sizes_are_not_believed(tmp_path):
    np.save(tmp_path / "a.npy", CUBES)
    data = (tmp_path / "a.npy").read_bytes()
    for shape in (b"(4000, 6, 12, 12)", b"(4, 6, 99999, 99999)", b"(99999999999999999999, 6, 1, 1)"):
        header = data[10:128].replace(b"(4, 6, 12, 12)", shape).rstrip()[: 128 - 11].ljust(117) + b"\n"
        (tmp_path / "a.npy").write_bytes(data[:10] + header + data[128:])
        with pytest.raises(InputError):
            ingest([tmp_path / "a.npy"], tmp_path / "o.h5", **GIVEN)
    with h5py.File(tmp_path / "b.h5", "w") as f:
        f.create_dataset("cubes", (50_000, 6, 4096, 4096), "u2", chunks=(1, 1, 64, 64)).attrs["scale"] = 65535
        f.create_dataset("patient_id", (2**40,), "S1", chunks=(1024,))
    with pytest.raises(InputError, match="more data than the file holds"):
        ingest([tmp_path / "b.h5"], tmp_path / "o.h5", **GIVEN)


@pytest.mark.parametrize("side", [13_000, 20_000])
def test_a_zip_that_unpacks_to_gigabytes_is_refused(tmp_path, side):
    header, path = io.BytesIO(), tmp_path / "bomb.npz"
    np.lib.format.write_array_header_1_0(header, {"shape": (6, side, side), "fortran_order": False, "descr": "|u1"})
    content = header.getvalue() + bytes(100_000)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("cube.npy", content)
    sizes = len(content), len(header.getvalue()) + 6 * side * side  # stored, and what the directory is made to say
    old, new = (size.to_bytes(4, "little") for size in sizes)
    assert path.read_bytes().count(old) == 2
    path.write_bytes(path.read_bytes().replace(old, new))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match="too large" if side == 20_000 else "declares more data"):
        open_source(path, Hints(wavelengths=NM)).read(0)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


def test_garbage_in_every_name(tmp_path):
    for name in (*KINDS, "a.npz", "a.tif", "a.hdr", "a.png", "a.raw"):
        matlab = b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\1IM"
        for content in (b"", b"\0" * 4096, random.Random(0).randbytes(4096), matlab):
            (tmp_path / name).write_bytes(content)
            if name.endswith(".h5"):
                with pytest.raises(InputError):
                    Cohort.open(tmp_path / name)
            with pytest.raises(InputError):
                ingest([tmp_path / name], tmp_path / "o.h5", **GIVEN)


def test_external_links_are_not_followed_by_ingest(tmp_path):
    make(tmp_path / "plain.h5")
    far, nowhere = h5py.ExternalLink("plain.h5", "/cubes"), h5py.ExternalLink("/etc/passwd", "/x")
    for link in (far, nowhere, h5py.SoftLink("/cubes")):
        with h5py.File(tmp_path / "a.h5", "w") as f:
            f["cubes"], f["wavelengths_nm"] = link, np.array(NM, float)
        with pytest.raises(InputError):
            ingest([tmp_path / "a.h5"], tmp_path / "o.h5", **GIVEN)
        assert "cubes" not in describe(tmp_path / "a.h5")["arrays"]
