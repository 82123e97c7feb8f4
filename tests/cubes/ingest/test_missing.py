"""Pixels without data and broken ones: outside the field, repaired from within it, or refused; never data."""

import numpy as np
import pytest

from synthgen.cubes.cohort.cohort import Cohort
from synthgen.cubes.ingest.quality_control import Refused, check_saturation, repair
from synthgen.cubes.ingest.run import ingest
from synthgen.errors import InputError
from tests.formats import export_cube

NM = tuple(450.0 + 30 * i for i in range(16))
MISSING = 9999
RNG = np.random.default_rng(0)
ALONE = {"scale": 4095, "registration": "off", "each_file_a_patient": True}


@pytest.fixture
def counts():
    """A frame without a surround."""
    return RNG.integers(500, 3000, (16, 96, 96)).astype(np.uint16)


def envi(folder, cube, ignored=MISSING):
    path = export_cube(folder / "a.hdr", cube, NM, "envi")
    path.write_text(f"{path.read_text()}\ndata ignore value = {ignored}\n")
    return path


def kept(path, out, **given):
    report = ingest([path], out, **(ALONE | given))
    made = Cohort.open(out)
    masks = made.masks()
    return report, made.cubes()[0], masks["fov"][0] if "fov" in made.mask_names else None


def test_without_missing_pixels_the_number_changes_nothing(tmp_path, counts):
    report, cube, fov = kept(envi(tmp_path, counts), tmp_path / "o.h5")
    assert fov is None and not report.findings and np.abs(cube * 4095 - counts).max() < 0.1


@pytest.mark.parametrize("mode", ["auto", "full"])
def test_missing_in_all_bands_is_outside_wherever_it_lies(tmp_path, counts, mode):
    hole = np.zeros((96, 96), bool)
    hole[:, 80:] = hole[20:23, 10:13] = True  # one side of the frame, and a hole
    counts[:, hole] = MISSING
    report, cube, fov = kept(envi(tmp_path, counts), tmp_path / "o.h5", fov=mode)
    assert np.array_equal(fov, ~hole) and not cube[:, hole].any() and not report.findings
    assert report.no_data_pixels == hole.sum()
    assert np.abs(cube * 4095 - counts)[:, ~hole].max() < 0.1


def test_missing_in_some_bands_is_broken(tmp_path, counts):
    counts[3, 5, 6] = counts[4, 5, 6] = counts[9, 40, 1] = MISSING
    report, cube, fov = kept(envi(tmp_path, counts), tmp_path / "o.h5")
    assert fov is None and [(f.check, f.outcome) for f in report.findings] == [("broken pixels", "repaired")]
    assert "3 broken pixels in 3 bands" in report.findings[0].reason
    around = np.delete(counts[3, 4:7, 5:8].ravel(), 4)
    assert cube[3, 5, 6] * 4095 == pytest.approx(np.median(around), abs=0.1)
    assert np.abs(cube * 4095 - counts)[counts != MISSING].max() < 0.1
    counts[3, 10:20] = MISSING
    with pytest.raises(
        InputError, match=r"holds missing, NaN, infinite or absurd values; found 10\.4% of the band at 540"
    ):
        kept(envi(tmp_path, counts), tmp_path / "o2.h5")


def test_missing_in_bands_that_are_not_needed_is_no_matter(tmp_path, counts):
    counts[15], counts[14, 3:9] = MISSING, MISSING
    report, cube, fov = kept(envi(tmp_path, counts), tmp_path / "o.h5", bands="450:840:30")
    assert fov is None and not report.findings and np.abs(cube * 4095 - counts[:14]).max() < 0.1
    counts[:14, 3:9] = MISSING
    _, _, fov = kept(envi(tmp_path, counts), tmp_path / "o.h5", bands="450:840:30")
    assert np.flatnonzero(~fov.all(axis=1)).tolist() == list(range(3, 9))
    with pytest.raises(InputError, match=r"93\.8% of the band at 900"):
        kept(envi(tmp_path, counts), tmp_path / "o2.h5", max_broken=0.2, min_field=0)


