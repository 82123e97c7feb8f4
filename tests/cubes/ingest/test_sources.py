"""Which cubes an ingest reads, whose they are, and that it notices when they change: each once, whatever its files."""

import os

import numpy as np
import pytest
from PIL import Image

from synthgen.cubes.cohort.cohort import Cohort
from synthgen.cubes.ingest.journal import BlockDone, WorkFolder
from synthgen.cubes.ingest.report import SourceReport
from synthgen.cubes.ingest.run import ingest
from synthgen.cubes.ingest.sources import expand
from synthgen.cubes.ingest.worker import Worker
from synthgen.cubes.readers.folders import files_of
from synthgen.cubes.readers.formats.envi_files import header_of
from synthgen.errors import ConfigError, InputError
from tests.formats import export_cube

NM = (450.0, 500.0, 550.0)
ALONE = {"each_file_a_patient": True, "registration": "off", "fov": "full", "scale": 4095}


def cube(seed):
    return np.random.default_rng(seed).integers(1, 4000, (3, 16, 16)).astype(np.uint16)


def pair(folder, name, seed, header="{}.hdr", raw="{}.raw", bright=0):
    """An ENVI pair with the names of a camera; the header's path."""
    folder.mkdir(exist_ok=True, parents=True)
    made = export_cube(folder / "made.hdr", cube(seed) + np.uint16(bright), NM, "envi")
    stored = next(p for p in folder.glob("made*") if p != made)
    stored.rename(folder / raw.format(name))
    return made.rename(folder / header.format(name))


def pictures(folder, seed):
    folder.mkdir(parents=True)
    for nm, plane in zip(NM, cube(seed), strict=True):
        Image.fromarray(plane).save(folder / f"eye_{nm:.0f}nm.png")
    return folder


# --- each cube once ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "raw"), [("{}.img.hdr", "{}.img"), ("{}.hdr", "{}.raw"), ("{}.hdr", "{}"), ("{}.HDR", "{}.DAT")]
)
@pytest.mark.parametrize("backwards", [False, True])
def test_a_pair_named_by_both_files_is_one_cube_of_one_patient(tmp_path, header, raw, backwards):
    for k in range(4):
        pair(tmp_path / "in", f"P{k}", k, header, raw)
    named = sorted((tmp_path / "in").iterdir(), reverse=backwards)
    assert len(named) == 8
    report = ingest(named, tmp_path / "o.h5", **ALONE)
    made = Cohort.open(tmp_path / "o.h5")
    assert sorted(made.patient_id.tolist()) == ["P0", "P1", "P2", "P3"] and report.kept == report.patients == 4
    assert any(note.startswith("4 files were read with their ENVI header") for note in report.notes)
    raws = [path for path in named if path.suffix.lower() != ".hdr"]
    ingest(raws, tmp_path / "raw.h5", **ALONE)
    assert sorted(Cohort.open(tmp_path / "raw.h5").patient_id.tolist()) == ["P0", "P1", "P2", "P3"]


def test_a_source_named_twice_is_read_once_and_reported(tmp_path):
    first, out = pair(tmp_path / "in", "a", 0), tmp_path / "o.h5"
    (tmp_path / "link.hdr").symlink_to(first)
    (tmp_path / "link.raw").symlink_to(tmp_path / "in" / "a.raw")
    paths, notes = expand([tmp_path / "in", first, tmp_path / "link.hdr"], out, [])
    assert paths == [first] and notes == [f"2 sources were named twice and read once, first {first}"]
    paths, notes = expand([tmp_path / "in"], out, [])
    assert paths == [first] and notes == []


def test_one_of_several_raw_files_can_be_chosen(tmp_path):
    header = pair(tmp_path, "a", 0)
    (tmp_path / "a.img").write_bytes(cube(1).tobytes())
    report = ingest([tmp_path / "a.img"], tmp_path / "o.h5", **ALONE)
    assert report.kept == 1 and np.allclose(Cohort.open(tmp_path / "o.h5").cubes()[0], cube(1) / 4095, atol=1e-4)
    with pytest.raises(InputError, match="several raw files"):
        ingest([header, tmp_path / "a.img", tmp_path / "a.raw"], tmp_path / "p.h5", **ALONE)


def test_a_file_of_another_format_beside_a_header_is_a_source_of_its_own(tmp_path):
    header = pair(tmp_path, "a", 0)
    np.save(tmp_path / "a.npy", cube(1))
    assert header_of(tmp_path / "a.npy") == header
    assert expand([header, tmp_path / "a.npy"], tmp_path / "o.h5", [])[0] == [header, tmp_path / "a.npy"]


@pytest.mark.parametrize("named", ["w.hdr", "w.raw"])
def test_a_reference_named_by_either_file_is_not_ingested(tmp_path, named):
    scan = pair(tmp_path, "a", 0)
    pair(tmp_path, "w", 1)
    for sources in ([tmp_path], sorted(tmp_path.iterdir())):
        assert expand(sources, tmp_path / "o.h5", [tmp_path / named])[0] == [scan]


