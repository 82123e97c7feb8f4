"""The steps of an ingest against a truth: dark and white, field of view, shifts between bands, patients, the record."""

import json

import h5py
import numpy as np
import pytest
from scipy import ndimage

from synthgen.cubes.cohort.cohort import Cohort, CohortWriter
from synthgen.cubes.ingest.field_of_view import detect_fov, field_amid
from synthgen.cubes.ingest.registration import LEAST_SHIFT, measure_shifts, shift_back
from synthgen.cubes.ingest.run import ingest
from synthgen.cubes.phantom.simulate import simulate_cube
from synthgen.cubes.readers.describe import describe
from synthgen.cubes.wavelengths import parse_bands, resample
from synthgen.errors import ConfigError, InputError, MismatchError, SynthgenError

NM = tuple(450.0 + 30 * i for i in range(16))
ALONE = {"source_wavelengths": NM, "each_file_a_patient": True}


@pytest.fixture(scope="module")
def eyes():
    return [simulate_cube(i, "OD", size=224, seed=1) for i in range(2)]


@pytest.fixture(scope="module")
def small():
    return simulate_cube(0, "OS", size=64, seed=1)


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


def npy(path, array):
    np.save(path, array)
    return path


# --- dark and white ---------------------------------------------------------------------------------------------


def recorded(cube, rng, reflectance=0.99):
    """A camera's counts of a cube with dark and white references: offset, uneven lamp, other gain in each band."""
    bands, height, width = cube.shape
    dark = 40 + 10 * rng.random((bands, height, width))
    lamp = (3000 + 4000 * rng.random(bands))[:, None, None] * (0.7 + 0.3 * rng.random((1, height, width)))
    return dark + lamp * cube, dark, dark + lamp * reflectance


@pytest.mark.parametrize("how", ["images", "several frames", "one value per band", "no dark"])
def test_dark_and_white_give_back_the_reflectance(tmp_path, small, how):
    rng = np.random.default_rng(0)
    raw, dark, white = recorded(small.cube, rng, 0.8)
    given = {"white": tmp_path / "w.npy", "dark": tmp_path / "d.npy", "white_reflectance": 0.8}
    if how == "several frames":
        noise = rng.standard_normal((9, 1, 64, 64)) * 5
        noise -= noise.mean(0)
        npy(tmp_path / "d.npy", dark + noise), npy(tmp_path / "w.npy", white + noise[::-1])
    elif how == "one value per band":
        raw, dark, white = 30 + 5000 * small.cube, np.full(16, 30.0), np.full(16, 30 + 5000 * 0.8)
        npy(tmp_path / "d.npy", dark)
        (tmp_path / "w.txt").write_text(", ".join(f"{w}" for w in white))
        given["white"] = tmp_path / "w.txt"
    else:
        npy(tmp_path / "d.npy", dark), npy(tmp_path / "w.npy", white)
        if how == "no dark":
            del given["dark"]
            raw, white = raw - dark, white - dark
            npy(tmp_path / "w.npy", white)
    report = ingest([npy(tmp_path / "a.npy", raw)], tmp_path / "o.h5", **given, **ALONE)
    made = Cohort.open(tmp_path / "o.h5")
    assert np.abs(made.cubes()[0] - small.cube)[:, small.masks["fov"]].max() < 1e-4
    assert iou(made.masks()["fov"][0], small.masks["fov"]) > 0.98
    assert report.sources[0].scale_from == "dark and white references"
    assert report.steps[0]["step"] == "correct" and report.steps[0]["white_reflectance"] == 0.8


def test_references_in_the_folder_of_the_scans_are_not_ingested(tmp_path, small):
    raw, dark, white = recorded(small.cube, np.random.default_rng(0))
    given = {"dark": npy(tmp_path / "dark.npy", dark), "white": npy(tmp_path / "white.npy", white)}
    npy(tmp_path / "p1.npy", raw)
    report = ingest([tmp_path], tmp_path / "out" / "o.h5", **given, **ALONE)
    assert [s.path for s in report.sources] == [str(tmp_path / "p1.npy")] and not report.refused


