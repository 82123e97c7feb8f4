"""Quality control: each planted fault is caught with its own reason, and a clean cube passes."""

import json
import sys

import numpy as np
import pytest
from scipy import ndimage

from synthgen.cli import app as cli
from synthgen.cubes.cohort.cohort import Cohort
from synthgen.cubes.ingest.quality_control import Refused, check_saturation, repair
from synthgen.cubes.ingest.registration import measure_shifts, shift_back
from synthgen.cubes.ingest.run import ingest
from synthgen.cubes.phantom.simulate import simulate_cube

NM = tuple(450.0 + 30 * i for i in range(16))
GIVEN = {"source_wavelengths": NM, "patient_pattern": r"^(\w+)\.", "scale": 4095}


@pytest.fixture(scope="module")
def eye():
    """Counts of a 12-bit camera, 0 outside the field of view, and the field."""
    made = simulate_cube(4, "OD", size=64, seed=2)
    straight, fov = shift_back(made.cube, made.masks["fov"], measure_shifts(made.cube, made.masks["fov"]).shifts)
    return np.rint(np.clip(straight * fov, 0, 1) * (3500 / straight[:, fov].max())), fov


def with_nan(cube, fov, share):
    cube, rng = cube.copy(), np.random.default_rng(0)
    where = np.argwhere(fov)
    for row, column in where[rng.permutation(len(where))[: round(share * fov.size)]]:
        cube[5, row, column] = np.nan
    return cube


def saturated(cube, fov, share):
    """Exposed so long that this fraction of the field is cut off at 4095 in the band at 900 nm."""
    cube = cube * (4095 / np.quantile(cube[-1][fov], 1 - share))
    return np.minimum(cube, 4095)


def empty(cube, fov):
    return np.where(np.arange(16)[:, None, None] == 7, 37, cube)


def moved(cube, fov):
    cube = cube.copy()
    cube[8] = ndimage.shift(cube[8], (4, -3), order=3, mode="nearest") * fov
    return cube


def tiny(cube, fov):
    rows, columns = np.mgrid[:64, :64] - 31.5
    return cube * (np.hypot(rows, columns) < 9)


# name: the fault, what becomes of the cube, the check that says so, what it says
FAULTS = {
    "fewnan": (
        lambda c, f: with_nan(c, f, 0.005),
        "repaired",
        "broken pixels",
        "broken pixels in 1 bands (first at 600",
    ),
    "nan": (lambda c, f: with_nan(c, f, 0.03), "refused", "broken pixels", "3.0% of the band at 600 nm"),
    "glint": (lambda c, f: saturated(c, f, 0.02), "noted", "saturation", "of the field of view at 900 nm"),
    "saturated": (lambda c, f: saturated(c, f, 0.2), "refused", "saturation", "at most 5.0% of any band"),
    "empty": (empty, "refused", "empty bands", "found 1, at 660 nm"),
    "moved": (moved, "refused", "registration", "690 nm is off by "),
    "tiny": (tiny, "refused", "field of view", "too small; found 6."),
    "allnan": (lambda c, f: c * np.nan, "refused", "broken pixels", "100.0% of the band"),
    "bright": (lambda c, f: c * 9, "refused", "scale", "is too bright for the scale"),
}


def store(path, cube):
    np.save(path, cube if np.isnan(cube).any() else cube.astype(np.uint16))


@pytest.fixture(scope="module")
def scans(eye, tmp_path_factory):
    """Thirty clean files, and one file for each fault."""
    folder = tmp_path_factory.mktemp("faults")
    for i in range(33):
        store(folder / f"a{i:02d}.npy", eye[0] * (0.8 + 0.01 * i))
    for name, (fault, *_) in FAULTS.items():
        store(folder / f"{name}.npy", fault(*eye))
    (folder / "torn.npy").write_bytes((folder / "a00.npy").read_bytes()[:900])
    return folder