def test_sub_folders_with_cubes_are_not_dropped_without_a_word(tmp_path):
    np.save(tmp_path / "a.npy", cube(0))
    deep = tmp_path / "day1" / "P1"
    pair(deep, "scan", 1)
    (tmp_path / "empty").mkdir()
    (tmp_path / "o.h5.partial").mkdir()
    np.savez(tmp_path / "o.h5.partial" / "part.npz", cube(0))
    given = {"source_wavelengths": NM, **ALONE}
    report = ingest([tmp_path], tmp_path / "out" / "o.h5", **given)
    assert report.kept == 1
    assert f"1 sub-folder that holds cubes was not read: {tmp_path / 'day1'}" in report.notes
    again = ingest([tmp_path], tmp_path / "out" / "o.h5", **given)
    assert again.notes == report.notes, "the result of before is no source"
    with pytest.raises(InputError, match=f"folder that holds them: {deep}"):
        ingest([tmp_path / "day1"], tmp_path / "o2.h5", **given)


# --- whose it is ------------------------------------------------------------------------------------------------


def who(folder, *rows):
    (folder / "who.csv").write_text("\n".join(["file,patient", *rows]))
    return folder / "who.csv"


TABLE = {"registration": "off", "fov": "full", "scale": 4095}


def test_a_row_with_a_folder_is_for_that_file_alone(tmp_path):
    pair(tmp_path / "day1", "scan", 1), pair(tmp_path / "day2", "scan", 2)
    sources = [tmp_path / "day1", tmp_path / "day2"]
    table = who(tmp_path, "day1/scan.hdr,P1", "day2/scan.hdr,P2")
    ingest(sources, tmp_path / "o.h5", patient_table=table, **TABLE)
    made = Cohort.open(tmp_path / "o.h5")
    assert made.patient_id.tolist() == ["P1", "P2"]
    assert np.allclose(made.cubes()[1], cube(2) / 4095, atol=1e-4)
    report = ingest(sources, tmp_path / "o.h5", patient_table=who(tmp_path, "day1/scan.hdr,P1"), **TABLE)
    assert report.kept == 1 and [r.path for r in report.refused] == [str(tmp_path / "day2" / "scan.hdr")]
    assert "not in the table" in report.refused[0].reason and "day1/scan.hdr" in report.refused[0].reason


def test_a_bare_name_of_two_files_is_refused(tmp_path):
    pair(tmp_path / "day1", "scan", 1), pair(tmp_path / "day2", "scan", 2)
    sources = [tmp_path / "day1", tmp_path / "day2"]
    for row in ("scan.hdr,P1", "scan.raw,P1"):
        with pytest.raises(InputError, match=r"name of two sources; found .*day1/scan.hdr and .*day2/scan.hdr"):
            ingest(sources, tmp_path / "o.h5", patient_table=who(tmp_path, row), **TABLE)
    ingest(sources, tmp_path / "o.h5", patient_table=who(tmp_path, "scan.hdr,P1", "day2/scan.hdr,P2"), **TABLE)
    assert Cohort.open(tmp_path / "o.h5").patient_id.tolist() == ["P1", "P2"]


@pytest.mark.parametrize("row", ["scan.hdr", "scan.raw", "day1/scan.raw", "./day1/scan.hdr"])
@pytest.mark.parametrize("source", ["scan.hdr", "scan.raw"])
def test_a_pair_is_named_in_the_table_by_either_file(tmp_path, row, source):
    pair(tmp_path / "day1", "scan", 1)
    ingest([tmp_path / "day1" / source], tmp_path / "o.h5", patient_table=who(tmp_path, f"{row},P7"), **TABLE)
    assert Cohort.open(tmp_path / "o.h5").patient_id.tolist() == ["P7"]


def test_rows_that_say_two_things_of_one_pair_are_refused(tmp_path):
    header = pair(tmp_path, "scan", 1)
    for rows in (("scan.hdr,P1", "scan.raw,P2"), ("scan.hdr,P1", "scan.hdr,P2")):
        with pytest.raises(InputError, match="contradict"):
            ingest([header], tmp_path / "o.h5", patient_table=who(tmp_path, *rows), **TABLE)


def test_folders_of_pictures_and_links_have_their_own_names(tmp_path):
    folders = [pictures(tmp_path / f"P.{k}", k) for k in range(2)]
    ingest(folders, tmp_path / "o.h5", **ALONE)
    assert sorted(Cohort.open(tmp_path / "o.h5").patient_id.tolist()) == ["P.0", "P.1"]
    (tmp_path / "linked").symlink_to(folders[0])
    table = who(tmp_path, "linked,A", "P.1/,B")
    ingest([tmp_path / "linked", folders[1]], tmp_path / "o.h5", patient_table=table, **TABLE)
    assert Cohort.open(tmp_path / "o.h5").patient_id.tolist() == ["A", "B"]


# --- still the same ---------------------------------------------------------------------------------------------


