"""What a file declares and cannot be honoured is refused with its numbers, or reported; no full scale is guessed."""

import h5py
import numpy as np
import pytest

from synthgen.cubes.cohort.cohort import Cohort, CohortWriter
from synthgen.cubes.ingest.run import ingest
from synthgen.cubes.readers.describe import describe, render
from synthgen.cubes.readers.open import open_source
from synthgen.cubes.readers.scaling import full_scale_of, reflectance
from synthgen.errors import InputError, MismatchError
from tests.formats import export_cube

NM = (450.0, 500.0, 550.0, 600.0, 650.0)
TRUE = np.random.default_rng(0).uniform(0.02, 0.4, (5, 16, 12))
COUNTS = np.rint(TRUE * 10000).astype("i2")
ALONE = {"each_file_a_patient": True, "registration": "off", "fov": "full"}


def envi(folder, numbers=COUNTS, name="a.hdr", **stated):
    path = export_cube(folder / name, numbers, NM, "envi")
    path.write_text(
        path.read_text().rstrip() + "".join(f"\n{k.replace('_', ' ')} = {v}" for k, v in stated.items()) + "\n"
    )
    return path


def hdf5(folder, numbers=COUNTS, beside=None, around=None, **stated):
    with h5py.File(folder / "a.h5", "w") as file:
        file["image"], file["wavelength"] = numbers, NM
        for place, names in ((file["image"].attrs, stated), (file.attrs, around or {}), (file, beside or {})):
            for key, value in names.items():
                place[key] = value
    return folder / "a.h5"


def cube_of(path, given=None):
    source = open_source(path)
    return reflectance(source, 0, full_scale_of(source, given)[0])


