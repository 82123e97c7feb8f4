"""ENVI headers as cameras write them, and as they must not be believed."""

import numpy as np
import pytest

from synthgen.cubes.readers.describe import describe, render
from synthgen.cubes.readers.open import Hints, find_sources, open_source
from synthgen.errors import InputError
from tests.formats import export_cube

NM = (450.0, 500.0, 550.0)
CUBE = np.random.default_rng(0).integers(1, 4000, (3, 4, 5)).astype(np.uint16)
GOOD = {
    "samples": "5",
    "lines": "4",
    "bands": "3",
    "header offset": "0",
    "data type": "12",
    "interleave": "bsq",
    "byte order": "0",
    "wavelength": "{450, 500, 550}",
    "wavelength units": "Nanometers",
}


def pair(folder, raw=None, encoding="utf-8", **fields):
    """An ENVI pair; a field given as None is left out."""
    stated = GOOD | {key.replace("_", " "): value for key, value in fields.items()}
    lines = ["ENVI", *(f"{key} = {value}" for key, value in stated.items() if value is not None)]
    (folder / "a.hdr").write_bytes("\n".join(lines).encode(encoding))
    (folder / "a.raw").write_bytes(CUBE.tobytes() if raw is None else raw)
    return folder / "a.hdr"


def test_keys_in_any_case_lists_over_lines_comments_and_latin_1(tmp_path):
    text = (
        "ENVI\r\ndescription = {\r\n  taken at 5 \xb5m, = odd }\r\n\r\n; a comment = 3\r\nSamples = 5\r\nLINES=4\r\n"
        "Bands   = 3\r\nheader offset = 0\r\nData Type = 12\r\nInterleave = BSQ\r\nbyte order = 0\r\n"
        "Wavelength = {\r\n 0.45,\r\n ; in between\r\n 0.5,\r\n 0.55\r\n}\r\nwavelength units = \xb5m\r\n"
        "default bands = {3, 2, 1}\r\n"
    )
    path = pair(tmp_path)
    path.write_bytes(text.encode("latin-1"))
    source = open_source(path)
    assert source.wavelengths == pytest.approx(NM) and np.array_equal(source.read(0), CUBE)


@pytest.mark.parametrize(
    ("unit", "values"),
    [
        ("Nanometers", NM),
        ("nm", NM),
        ("Micrometers", np.array(NM) / 1e3),
        ("um", np.array(NM) / 1e3),
        ("Unknown", NM),
        (None, np.array(NM) / 1e3),
        ("Angstroms", np.array(NM) * 10),
        ("Meters", np.array(NM) / 1e9),
    ],
)
def test_units(tmp_path, unit, values):
    listed = "{" + ", ".join(repr(float(v)) for v in values) + "}"
    assert open_source(pair(tmp_path, wavelength=listed, wavelength_units=unit)).wavelengths == pytest.approx(NM)


def test_wavelengths_that_are_no_lengths_or_absent_have_to_be_given(tmp_path):
    for fields in ({"wavelength": None}, {"wavelength": "{a, b, c}"}, {"wavelength_units": "Index"}):
        path = pair(tmp_path, **fields)
        with pytest.raises(InputError, match="wavelengths absent"):
            open_source(path)
        assert open_source(path, Hints(wavelengths=NM)).wavelengths_from == "given"
    with pytest.raises(InputError, match="wrong number of wavelengths"):
        open_source(pair(tmp_path, wavelength="{450, 500}"))


def test_bands_come_in_order_of_wavelength(tmp_path):
    source = open_source(pair(tmp_path, wavelength="{550, 450, 500}"))
    assert source.wavelengths == NM and "sorted" in source.wavelengths_from
    assert np.array_equal(source.read(0), CUBE[[1, 2, 0]]) and source.order.tolist() == [1, 2, 0]
    assert open_source(pair(tmp_path)).order is None
    with pytest.raises(InputError, match="two bands have the same wavelength; found 450 nm at bands 1 and 3"):
        open_source(pair(tmp_path, wavelength="{450, 500, 450}"))


def test_offset_scale_and_ignored_pixels(tmp_path):
    values = CUBE.copy()
    values[1, 2, 3] = 9999
    fields = {"header_offset": "7", "reflectance_scale_factor": "10000.0", "data_ignore_value": "9999"}
    source = open_source(pair(tmp_path, raw=b"1234567" + values.tobytes() + b"more", **fields))
    cube = source.declared.values(source.read(0))
    assert source.full_scale == 10000 and source.ignored == 9999 and source.dtype == np.uint16
    assert np.array_equal(source.read(0), values), "as it is stored"
    assert np.argwhere(np.isnan(cube)).tolist() == [[1, 2, 3]], "missing in its own band only"
    assert np.array_equal(cube[~np.isnan(cube)], CUBE[~np.isnan(cube)])
    assert source.notes == ("the raw file goes on for 4 bytes after the image, which are left out",)
    nan = CUBE.astype("<f4")
    nan[0, 0, 0] = np.nan
    source = open_source(pair(tmp_path, raw=nan.tobytes(), data_type="4", data_ignore_value="nan"))
    cube = source.declared.values(source.read(0))
    assert np.array_equal(cube, nan, equal_nan=True)


def test_wide_integers_beside_ignored_ones_are_not_rounded(tmp_path):
    wide = CUBE.astype("<i4") + 2**30
    wide[0, 0, 0] = -1
    source = open_source(pair(tmp_path, raw=wide.tobytes(), data_type="3", data_ignore_value="-1"))
    cube = source.declared.values(source.read(0))
    assert np.isnan(cube[0, 0, 0]) and np.array_equal(cube.ravel()[1:], wide.ravel()[1:])