def test_where_white_is_dim_lies_outside(tmp_path, small):
    raw, dark, white = recorded(small.cube, np.random.default_rng(0))
    fov = small.masks["fov"]
    raw[:, ~fov] = 500 + raw[:, ~fov]  # stray light that only the references can tell from the eye
    white[:, ~fov] = dark[:, ~fov]
    given = {"dark": npy(tmp_path / "d.npy", dark), "white": npy(tmp_path / "w.npy", white)}
    ingest([npy(tmp_path / "a.npy", raw)], tmp_path / "o.h5", **given, **ALONE)
    made = Cohort.open(tmp_path / "o.h5")
    assert iou(made.masks()["fov"][0], fov) > 0.98 and made.cubes()[0][:, ~made.masks()["fov"][0]].max() == 0


def test_a_dim_spot_within_the_field_is_mended_a_large_one_refused(tmp_path, small):
    raw, dark, white = recorded(small.cube, np.random.default_rng(0))
    white[4, 30:32, 30:32] = dark[4, 30:32, 30:32]
    given = {"dark": npy(tmp_path / "d.npy", dark), "white": npy(tmp_path / "w.npy", white)}
    path = npy(tmp_path / "a.npy", raw)
    report = ingest([path], tmp_path / "o.h5", **given, **ALONE)
    assert [(f.check, f.outcome) for f in report.findings] == [("broken pixels", "repaired")]
    assert np.abs(Cohort.open(tmp_path / "o.h5").cubes()[0] - small.cube)[4, 28:34, 28:34].max() < 0.01
    white[4, 20:40, 20:40] = dark[4, 20:40, 20:40]
    npy(tmp_path / "w.npy", white)
    with pytest.raises(InputError, match="NaN"):
        ingest([path], tmp_path / "o2.h5", **given, **ALONE)


def test_references_that_do_not_fit_are_named(tmp_path, small):
    raw, dark, white = recorded(small.cube, np.random.default_rng(0))
    path, out = npy(tmp_path / "a.npy", raw), tmp_path / "o.h5"
    d, w = npy(tmp_path / "d.npy", dark), npy(tmp_path / "w.npy", white)
    wrong = npy(tmp_path / "wrong.npy", white[:, :40])
    fewer = npy(tmp_path / "fewer.npy", np.ones(15))
    (tmp_path / "words.txt").write_text("one two")
    for given, error, found in (
        ({"dark": d}, ConfigError, "--white"),
        ({"dark": d, "white": wrong}, MismatchError, "do not belong together"),
        ({"white": wrong}, SynthgenError, "image size differs"),
        ({"white": fewer}, SynthgenError, "number of bands differs"),
        ({"dark": w, "white": d}, InputError, "not brighter than dark"),
        ({"white": tmp_path / "none.npy"}, InputError, "no such file"),
        ({"white": tmp_path / "words.txt"}, InputError, "list of numbers"),
        ({"white": w, "scale": 4095}, ConfigError, "contradict"),
        ({"white": w, "white_reflectance": 0}, ConfigError, "white_reflectance"),
    ):
        with pytest.raises(error, match=found):
            ingest([path], out, **given, **ALONE)
        assert not list(tmp_path.glob("o.h5*"))