def test_a_cube_of_nothing_but_missing_pixels_is_refused(tmp_path, counts):
    for least in (0.1, 0):
        with pytest.raises(InputError, match=r"field of view is too small; found 0\.0%"):
            kept(envi(tmp_path, counts * 0 + MISSING), tmp_path / "o.h5", min_field=least)


def test_missing_values_are_no_saturation(tmp_path, counts):
    counts[:, :, :20] = 4095
    path = envi(tmp_path, counts, ignored=4095)
    report, _, fov = kept(path, tmp_path / "o.h5")
    assert not report.findings and np.array_equal(fov, np.tile(np.arange(96) >= 20, (96, 1)))


# --- broken pixels ----------------------------------------------------------------------------------------------


def disc(size=64):
    rows, columns = np.mgrid[:size, :size] - (size - 1) / 2
    return np.hypot(rows, columns) < 0.45 * size


def test_broken_pixels_at_the_rim_are_mended_from_within_the_field(tmp_path):
    fov = disc()
    cube = (0.5 + 0.01 * RNG.random((16, 64, 64))).astype(np.float32) * fov
    rim = [(int(np.argmax(fov[:, c])), c) for c in (20, 27, 32, 40)]  # the topmost pixels of their columns
    for row, column in rim:
        cube[6, row, column] = np.nan
    np.save(tmp_path / "a.npy", cube)
    given = {"scale": 1, "source_wavelengths": NM}
    report, made, found = kept(tmp_path / "a.npy", tmp_path / "o.h5", **given)
    assert [f.outcome for f in report.findings] == ["repaired"]
    assert all(found[at] for at in rim) and all(0.499 < made[6][at] < 0.511 for at in rim)


def test_a_hole_at_the_rim_that_only_the_surround_could_fill_is_refused():
    fov = np.zeros((20, 20), bool)
    fov[8:13, 8:13] = True
    broken = np.zeros((1, 20, 20), bool)
    broken[0, 8:13, 8:13] = True
    broken[0, 8, 8] = False
    with pytest.raises(Refused, match="too wide to repair"):
        repair(np.zeros((1, 20, 20)), broken, fov, 0.2, (500.0,))


@pytest.mark.slow
def test_broken_pixels_in_every_place_are_left_out_band_by_band(tmp_path):
    nm = tuple(450.0 + 5 * i for i in range(60))
    cube = RNG.uniform(0.2, 0.5, (60, 40, 40)).astype(np.float32)
    cube[RNG.random(cube.shape) < 0.17] = np.nan
    assert np.isnan(cube).any(axis=0).all(), "no pixel is sound in all bands"
    np.save(tmp_path / "a.npy", cube)
    given = {"scale": 1, "source_wavelengths": nm, "max_broken": 0.2}
    report, made, _ = kept(tmp_path / "a.npy", tmp_path / "o.h5", **given)
    assert [f.check for f in report.findings] == ["broken pixels"] and np.isfinite(made).all()
    cube[40] = np.where(np.isnan(cube[40]), np.nan, np.where(RNG.random((40, 40)) < 0.3, 0.6, cube[40]))
    np.save(tmp_path / "a.npy", cube)
    with pytest.raises(InputError, match=r"is saturated; found [23]\d\.\d% of the field of view at 650 nm"):
        kept(tmp_path / "a.npy", tmp_path / "o.h5", **given)


def test_saturation_where_nothing_is_sound():
    raw = np.full((2, 5, 5), 255, np.uint8)
    assert check_saturation(raw, np.zeros((5, 5), bool), 0.05, (500.0, 600.0)) is None
    sound = np.zeros((2, 5, 5), bool)
    sound[1] = True
    with pytest.raises(Refused, match=r"100\.0% of the field of view at 600 nm"):
        check_saturation(raw, sound, 0.05, (500.0, 600.0))