def test_a_raw_file_of_another_size_than_its_header_says(tmp_path):
    whole = CUBE.tobytes()
    for extra in (0, 1, 9):
        source = open_source(pair(tmp_path, raw=whole + bytes(extra)))
        assert np.array_equal(source.read(0), CUBE) and len(source.notes) == bool(extra)
    for raw, word in ((whole[:-1], "shorter"), (whole + bytes(10), "longer"), (whole * 2, "longer")):
        words = f"{word} than its header says; found {len(raw)} bytes; expected 120 bytes for 3 bands x 4 H x 5 W"
        with pytest.raises(InputError, match=words):
            open_source(pair(tmp_path, raw=raw))
        with pytest.raises(InputError, match=words):
            describe(pair(tmp_path, raw=raw))


@pytest.mark.parametrize(
    ("fields", "finding"),
    [
        ({"samples": None}, "incomplete"),
        ({"samples": "five"}, "no whole number"),
        ({"samples": "{5}"}, "no whole number"),
        ({"samples": "-5"}, "absurd"),
        ({"lines": "0"}, "absurd"),
        ({"bands": "99999999999999999999"}, "absurd"),
        ({"bands": "9" * 5000}, "no whole number"),
        ({"lines": "4000000"}, "shorter than its header says"),
        ({"header offset": "-1"}, "absurd"),
        ({"header offset": "1"}, "shorter than its header says"),
        ({"data type": "6"}, "complex"),
        ({"data type": "7"}, "data type"),
        ({"data type": "uint16"}, "no whole number"),
        ({"interleave": "bpi"}, "interleave"),
        ({"interleave": None}, "interleave"),
        ({"byte order": "2"}, "byte order"),
        ({"file type": "ENVI Spectral Library"}, "spectral library"),
        ({"major frame offsets": "{10, 20}"}, "frame offsets"),
        ({"wavelength": "{450, 500"}, "cannot be read"),
    ],
)
def test_what_a_header_must_not_say(tmp_path, fields, finding):
    path = pair(tmp_path, **fields)
    with pytest.raises(InputError, match=finding):
        open_source(path)
    with pytest.raises(InputError, match=finding):
        describe(path)


def test_a_header_without_interleave_or_single_bytes_without_order(tmp_path):
    assert np.array_equal(open_source(pair(tmp_path, interleave=None), Hints(axes="CHW")).read(0), CUBE)
    small = CUBE.astype(np.uint8)
    path = pair(tmp_path, raw=small.tobytes(), data_type="1", byte_order=None)
    assert np.array_equal(open_source(path).read(0), small)


def test_absurdly_long_headers_are_refused_at_once(tmp_path):
    path = pair(tmp_path)
    for tail in (b"\n" * 30_000, b"x" * 5_000_000):
        path.write_bytes(b"ENVI\n" + tail)
        with pytest.raises(InputError, match="too long"):
            open_source(path)


@pytest.mark.parametrize(
    ("header", "raw"),
    [("a.hdr", "a"), ("a.hdr", "a.IMG"), ("a.dat.hdr", "a.dat"), ("a.HDR", "a.bsq"), ("a.v2.hdr", "a.v2.raw")],
)
def test_header_and_raw_find_each_other(tmp_path, header, raw):
    made = pair(tmp_path)
    (tmp_path / "a.raw").rename(tmp_path / raw)
    made.rename(tmp_path / header)
    for name in (header, raw):
        source = open_source(tmp_path / name)
        assert np.array_equal(source.read(0), CUBE) and source.path.name == name
    assert find_sources(tmp_path) == [tmp_path / header]


def test_only_the_raw_file_beside_the_header_is_opened(tmp_path, monkeypatch):
    elsewhere, here = tmp_path / "elsewhere", tmp_path / "here"
    elsewhere.mkdir(), here.mkdir()
    pair(elsewhere)
    path = pair(here)
    (here / "a.raw").unlink()
    monkeypatch.setenv("SPECTRAL_DATA", str(elsewhere))
    monkeypatch.chdir(elsewhere)
    with pytest.raises(InputError, match="without its raw file"):
        open_source(path)


def test_of_two_raw_files_the_one_that_fits(tmp_path):
    path = pair(tmp_path)
    (tmp_path / "a.dat").write_bytes(b"short")
    assert np.array_equal(open_source(path).read(0), CUBE)
    (tmp_path / "a.dat").write_bytes(CUBE.tobytes())
    with pytest.raises(InputError, match="several raw files"):
        open_source(path)


def test_a_raw_file_cut_after_it_was_opened_is_an_error(tmp_path):
    source = open_source(pair(tmp_path))
    (tmp_path / "a.raw").write_bytes(CUBE.tobytes()[:50])
    with pytest.raises(InputError, match="shorter"):
        source.read(0)


def test_bands_marked_as_bad_are_kept_and_named(tmp_path):
    path = pair(tmp_path, bbl="{1, 0, 1}")
    source = open_source(path)
    assert np.array_equal(source.read(0), CUBE) and source.notes == (
        "the header marks bands as bad, which are kept: 2",
    )
    assert describe(path)["bad bands"] == [2] and not open_source(pair(tmp_path)).notes


def test_info(tmp_path):
    path = export_cube(tmp_path / "a.hdr", CUBE, NM, "envi", interleave="bil", byte_order="big")
    for named in (path, tmp_path / "a.raw"):
        found = describe(named)
        assert found["kind"] == "ENVI image" and found["byte order"] == "big" and found["wavelengths_nm"] == list(NM)
        assert found["arrays"] == {"a.raw": ">u2 [4, 3, 5]"} and found["interleave"].startswith("bil")
        assert "Nanometers" in path.read_text() and "big" in render(found)