@pytest.fixture(scope="module")
def outcome(scans, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "o.h5"
    return ingest(sorted(scans.iterdir()), out, **GIVEN), out


@pytest.mark.slow
def test_clean_cubes_pass(outcome):
    report, out = outcome
    spoken = {p.rsplit("/", 1)[1] for p in [f.path for f in report.findings] + [r.path for r in report.refused]}
    assert spoken == {f"{name}.npy" for name in [*FAULTS, "torn"]}, "a clean cube has been found fault with"
    assert report.kept == 33 + 2 and report.sources[0].full_scale == 4095
    assert set(Cohort.open(out).patient_id) == {f"a{i:02d}" for i in range(33)} | {"fewnan", "glint"}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_has_its_own_reason(outcome, name):
    _, expected, check, words = FAULTS[name]
    report, _ = outcome
    found = [(r.check, "refused", r.reason) for r in report.refused if r.path.endswith(f"/{name}.npy")]
    found += [(f.check, f.outcome, f.reason) for f in report.findings if f.path.endswith(f"/{name}.npy")]
    assert len(found) == 1 and found[0][:2] == (check, expected) and words in found[0][2], found


def test_a_file_that_cannot_be_read_is_listed(outcome):
    assert [(r.check, r.cube) for r in outcome[0].refused if "torn" in r.path] == [("file", None)]


def test_the_report_file_and_the_table_say_the_same(outcome):
    report, out = outcome
    kept = json.loads(out.with_name("o.h5.ingest_report.json").read_text())
    assert len(kept["refused"]) == len(report.refused) == 8 and len(kept["findings"]) == 2
    rows = report.table()
    assert sum(count for _, how, count, _ in rows if how == "refused") == 8
    assert {check for check, *_ in rows} == {check for _, _, check, _ in FAULTS.values()} | {"file"}
    assert all(".npy" in example for *_, example in rows)


@pytest.mark.slow
def test_the_table_is_printed(scans, tmp_path, capsys, monkeypatch):
    words = ["ingest", str(scans), str(tmp_path / "o.h5"), "--source-wavelengths", "450:900:30"]
    monkeypatch.setattr(sys, "argv", ["synthgen", *words, "--patient-pattern", r"^(\w+)\.", "--scale", "4095"])
    monkeypatch.setenv("COLUMNS", "160")
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert not stop.value.code
    message = capsys.readouterr().out
    assert "quality control" in message and "registration" in message and "690 nm is off by " in message


def test_a_mended_pixel_is_like_its_neighbours(eye):
    cube, fov = eye
    rng = np.random.default_rng(0)
    inside = np.argwhere(ndimage.binary_erosion(fov, iterations=2))
    broken = np.zeros(cube.shape, bool)
    for row, column in inside[rng.permutation(len(inside))[:20]]:
        broken[9, row, column] = True
    repaired, message = repair(np.where(broken, np.nan, cube), broken, fov, 0.01, NM)
    assert "20 broken pixels in 1 bands (first at 720 nm)" in message
    assert np.array_equal(repaired[~broken], cube[~broken])
    assert np.abs(repaired[broken] / cube[broken] - 1).max() < 0.15
    broken[9, 20:30, 20:30] = True
    with pytest.raises(Refused, match="too wide to repair"):
        repair(np.where(broken, np.nan, cube), broken, fov, 0.5, NM)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_saturation_of_any_camera(eye, bits):
    cube, fov = eye[0] / eye[0].max(), eye[1]
    top = 2**bits - 1
    fair = np.rint(cube * 0.9 * top).astype(np.uint16)
    assert check_saturation(fair, fov, 0.05, NM) is None
    over = np.minimum(np.rint(cube / np.quantile(cube[-1][fov], 0.8) * top), top).astype(np.uint16)
    with pytest.raises(Refused, match=r"is saturated; found 2\d\.\d% of the field of view at (900|870) nm"):
        check_saturation(over, fov, 0.05, NM)
    clipped = np.minimum(over, 0.83 * top)  # full well below the converter's range
    with pytest.raises(Refused, match="is saturated"):
        check_saturation(clipped, fov, 0.05, NM)
