"""An ingest that is killed, interrupted, or runs out of disk: nothing is lost, and the end is that of a calm run."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from synthgen.cubes.cohort.cohort import Cohort
from synthgen.cubes.ingest.journal import BlockDone, WorkFolder
from synthgen.cubes.ingest.run import ingest
from synthgen.cubes.phantom.simulate import simulate_cube
from synthgen.errors import ConfigError, InputError, SynthgenError

FILES, SIZE = 40, 64
GIVEN = {"source_wavelengths": "450:900:30", "patient_pattern": r"(?P<patient>P\d+)_(?P<eye>OD|OS)", "scale": 4095}
WORDS = ["--source-wavelengths", GIVEN["source_wavelengths"], "--patient-pattern", GIVEN["patient_pattern"]]
WORDS += ["--scale", "4095"]


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """Forty files of one cube each, eyes of a simulated camera of 12 bits."""
    folder = tmp_path_factory.mktemp("scans")
    for patient in range(4):
        for eye in ("OD", "OS"):
            cube = simulate_cube(patient, eye, size=SIZE).cube
            for more in range(FILES // 8):
                counts = (cube * ((3000 + 100 * more) / cube.max())).astype(np.uint16)
                np.save(folder / f"P{patient + 4 * more:02d}_{eye}.npy", counts)
    return folder


@pytest.fixture(scope="module")
def calm(scans, tmp_path_factory):
    """The cohort of an undisturbed ingest."""
    out = tmp_path_factory.mktemp("calm") / "o.h5"
    report = ingest([scans], out, **GIVEN)
    assert report.kept == FILES and not report.refused and report.sources[0].full_scale == 4095
    return Cohort.open(out)


def started(scans, out, *more):
    """The command in a process of its own (and group, as a shell makes one); its workers are its children."""
    words = [sys.executable, "-m", "synthgen", "ingest", str(scans), str(out), *WORDS, *more]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def lines(out):
    journal = out.with_name(out.name + ".partial") / "journal.jsonl"
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def wait_for_lines(out, count, child, patience=120):
    start = time.monotonic()
    while child.poll() is None and lines(out) < count and time.monotonic() - start < patience:
        time.sleep(0.005)


def kill_and_go_on(scans, calm, out, kills, workers, seed):
    """Kill the ingest `kills` times with -9 at random moments, then let it end; the number of cubes read again."""
    rng = np.random.default_rng(seed)
    lost = 0
    for kill in range(kills):
        before = lines(out)
        child = started(scans, out, "--workers", str(workers))
        wait_for_lines(out, int(rng.integers(before, max(before + 1, FILES * (kill + 1) // kills))), child)
        time.sleep(float(rng.uniform(0, 0.15)))
        child.kill()
        child.communicate()
        assert child.returncode in (-signal.SIGKILL, 0)
        lost += max(0, before - lines(out))
    report = ingest([scans], out, workers=workers, **GIVEN)
    made = Cohort.open(out)
    assert report.kept == FILES and made.content_hash == calm.content_hash
    assert made.eye.tolist() == calm.eye.tolist() and np.array_equal(made.masks()["fov"], calm.masks()["fov"])
    assert sorted(p.name for p in out.parent.iterdir()) == [
        "o.h5", "o.h5.hash.json", "o.h5.ingest_report.json", "o.h5.split.json",
    ]  # fmt: skip
    return lost


@pytest.mark.slow
def test_killed_twice(scans, calm, tmp_path):
    assert kill_and_go_on(scans, calm, tmp_path / "o.h5", kills=2, workers=1, seed=0) == 0


@pytest.mark.torture
@pytest.mark.parametrize("workers", [1, 2])
def test_killed_twenty_times(scans, calm, tmp_path, workers, torture_record):
    lost = kill_and_go_on(scans, calm, tmp_path / "o.h5", kills=20, workers=workers, seed=workers)
    assert lost == 0
    found = {"kills": 20, "finished_cubes_lost": lost, "content_hash_equal_to_the_undisturbed_run": True}
    torture_record(f"ingest_kills, {workers} workers", found)


@pytest.mark.slow
def test_the_number_of_workers_changes_nothing(scans, calm, tmp_path):
    assert ingest([scans], tmp_path / "o.h5", workers=2, **GIVEN).kept == FILES
    assert Cohort.open(tmp_path / "o.h5").content_hash == calm.content_hash


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code", "workers"), [(signal.SIGINT, 130, 2), (signal.SIGTERM, 143, 1)])
def test_asked_to_stop_it_ends_what_is_under_way_and_goes_on_later(scans, calm, tmp_path, number, code, workers):
    out = tmp_path / "o.h5"
    child = started(scans, out, "--workers", str(workers))
    wait_for_lines(out, 4, child)
    if number == signal.SIGINT:
        os.killpg(child.pid, number)  # Ctrl-C reaches the workers as well
    else:
        child.send_signal(number)
    _, message = child.communicate(timeout=60)
    assert child.returncode == code, message
    last = message.strip().splitlines()[-1]
    assert last.startswith("stopped: ") and "repeat the command" in last.lower() and "Traceback" not in message
    done = lines(out)
    assert 4 <= done < FILES and not out.exists()
    read = []
    import synthgen.cubes.ingest.worker as work

    class Counting(work.Worker):
        def make(self, task):
            read.append(task)
            return super().make(task)

    original, work.Worker = work.Worker, Counting
    try:
        ingest([scans], out, **GIVEN)
    finally:
        work.Worker = original
    assert len(read) == FILES - done, "what was done has been read again"
    assert Cohort.open(out).content_hash == calm.content_hash


@pytest.mark.slow
def test_an_interrupt_while_the_processes_start(scans, calm, tmp_path):
    out = tmp_path / "o.h5"
    child = started(scans, out, "--workers", "2")
    wait_for_lines(out, 0, child)
    start = time.monotonic()
    while len(children_of(child.pid)) < 3 and time.monotonic() - start < 60:  # two workers and the tracker of resources
        time.sleep(0.002)
    os.killpg(child.pid, signal.SIGINT)
    _, message = child.communicate(timeout=60)
    assert child.returncode == 130 and "Traceback" not in message and "repeat the command" in message.lower(), message
    ingest([scans], out, **GIVEN)
    assert Cohort.open(out).content_hash == calm.content_hash


@pytest.mark.slow
def test_no_process_is_left_after_a_kill(scans, tmp_path):
    child = started(scans, tmp_path / "o.h5", "--workers", "2")
    wait_for_lines(tmp_path / "o.h5", 2, child)
    workers = children_of(child.pid)
    child.kill()
    child.communicate()
    start = time.monotonic()
    while any(os.path.exists(f"/proc/{pid}") for pid in workers) and time.monotonic() - start < 10:
        time.sleep(0.05)
    assert workers and not [pid for pid in workers if os.path.exists(f"/proc/{pid}")]


def children_of(pid):
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            return [int(word) for word in file.read().split()]
    except FileNotFoundError:
        pytest.skip("needs /proc")


@pytest.fixture(scope="module")
def killed(scans, tmp_path_factory):
    """What an ingest leaves that was killed after ten files."""
    out = tmp_path_factory.mktemp("killed") / "o.h5"
    child = started(scans, out, "--workers", "1")
    wait_for_lines(out, 10, child)
    child.kill()
    child.communicate()
    return out.with_name(out.name + ".partial")


@pytest.fixture
def half_done(killed, tmp_path):
    """The same, for a test to go on with: (cohort to be, folder of the work so far)."""
    out = tmp_path / "o.h5"
    return out, Path(shutil.copytree(killed, out.with_name(out.name + ".partial")))


@pytest.mark.slow
def test_other_options_or_files_are_refused_unless_asked_to_begin_again(scans, half_done):
    out, folder = half_done
    with pytest.raises(ConfigError, match="another 'size'") as caught:
        ingest([scans], out, size=32, **GIVEN)
    assert "--restart" in str(caught.value)
    with pytest.raises(ConfigError, match="other files"):
        ingest(sorted(scans.iterdir())[:-1], out, **GIVEN)
    assert folder.exists()
    assert ingest([scans], out, size=32, restart=True, **GIVEN).height == 32


@pytest.mark.slow
def test_a_torn_line_and_a_missing_segment_are_read_again(scans, calm, half_done):
    out, folder = half_done
    next(iter((folder / "segments").glob("*.zip"))).unlink()
    with open(folder / "journal.jsonl", "ab") as file:
        file.write(b'{"source": 39, "sta')
    (folder / "segments" / ".x.partial").write_bytes(b"half")
    ingest([scans], out, **GIVEN)
    assert Cohort.open(out).content_hash == calm.content_hash


@pytest.mark.slow
def test_a_damaged_segment_is_named(scans, half_done):
    out, folder = half_done
    path = sorted((folder / "segments").glob("*.zip"))[3]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"damaged.*--restart"):
        ingest([scans], out, **GIVEN)
    assert not out.exists()


def test_two_at_once_are_refused(scans, tmp_path):
    first = WorkFolder(tmp_path / "o.h5")
    first.begin({"version": 0})
    with pytest.raises(SynthgenError, match="another ingest"):
        WorkFolder(tmp_path / "o.h5").begin({"version": 0})
    first.close()


def test_the_journal_reads_back(tmp_path):
    first = WorkFolder(tmp_path / "o.h5")
    first.begin({"version": 0})
    first.note(BlockDone(source=3, start=8, count=20))
    first.close()
    second = WorkFolder(tmp_path / "o.h5")
    assert second.head() == {"version": 0}
    second.begin(None)
    assert list(second.done) == [(3, 8)] and second.done[3, 8].count == 20
    second.close()


@pytest.mark.slow
def test_a_full_disk_keeps_what_is_done(scans, calm, small_disk, tmp_path):
    out = small_disk / "o.h5"
    message = started(scans, out, "--workers", "1").communicate()[1]
    assert "no space left" in message and "Traceback" not in message and len(message.strip().splitlines()[-1]) < 400
    assert not out.exists()
    partial = out.with_name(out.name + ".partial")
    done = [json.loads(line) for line in (partial / "journal.jsonl").read_text().splitlines()]
    assert 5 < len(done) < FILES
    larger = tmp_path / "o.h5.partial"
    subprocess.run(["cp", "-r", str(partial), str(larger)], check=True)
    subprocess.run(["rm", "-r", str(partial)], check=True)
    ingest([scans], tmp_path / "o.h5", **GIVEN)
    assert Cohort.open(tmp_path / "o.h5").content_hash == calm.content_hash
