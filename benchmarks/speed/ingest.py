"""Ingest of many files: cubes per second and peak memory, with one process and with several in turn.

    python -m benchmarks.speed.ingest --count 2000 --size 224 --workers 2

Simulated eyes, written as ENVI pairs or .npy files of uint16 with a small gain each, are ingested with everything on:
detection of the field of view, check of the registration, resizing to `--size`. The files lie in the page cache.
Memory is sampled from /proc: the resident size of the parent, and of each process of its pool.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from benchmarks.common import record
from synthgen.cubes.phantom.simulate import simulate_cube
from synthgen.errors import StorageError

DIFFERENT = 50  # eyes that are simulated; the others are these with another gain
HEADER = """ENVI
samples = {side}
lines = {side}
bands = {bands}
header offset = 0
file type = ENVI Standard
data type = 12
interleave = bil
byte order = 0
wavelength units = Nanometers
wavelength = {{{nm}}}
"""


def write_files(folder: Path, count: int, size: int, kind: str) -> int:
    """`count` recordings `P0001_OD_1`, ... of a 14-bit camera; returns their bytes. StorageError on a small disk."""
    nm = [450 + 30 * i for i in range(16)]
    needed = 4 * count * len(nm) * size * size * 2  # the files, the parts, the cohort, and a rest
    if shutil.disk_usage(folder).free < needed:
        raise StorageError("not enough space for the benchmark", path=folder, expected=f"{needed / 1e9:.1f} GB free")
    eyes = [simulate_cube(i // 2, ("OD", "OS")[i % 2], size=size, seed=7).cube for i in range(min(count, DIFFERENT))]
    for i in range(count):
        counts = np.minimum(eyes[i % len(eyes)] * (40000 + i % 997), 16383).astype("<u2")
        name = f"P{i // 4:04d}_{('OD', 'OS')[i % 2]}_{i % 4 // 2}"
        if kind == "npy":
            np.save(folder / f"{name}.npy", counts)
        else:
            (folder / f"{name}.raw").write_bytes(np.ascontiguousarray(counts.transpose(1, 0, 2)).tobytes())
            header = HEADER.format(side=size, bands=len(nm), nm=", ".join(map(str, nm)))
            (folder / f"{name}.hdr").write_text(header)
    return sum(path.stat().st_size for path in folder.iterdir())


def measured(folder: Path, out: Path, size: int, workers: int, registration: str) -> dict[str, float]:
    """One ingest by the command line: seconds, cubes per second and peak memory in MB."""
    words = [
        sys.executable, "-m", "synthgen", "ingest", str(folder), str(out), "--size", str(size), "--workers",
        str(workers), "--registration", registration, "--source-wavelengths", "450:900:30", "--scale", "16383",
        "--patient-pattern", r"(?P<patient>P\d+)_(?P<eye>OD|OS)_(?P<visit>\d)",
    ]  # fmt: skip
    start = time.monotonic()
    child = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    memory = Memory(child.pid)
    code = child.wait()
    seconds = time.monotonic() - start
    memory.stop()
    if code != 0:
        raise SystemExit(f"the ingest ended with {code}")
    return {"seconds": round(seconds, 1), **memory.peaks}


class Memory(threading.Thread):
    """Samples the resident memory of a process and of its children, in MB, ten times a second."""

    def __init__(self, pid: int):
        super().__init__(daemon=True)
        self.pid, self._end = pid, threading.Event()
        self.peaks = {"parent_MB": 0, "largest_worker_MB": 0, "all_together_MB": 0}
        self.start()

    def run(self) -> None:
        while not self._end.wait(0.1):
            parent, children = resident(self.pid), [resident(pid) for pid in children_of(self.pid)]
            now = (parent, max(children, default=0), parent + sum(children))
            for name, value in zip(self.peaks, now, strict=True):
                self.peaks[name] = max(self.peaks[name], round(value))

    def stop(self) -> None:
        self._end.set()
        self.join()


def resident(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")), 0.0)


def children_of(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def measure(
    count: int = 200, size: int = 224, workers: list[int] | None = None, kind: str = "envi",
    registration: str = "check", folder: str | None = None,
) -> None:  # fmt: skip
    """Ingest `count` files with each number of workers in turn and record rates and peak memory."""
    results = {}
    with tempfile.TemporaryDirectory(dir=folder, prefix="ingest_benchmark_") as inside:
        scans = Path(inside) / "scans"
        scans.mkdir()
        read = write_files(scans, count, size, kind)
        for processes in workers or [1, 2]:
            out = Path(inside) / f"{processes}.h5"
            found = measured(scans, out, size, processes, registration)
            found["cubes_per_second"] = round(count / found["seconds"], 1)
            results[f"{processes} workers"] = found
            print(processes, found, flush=True)
            out.unlink()
    setup = {"count": count, "size": size, "kind": kind, "registration": registration}
    record("ingest", setup | {"GB_read": round(read / 1e9, 2), "cores": os.cpu_count(), **results})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--kind", choices=("envi", "npy"), default="envi")
    parser.add_argument("--registration", choices=("check", "correct", "off"), default="check")
    parser.add_argument("--folder", help="where the files are put; by default the system's folder for temporary files")
    measure(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