@pytest.mark.parametrize(
    ("write", "stated", "finding"),
    [
        (envi, {"data_gain_values": "{1e-4, 1e-4, 0, 1e-4, 1e-4}"}, "data gain values.* 0 at band 3; expected finite"),
        (envi, {"data_gain_values": "{1e-4, nan, 1, 1, 1}"}, "nan at band 2"),
        (envi, {"data_gain_values": "{1e-4, 1e-4}"}, "has 2 values.*one per band, 5"),
        (envi, {"data_gain_values": "{a, b, c, d, e}"}, "is no number"),
        (envi, {"data_offset_values": "inf"}, "data offset values inf"),
        (envi, {"reflectance_scale_factor": "10,000"}, "is no number.*10,000"),
        (envi, {"reflectance_scale_factor": "0"}, "cannot be applied.*above 0"),
        (envi, {"reflectance_scale_factor": "-10000"}, "above 0"),
        (envi, {"data_ignore_value": "white"}, "is no number.*white"),
        (envi, {"reflectance_scale_factor": "10000", "data_offset_values": "-1000"}, "before or after is not stated"),
        (hdf5, {"scale_factor": 0.0}, "'scale_factor' cannot be applied.*above 0"),
        (hdf5, {"scale_factor": np.nan, "add_offset": 0.1}, "nan"),
        (hdf5, {"scale_factor": np.full(3, 1e-4)}, "3 values"),
        (hdf5, {"scale_factor": np.array([1e-4, 10, 1, 1, 1])}, "divides in some bands"),
        (hdf5, {"scale_factor": 1e-4, "gain": 2e-4}, "contradicts itself; found gain 0.0002.*scale_factor 0.0001"),
        (hdf5, {"offset": 0.1, "add_offset": 0.2, "scale_factor": 1e-4}, "contradicts itself"),
        (hdf5, {"valid_range": np.array([5, 1], "i2")}, "no number is valid"),
        (hdf5, {"valid_range": np.array([1], "i2")}, "two numbers"),
        (hdf5, {"_FillValue": "no data"}, "is no number"),
    ],
)
def test_what_no_calibration_can_be_is_refused_with_its_numbers(tmp_path, write, stated, finding):
    path = write(tmp_path, **stated)
    with pytest.raises(InputError, match=finding) as error:
        open_source(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    assert "problem" in describe(path)


@pytest.mark.parametrize(
    ("write", "stated", "given"),
    [
        (envi, {"data_gain_values": "2e-4", "reflectance_scale_factor": "10000"}, None),
        (hdf5, {"scale": 10000.0, "scale_factor": 4095.0}, 10000),
        (hdf5, {"scale": 1e-4, "beside": {"maxValue": 5000}}, 10000),
    ],
)
def test_two_full_scales_that_differ_need_a_given_one(tmp_path, write, stated, given):
    path = write(tmp_path, **stated)
    with pytest.raises(InputError, match=r"contradicts itself about the value of reflectance 1; .*Give --scale"):
        cube_of(path)
    assert "contradictory" in describe(path)["reflectance 1 is"]
    if given:
        assert np.abs(cube_of(path, given) - TRUE).max() < 1e-4


@pytest.mark.parametrize(
    ("write", "stated"),
    [
        (envi, {"data_gain_values": "1e-4", "reflectance_scale_factor": "10000"}),
        (
            envi,
            {"data_gain_values": "{1, 1, 1, 1, 1}", "data_offset_values": "0", "reflectance_scale_factor": "{10000}"},
        ),
        (hdf5, {"scale": 1e-4, "scale_factor": 10000, "beside": {"maxValue": 10000}}),
        (hdf5, {"scale_factor": np.float32(1e-4), "gain": 1e-4}),
        (envi, {"data_gain_values": "0.3", "data_reflectance_gain_values": "1e-4"}),
        (envi, {"reflectance_scale_factor": "10000,0"}),
        (envi, {"reflectance_scale_factor": "0,0001", "data_gain_values": "1.0D-4"}),
    ],
)
def test_the_same_stated_twice_is_applied_once(tmp_path, write, stated):
    path = write(tmp_path, **stated)
    assert np.abs(cube_of(path) - TRUE).max() < 1e-4


def test_a_radiance_gain_beside_one_of_reflectance_is_reported_to_be_left(tmp_path):
    source = open_source(envi(tmp_path, data_gain_values="0.3", data_reflectance_gain_values="1e-4"))
    assert len(source.declared.not_applied) == 1 and "data gain values 0.3" in source.declared.not_applied[0]


@pytest.mark.parametrize("value", ["nan", "1e34", "-9999.5", "70000"])
def test_a_no_data_number_that_the_type_cannot_hold_is_reported(tmp_path, value):
    source = open_source(envi(tmp_path, COUNTS.astype("u2"), data_ignore_value=value))
    assert "marks nothing: uint16 holds no such number" in source.declared.not_applied[0]
    assert not source.declared.no_data and np.array_equal(source.declared.values(source.read(0)), COUNTS)
    report = ingest([source.path], tmp_path / "o.h5", scale=10000, **ALONE)
    assert [row[:2] for row in report.table()] == [("declared", "not applied")]
    assert f"not applied: {source.declared.not_applied[0]}" in "\n".join(report.lines())


@pytest.mark.parametrize("value", ["", "none", "{}"])
def test_no_number_for_no_data_is_none(tmp_path, value):
    assert open_source(envi(tmp_path, data_ignore_value=value)).ignored is None


@pytest.mark.parametrize(
    "stated",
    [
        {"around": {"gain": 2.0}},
        {"around": {"scale": 2.5}},
        {"around": {"offset": 100}},
        {"around": {"scale": "linear"}},
        {"beside": {"offset": np.zeros((16, 12))}},
        {"beside": {"gain": np.ones(7)}},
    ],
)
def test_a_name_that_may_be_of_anything_is_left_and_reported(tmp_path, stated):
    source = open_source(hdf5(tmp_path, TRUE.astype("f4"), **stated))
    assert not source.declared.is_calibrated and source.full_scale is None
    assert "was not applied" in source.declared.not_applied[0]
    assert "not applied" in describe(source.path) and np.abs(cube_of(source.path) - TRUE).max() < 1e-6


@pytest.mark.parametrize(
    ("numbers", "stated", "finding"),
    [
        (TRUE.astype("f4"), {"reflectance_scale_factor": 10000}, "too dark for the scale; found at most 4e-05 of"),
        (COUNTS, {"reflectance_scale_factor": 100}, "too bright for the scale; found .* reflectance 1, which is 100"),
        (
            COUNTS,
            {"data_gain_values": 1e-8},
            "does not state which value means reflectance 1; found int16 up to 3.98.*e-05 after a gain of 1e-08",
        ),
        (COUNTS, {"data_gain_values": 0.01}, r"up to 39\.8\d* after a gain of 0.01.*100 \(per cent\)"),
    ],
)
def test_a_declared_scale_that_cannot_be_is_refused(tmp_path, numbers, stated, finding):
    with pytest.raises(InputError, match=finding):
        ingest([envi(tmp_path, numbers, **stated)], tmp_path / "o.h5", **ALONE)


def test_a_given_scale_comes_after_the_gain_and_a_same_one_counts_once(tmp_path):
    path = envi(tmp_path, data_gain_values="0.01")
    assert np.abs(cube_of(path, 100) - TRUE).max() < 1e-4
    path = envi(tmp_path, data_gain_values="1e-4")
    for given in (10000, 1e-4, 1):
        assert np.abs(cube_of(path, given) - TRUE).max() < 1e-4
    with pytest.raises(InputError, match=r"too dark for the scale.*given, after gain"):
        ingest([path], tmp_path / "o.h5", scale=4095, **ALONE)
    source = open_source(envi(tmp_path, reflectance_scale_factor="10000"))
    assert full_scale_of(source, 5000) == (5000, "given, against 10000 of the file")


@pytest.mark.parametrize(
    ("numbers", "found", "candidates"),
    [
        (COUNTS, "int16 up to 399", ["4095 (12 bit)", "10000 (reflectance x 10000)", "16383"]),
        (COUNTS.astype("f8"), "float64 up to 399", ["4095", "10000", "65535"]),
        ((TRUE * 100).astype("f4"), "float32 up to 39", ["100 (per cent)", "255"]),
        ((TRUE * 100).astype("u1"), "uint8 up to 39", ["100 (per cent)", "255 (8 bit)"]),
        ((TRUE * 1e-4).astype("f4"), "float32 up to 3.98", []),
        ((TRUE * 1e9).astype("u4"), "uint32 up to 3.99", ["the value of reflectance 1"]),
    ],
)
def test_without_a_word_the_scale_is_asked_for(tmp_path, numbers, found, candidates):
    path = envi(tmp_path, numbers)
    with pytest.raises(InputError, match="Give --scale, the same for all files") as error:
        full_scale_of(open_source(path), None)
    text = str(error.value)
    assert found in text and all(word in text for word in candidates) and "\n" not in text
    assert ("65535" in text) == (numbers.dtype.kind == "f" and numbers.max() > 1000), "what the type cannot hold"
    assert "needs --scale" in render(describe(path))


def test_one_scale_for_all_files(tmp_path):
    """A percent file among reflectance is refused, never given a scale of its own; a given one holds for all."""
    for name, cube in (("P1", TRUE), ("P2", TRUE * 100), ("P3", TRUE * 0.5)):
        envi(tmp_path, cube.astype("f4"), f"{name}.hdr")
    report = ingest([tmp_path], tmp_path / "o" / "o.h5", **ALONE)
    assert [s.full_scale for s in report.sources] == [1, 1, 1] and report.kept == 2
    assert [(r.check, r.path.rsplit("/", 1)[1]) for r in report.refused] == [("scale", "P2.hdr")]
    assert "100 (per cent)" in report.refused[0].reason
    for name in ("P1", "P3"):
        envi(tmp_path, (TRUE * 100).astype("f4"), f"{name}.hdr")
    assert ingest([tmp_path], tmp_path / "o" / "o.h5", scale=100, **ALONE).kept == 3


def test_minus_9999_that_nobody_declared_is_broken_not_black(tmp_path):
    cube = TRUE.astype("f4")
    cube[:, 3:9] = -9999
    with pytest.raises(InputError, match="holds missing, NaN, infinite or absurd values"):
        ingest([envi(tmp_path, cube)], tmp_path / "o.h5", **ALONE)


# --- dark and white references ----------------------------------------------------------------------------------


def test_references_are_calibrated_as_the_cubes_are(tmp_path):
    gain, white = "{1, 2, 3, 4, 5}", np.full((5, 16, 12), 2000, "i2")
    raw = np.rint(TRUE / 0.99 * 2000).astype("i2")
    path = envi(tmp_path, raw, data_gain_values=gain)
    (tmp_path / "w").mkdir()
    given = {"white": envi(tmp_path / "w", white // 2, data_gain_values="{2, 4, 6, 8, 10}"), **ALONE}
    ingest([path], tmp_path / "o.h5", **given)  # half the exposure of the white, and twice the gain
    assert np.abs(Cohort.open(tmp_path / "o.h5").cubes()[0] - TRUE).max() < 1e-3
    np.save(tmp_path / "white.npy", np.full(5, 2000))  # one stored number per band
    ingest([path], tmp_path / "o.h5", white=tmp_path / "white.npy", **ALONE)
    assert np.abs(Cohort.open(tmp_path / "o.h5").cubes()[0] - TRUE).max() < 1e-3
    with pytest.raises((InputError, MismatchError), match=r"another calibration.*value = stored x 1\.\.\.5 by band"):
        ingest([path], tmp_path / "o2.h5", white=envi(tmp_path / "w", white), **ALONE)


# --- our own files ----------------------------------------------------------------------------------------------


def test_a_cohort_file_that_declares_more_than_its_scale_is_not_read_as_if_it_had_not(tmp_path):
    with CohortWriter(tmp_path / "a.h5", NM, 16, 12) as out:
        out.append(TRUE.astype("f4"), "P1")
    plain = Cohort.open(tmp_path / "a.h5").cubes()
    for name, value, finding in (("add_offset", 0.1, "add_offset 0.1"), ("_FillValue", np.uint16(0), "_FillValue 0")):
        with h5py.File(tmp_path / "a.h5", "r+") as file:
            file["cubes"].attrs[name] = value
        with pytest.raises(InputError, match=f"declares what a cohort file has not; found {finding}"):
            Cohort.open(tmp_path / "a.h5")
        with h5py.File(tmp_path / "a.h5", "r+") as file:
            del file["cubes"].attrs[name]
            file["cubes"].attrs.update({"scale_factor": 1.0, "units": "1"})
    assert np.array_equal(Cohort.open(tmp_path / "a.h5").cubes(), plain)


# --- synthgen info ----------------------------------------------------------------------------------------------


def test_info_shows_what_is_declared_and_what_is_made_of_it(tmp_path):
    found = describe(envi(tmp_path, data_gain_values="1e-4", data_ignore_value="-1"))
    assert found["declared"] == ["data gain values 0.0001 (ENVI header)", "data ignore value -1 (ENVI header)"]
    assert found["applied"] == "value = stored x 0.0001; no data where -1 is stored"
    path = hdf5(tmp_path, scale_factor=1e-4, _FillValue=np.int16(-1))
    assert "scale_factor 0.0001 ('image')" in render(describe(path))
    with h5py.File(path, "r+") as file:
        del file["wavelength"]
    assert describe(path)["declared"] == ["_FillValue -1 ('image')", "scale_factor 0.0001 ('image')"]
    assert describe(envi(tmp_path))["declared"] == "nothing"