# --- field of view ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [32, 64, 128])
def test_the_field_of_view_is_found(size):
    eye = simulate_cube(3, "OD", size=size)
    assert iou(detect_fov(eye.cube), eye.masks["fov"]) > 0.98
    rng = np.random.default_rng(0)
    counts = rng.poisson(eye.cube * 8000 + 20) + rng.normal(0, 3, eye.cube.shape)  # dark current outside
    assert iou(detect_fov(counts), eye.masks["fov"]) > 0.98
    cut = np.s_[size // 10 : -size // 10]  # a frame that is wider than high
    assert iou(detect_fov(eye.cube[:, cut]), eye.masks["fov"][cut]) > 0.98


def test_no_field_is_seen_where_there_is_none(small):
    rng = np.random.default_rng(0)
    assert detect_fov(rng.random((4, 50, 60))) is None
    assert detect_fov(np.zeros((4, 50, 60))) is None
    assert detect_fov(small.cube[:, 14:50, 14:50]) is None
    assert detect_fov(np.full((3, 20, 20), np.nan)) is None
    stripes = np.zeros((40, 40), bool)
    stripes[10:14] = True
    assert field_amid(stripes) is None


def test_which_field_is_taken(tmp_path, small):
    wrong = np.zeros((64, 64), bool)
    wrong[10:50, 10:50] = True
    with CohortWriter(tmp_path / "c.h5", NM, 64, 64) as out:
        out.append(small.cube + 0.001, "p", masks={"fov": wrong, "artery": small.masks["artery"]})
    for mode, expected in (("auto", wrong), ("file", wrong), ("detect", small.masks["fov"])):
        ingest([tmp_path / "c.h5"], tmp_path / "o.h5", fov=mode)
        made = Cohort.open(tmp_path / "o.h5")
        assert iou(made.masks()["fov"][0], expected) > 0.98
        assert made.cubes()[0][:, ~made.masks()["fov"][0]].max() == 0, "outside is zero"
        assert np.array_equal(made.masks()["artery"][0], small.masks["artery"])
    ingest([tmp_path / "c.h5"], tmp_path / "o.h5", fov="full")
    made = Cohort.open(tmp_path / "o.h5")
    assert "fov" not in made.mask_names and made.cubes().min() > 0
    path = npy(tmp_path / "a.npy", small.cube)
    with pytest.raises(InputError, match="no mask 'fov'"):
        ingest([path], tmp_path / "o2.h5", fov="file", **ALONE)
    with pytest.raises(InputError, match="no field of view"):
        ingest([npy(tmp_path / "b.npy", small.cube[:, 14:50, 14:50])], tmp_path / "o2.h5", fov="detect", **ALONE)


def test_nan_around_the_field_is_no_fault(tmp_path, small):
    cube = np.where(small.masks["fov"], small.cube, np.nan)
    report = ingest([npy(tmp_path / "a.npy", cube)], tmp_path / "o.h5", **ALONE)
    made = Cohort.open(tmp_path / "o.h5")
    assert report.findings == () and iou(made.masks()["fov"][0], small.masks["fov"]) > 0.98


def test_the_rim_is_not_darkened_by_resizing(tmp_path, small):
    fov = small.masks["fov"]
    ingest([npy(tmp_path / "a.npy", np.full((16, 64, 64), 0.5) * fov + 0.01 * small.cube)], tmp_path / "o.h5", size=16,
           registration="off", **ALONE)  # fmt: skip
    made = Cohort.open(tmp_path / "o.h5")
    inside = made.masks()["fov"][0]
    assert (~inside).sum() > 0 and made.cubes()[0][:, inside].min() > 0.49 and made.cubes()[0][:, ~inside].max() == 0


# --- shifts between bands ---------------------------------------------------------------------------------------


def planted(eye, band, shift):
    """The eye with one band moved, as by a loose filter wheel: the aperture of the camera stays."""
    cube = eye.cube.copy()
    cube[band] = ndimage.shift(cube[band], shift, order=3, mode="nearest") * eye.masks["fov"]
    return cube


@pytest.mark.slow
@pytest.mark.parametrize("band", [2, 6, 12])
@pytest.mark.parametrize("size", [0.5, 1, 2, 5])
def test_planted_shifts_are_measured(eyes, band, size):
    move = size * np.array([0.6, -0.8])
    for eye in eyes:
        before = measure_shifts(eye.cube, eye.masks["fov"])
        after = measure_shifts(planted(eye, band, move), eye.masks["fov"])
        found = after.shifts - before.shifts
        assert after.measured.all()
        assert np.abs(found[band] - move).max() < 0.25
        assert np.abs(np.delete(found, band, axis=0)).max() < 0.25


def test_a_band_without_texture_is_not_believed(eyes):
    eye = eyes[0]
    cube = eye.cube.copy()
    cube[0] = np.random.default_rng(0).random(cube[0].shape) * 0.001 * eye.masks["fov"]
    found = measure_shifts(cube, eye.masks["fov"])
    assert not found.measured[0] and found.measured[1:].all() and found.sizes[0] == 0
    assert not measure_shifts(cube[:, :30, :30]).measured.any(), "too small to tell"
    assert not measure_shifts(np.zeros((3, 64, 64), np.float32)).measured.any()


def test_moving_back_restores_the_band(eyes):
    eye = eyes[0]
    moved = planted(eye, 6, (1.2, -1.6))
    before = measure_shifts(eye.cube, eye.masks["fov"]).shifts
    shifts = np.zeros((16, 2))
    shifts[6] = measure_shifts(moved, eye.masks["fov"]).shifts[6] - before[6]
    back, fov = shift_back(moved, eye.masks["fov"], shifts)
    inside = ndimage.binary_erosion(fov, iterations=3)
    wrong, left = (np.abs(c[6] - eye.cube[6])[inside].mean() for c in (moved, back))
    assert left < 0.5 * wrong
    assert fov.sum() < eye.masks["fov"].sum() and np.array_equal(back[5], eye.cube[5])
    same, mask = shift_back(moved, fov, np.full((16, 2), 0.5 * LEAST_SHIFT))
    assert same is moved and mask is fov


@pytest.mark.slow
def test_registration_is_checked_corrected_or_left(tmp_path, eyes):
    eye = eyes[1]
    drift = measure_shifts(eye.cube, eye.masks["fov"]).shifts
    straight, _ = shift_back(eye.cube, eye.masks["fov"], drift)
    eye = type(eye)(straight * eye.masks["fov"], eye.masks, *list(vars(eye).values())[2:])
    good = npy(tmp_path / "good.npy", eye.cube)
    off = npy(tmp_path / "off.npy", planted(eye, 5, (1.2, -1.6)))
    far = npy(tmp_path / "far.npy", planted(eye, 5, (3, -4)))
    report = ingest([good, off, far], tmp_path / "o.h5", **ALONE)
    assert [(f.path, f.check, f.outcome) for f in report.findings] == [(str(off), "registration", "noted")]
    assert "600 nm is off by 2.0 pixels (+1.2 rows, -1.6 columns)" in report.findings[0].reason
    assert [(r.path, r.check) for r in report.refused] == [(str(far), "registration")]
    assert ingest([good, off, far], tmp_path / "o.h5", registration="off", **ALONE).kept == 3
    report = ingest([good, off, far], tmp_path / "o.h5", registration="correct", **ALONE)
    assert report.kept == 2 and (str(off), "repaired") in {(f.path, f.outcome) for f in report.findings}
    made = Cohort.open(tmp_path / "o.h5")
    fov = made.masks()["fov"][1]
    assert measure_shifts(made.cubes()[1], fov).sizes.max() < 0.5
    report = ingest([far], tmp_path / "o.h5", registration="correct", max_shift=6, **ALONE)
    assert report.kept == 1 and report.findings[0].outcome == "repaired"


# --- bands, patients, the record --------------------------------------------------------------------------------


def test_ninety_one_bands_become_sixteen_with_a_given_width(tmp_path):
    fine = parse_bands("450:900:5")
    cube = simulate_cube(1, "OD", size=32, wavelengths=fine).cube
    path = npy(tmp_path / "a.npy", cube)
    given = {"source_wavelengths": fine, "each_file_a_patient": True, "bands": "450:900:30", "fov": "full"}
    for width in (None, 12.0):
        report = ingest([path], tmp_path / "o.h5", fwhm=width, **given)
        expected = resample(cube, fine, NM, width)
        assert np.abs(Cohort.open(tmp_path / "o.h5").cubes()[0] - expected).max() < 2e-5
        assert report.steps[-1]["fwhm"] == (width or "spacing")
    with pytest.raises(ConfigError, match="needs target bands"):
        ingest([path], tmp_path / "o2.h5", fwhm=12, source_wavelengths=fine)


def test_a_band_that_is_not_needed_may_be_broken(tmp_path, small):
    cube = small.cube.copy()
    cube[[0, 1]], cube[14] = 0, np.nan
    path = npy(tmp_path / "a.npy", cube)
    with pytest.raises(InputError, match="NaN"):
        ingest([path], tmp_path / "o.h5", **ALONE)
    report = ingest([path], tmp_path / "o.h5", bands="510:840:30", **ALONE)
    made = Cohort.open(tmp_path / "o.h5")
    assert made.wavelengths == NM[2:14] and not report.findings
    assert np.abs(made.cubes()[0] - small.cube[2:14])[:, small.masks["fov"]].max() < 1e-4


@pytest.mark.slow
def test_the_split_keeps_eyes_and_visits_of_a_patient_together(tmp_path, small):
    for patient in range(10):
        for name in ("OD_1", "OS_1", "OD_2"):
            npy(tmp_path / f"P{patient}_{name}.npy", small.cube)
    given = {"patient_pattern": r"(P\d+)_", "source_wavelengths": NM, "registration": "off"}
    out = tmp_path / "o" / "o.h5"
    report = ingest([tmp_path], out, split=(0.5, 0.2, 0.3), split_seed=3, **given)
    kept = json.loads((tmp_path / "o" / "o.h5.split.json").read_text())
    assert report.split == {"train": 5, "calibration": 2, "test": 3} and kept["seed"] == 3
    assert sorted(kept["train"] + kept["calibration"] + kept["test"]) == [f"P{i}" for i in range(10)]
    assert kept["cohort_hash"] == Cohort.open(out).content_hash
    again = ingest([tmp_path], out, split=(0.6, 0.2, 0.2), **given)
    assert json.loads((tmp_path / "o" / "o.h5.split.json").read_text()) == kept
    assert again.split == report.split and any("was kept" in n for n in again.notes)
    other = ingest([tmp_path], out, size=32, **given)
    assert other.split == report.split, "cubes of another size, the same patients in the same parts"
    with pytest.raises(ConfigError, match="fractions"):
        ingest([tmp_path], out, split=(0.5, 0.5, 0.5), **given)


def test_every_step_stands_in_the_file_and_in_info(tmp_path, small):
    white = npy(tmp_path / "white.npy", np.full(16, 1.0))
    given = {"white": white, "bands": "450:900:45", "size": 32, "registration": "correct", "fov": "detect"}
    report = ingest([npy(tmp_path / "a.npy", small.cube)], tmp_path / "o.h5", **given, **ALONE)
    with h5py.File(tmp_path / "o.h5") as file:
        kept = json.loads(np.ravel(file.attrs["ingest"])[0])
    assert kept["steps"] == json.loads(json.dumps(report.steps))
    assert [s["step"] for s in kept["steps"]] == [
        "correct", "field of view", "repair broken pixels", "refuse saturation", "registration", "bands", "resize",
    ]  # fmt: skip
    assert kept["steps"][4] == {"step": "registration", "mode": "correct", "max_shift": 3.0}
    shown = describe(tmp_path / "o.h5")["ingest"]
    assert [name.split(" ", 1)[1] for name in shown] == [s["step"] for s in kept["steps"]]
    assert "mode correct" in shown["5 registration"]


def test_a_folder_that_cannot_be_made_is_reported_in_one_line(tmp_path, small):
    path = npy(tmp_path / "a.npy", small.cube)
    with pytest.raises(SynthgenError, match="could not be written"):
        ingest([path], "/proc/nowhere/o.h5", **ALONE)