def interrupted(monkeypatch, sources, out, **given):
    """An ingest that ends, as by a lack of memory, when it comes to its second source."""
    make = Worker.make
    with monkeypatch.context() as patch:
        patch.setattr(Worker, "make", lambda self, task: make(self, task) if task[0] == 0 else 1 / 0)
        with pytest.raises(ZeroDivisionError):
            ingest(sources, out, **given)


def rewritten(path, seed):
    """Other numbers of the same size, written later."""
    time = path.stat().st_mtime_ns + 10**9
    path.write_bytes(cube(seed).tobytes())
    os.utime(path, ns=(time, time))


@pytest.mark.parametrize("which", [0, 1])
def test_a_raw_file_replaced_after_a_stop_is_noticed(tmp_path, monkeypatch, which):
    sources, out = [pair(tmp_path, f"P{k}", k) for k in range(2)], tmp_path / "o.h5"
    interrupted(monkeypatch, sources, out, **ALONE)
    rewritten(tmp_path / f"P{which}.raw", 7)
    with pytest.raises(ConfigError, match=rf"1 sources new, gone or changed, first .*P{which}.hdr"):
        ingest(sources, out, **ALONE)
    assert ingest(sources, out, restart=True, **ALONE).kept == 2


def test_a_picture_replaced_after_a_stop_is_noticed(tmp_path, monkeypatch):
    sources, out = [pictures(tmp_path / f"P{k}", k) for k in range(2)], tmp_path / "o.h5"
    interrupted(monkeypatch, sources, out, **ALONE)
    band = sources[0] / "eye_500nm.png"
    before = sources[0].stat().st_mtime_ns
    with open(band, "r+b") as file:  # in place: the folder does not change
        file.write(file.read())
    os.utime(band, ns=(0, band.stat().st_mtime_ns + 10**9))
    assert sources[0].stat().st_mtime_ns == before
    with pytest.raises(ConfigError, match="changed"):
        ingest(sources, out, **ALONE)


@pytest.mark.parametrize("kind", ["envi", "pictures"])
def test_a_reference_replaced_after_a_stop_is_noticed(tmp_path, monkeypatch, kind):
    sources, out = [pair(tmp_path, f"P{k}", k) for k in range(2)], tmp_path / "o.h5"
    white = pair(tmp_path / "w", "w", 9) if kind == "envi" else pictures(tmp_path / "w", 9)
    given = ALONE | {"white": white, "scale": None}
    interrupted(monkeypatch, sources, out, **given)
    if kind == "envi":
        (tmp_path / "w" / "w.raw").write_bytes(cube(8).tobytes())
    else:
        Image.fromarray(cube(8)[1]).save(white / "eye_500nm.png")
    with pytest.raises(ConfigError, match="another 'white'"):
        ingest(sources, out, **given)


def test_an_unchanged_ingest_goes_on(tmp_path, monkeypatch):
    sources, out = [pair(tmp_path, "P0", 0), pictures(tmp_path / "P1", 1)], tmp_path / "o.h5"
    given = ALONE | {"white": pair(tmp_path / "w", "w", 9, bright=4000), "workers": 1, "scale": None}
    interrupted(monkeypatch, sources, out, **given)
    assert sorted(p.name for p in files_of(sources[0])) == ["P0.hdr", "P0.raw"] and len(files_of(sources[1])) == 3
    asked = []
    make = Worker.make
    monkeypatch.setattr(Worker, "make", lambda self, task: (asked.append(task), make(self, task))[1])
    assert ingest(sources, out, **given).kept == 2 and asked == [(1, 0)]


def test_equal_wavelengths_are_held_once(tmp_path):
    def block(number):
        given = {"format": "x", "variable": "x", "axes": "CHW", "dtype": "u2", "cubes": 1, "kept": 1, "full_scale": 1}
        given |= {"scale_from": "x", "wavelengths_from": "x", "resampled": False, "path": str(number)}
        nm = tuple(400.0 + number % 2 + k for k in range(224))
        return BlockDone(source=number, start=0, count=1, report=SourceReport(wavelengths_nm=nm, **given))

    def sets(folder):
        return {id(done.report.wavelengths_nm) for done in folder.done.values()}

    first, again = WorkFolder(tmp_path / "o.h5"), WorkFolder(tmp_path / "o.h5")
    first.begin({"version": 0})
    for number in range(6):
        first.note(block(number))
    first.close()
    again.begin(None)
    again.close()
    assert len(first.done) == len(again.done) == 6 and first.done == again.done
    assert len(sets(first)) == len(sets(again)) == 2


def test_two_files_of_one_name_are_not_taken_for_one_patient(tmp_path):
    for day in ("day1", "day2"):
        (tmp_path / day).mkdir()
        np.save(tmp_path / day / "scan.npy", np.random.default_rng(0).uniform(0.1, 0.5, (16, 32, 32)))
    files = [tmp_path / day / "scan.npy" for day in ("day1", "day2")]
    with pytest.raises(InputError, match="same patient"):
        ingest(files, tmp_path / "o.h5", each_file_a_patient=True, source_wavelengths="450:900:30", workers=1)
    assert not (tmp_path / "o.h5").exists()
