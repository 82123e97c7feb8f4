"""Units of wavelengths: every reader, every word; what contradicts itself is refused with the numbers of the file."""

import h5py
import numpy as np
import pytest
import scipy.io
import tifffile
from PIL import Image

from synthgen.cubes.readers.describe import describe
from synthgen.cubes.readers.open import Hints, open_source
from synthgen.cubes.readers.source import given_hints
from synthgen.cubes.units import in_texts, name_unit, read_list, split_unit, unit_of
from synthgen.errors import ConfigError, InputError

NM = np.array([450.0, 500.0, 600.0, 900.0])
CUBE = np.random.default_rng(0).integers(1, 250, (4, 3, 5)).astype(np.uint8)
# A word and how numbers in it are made of nm.
WORDS = {
    "nm": lambda nm: nm, "Nanometers": lambda nm: nm, "nanometres": lambda nm: nm,
    "um": lambda nm: nm / 1e3, "\xb5m": lambda nm: nm / 1e3, "\u03bcm": lambda nm: nm / 1e3,
    "microns": lambda nm: nm / 1e3, "Micrometers": lambda nm: nm / 1e3,
    "Angstroms": lambda nm: nm * 10, "\xc5": lambda nm: nm * 10, "mm": lambda nm: nm / 1e6, "m": lambda nm: nm / 1e9,
    "cm-1": lambda nm: 1e7 / nm, "1/cm": lambda nm: 1e7 / nm, "Wavenumber": lambda nm: 1e7 / nm,
    "THz": lambda nm: 299_792.458 / nm, "GHz": lambda nm: 299_792_458 / nm,
}  # fmt: skip


def envi(folder, values, unit, **more):
    fields = {
        "samples": 5, "lines": 3, "bands": 4, "data type": 1, "interleave": "bsq",
        "wavelength": "{" + ", ".join(map(repr, map(float, values))) + "}", "wavelength units": unit, **more,
    }  # fmt: skip
    (folder / "a.hdr").write_text("ENVI\n" + "\n".join(f"{k} = {v}" for k, v in fields.items() if v), encoding="utf-8")
    (folder / "a.raw").write_bytes(CUBE.tobytes())
    return folder / "a.hdr"


def hdf5(folder, values, unit, name="scan/wavelength", key="units", where=None, **more):
    with h5py.File(folder / "a.h5", "w") as file:
        file["scan/cube"], file[name] = CUBE, values
        for other, value in more.items():
            file[other] = value
        if unit:
            file[where or name].attrs[key] = unit
    return folder / "a.h5"


def hdf5_attribute(folder, values, unit):
    with h5py.File(folder / "a.h5", "w") as file:
        file["cube"] = CUBE
        file["cube"].attrs["wavelengths"] = values
        if unit:
            file["cube"].attrs["wavelength_units"] = np.bytes_(unit.encode())
    return folder / "a.h5"


def matlab73(folder, values, unit):
    with h5py.File(folder / "a.mat", "w", userblock_size=512) as file:
        file["s/cube"], file["s/wavelength"] = CUBE.transpose(0, 2, 1), np.array([values]).T
        if unit:
            file["s/wavelength_units"] = np.array([[ord(c)] for c in unit], np.uint16)
            file["s/wavelength_units"].attrs["MATLAB_class"] = np.bytes_("char")
    with open(folder / "a.mat", "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM")
    return folder / "a.mat"


def matlab5(folder, values, unit, packed=False):
    units = {"wavelength_units": unit} if unit else {}
    scipy.io.savemat(folder / "a.mat", {"cube": CUBE, "wavelength": values, **units}, do_compression=packed)
    return folder / "a.mat"


def matlab5_struct(folder, values, unit):
    units = {"units": unit} if unit else {}
    inner = {"cube": CUBE.transpose(1, 2, 0), "wavelength": values, "who": {"eye": "OD"}, **units}
    scipy.io.savemat(folder / "a.mat", {"scan": inner}, do_compression=True)
    return folder / "a.mat"


def npz(folder, values, unit):
    units = {"wavelength_units": np.array(unit)} if unit else {}
    np.savez(folder / "a.npz", cube=CUBE, wavelength=values, **units)
    return folder / "a.npz"


def ome(folder, values, unit):
    units = {"EmissionWavelengthUnit": [unit] * 4} if unit else {}
    channel = {"EmissionWavelength": list(map(float, values)), **units}
    tifffile.imwrite(
        folder / "a.tif", CUBE, ome=True, photometric="minisblack", metadata={"axes": "CYX", "Channel": channel}
    )
    return folder / "a.tif"


def gdal(folder, values, unit):
    item = '<Item name="{}" sample="{}">{}</Item>'
    text = "".join(
        item.format("wavelength", k, repr(float(v))) + (item.format("wavelength_units", k, unit) if unit else "")
        for k, v in enumerate(values)
    )
    tag = (42112, "s", 0, f"<GDALMetadata>{text}</GDALMetadata>".encode(), True)
    tifffile.imwrite(folder / "a.tif", CUBE, photometric="minisblack", metadata=None, extratags=[tag])
    return folder / "a.tif"


def described(folder, values, unit):
    metadata = {"axes": "CYX", "wavelengths": list(map(float, values))} | ({"wavelength_units": unit} if unit else {})
    tifffile.imwrite(folder / "a.tif", CUBE, photometric="minisblack", metadata=metadata)
    return folder / "a.tif"


READERS = [envi, hdf5, hdf5_attribute, matlab73, matlab5, matlab5_struct, npz, ome, gdal, described]


def by_name(readers):
    return pytest.mark.parametrize("write", readers, ids=lambda write: write.__name__)


@pytest.mark.parametrize("word", WORDS)
@by_name(READERS)
def test_every_reader_takes_every_word(tmp_path, write, word):
    """Wavenumbers and frequencies fall as the wavelength grows; given as the numbers that stand in the file."""
    if word == "\u03bcm" and write is matlab5_struct:
        word = "um"  # MATLAB v5 by scipy keeps Latin-1
    given = WORDS[word](NM)
    source = open_source(write(tmp_path, given, word))
    assert source.wavelengths == pytest.approx(NM) and np.array_equal(source.read(0), CUBE)
    assert describe(source.path)["wavelengths_nm"] == pytest.approx(NM)


@pytest.mark.parametrize("word", ["um", "Angstrom", "cm-1"])
@by_name(READERS)
def test_bands_in_falling_order_are_sorted_with_their_wavelengths(tmp_path, write, word):
    given = WORDS.get(word, WORDS["Angstroms"])(NM)[::-1]
    source = open_source(write(tmp_path, given, word))
    assert source.wavelengths == pytest.approx(NM) and source.order.tolist() == [3, 2, 1, 0]
    assert np.array_equal(source.read(0), CUBE[::-1])


@pytest.mark.parametrize(
    ("given", "unit", "message"),
    [
        (NM / 1e3, "nm", r"found 0\.45 to 0\.9 'nm', which is 0\.45 to 0\.9 nm"),
        (NM, "um", r"found 450 to 900 'um', which is 450000 to 900000 nm"),
        (NM * 10, "Nanometers", "found 4500 to 9000 'Nanometers'"),
        (NM, "Angstrom", "which is 45 to 90 nm; expected 200 to 3000 nm"),
        (np.arange(1.0, 5), "nm", "found 1 to 4 'nm'"),
        (np.arange(1.0, 5), "index", "wavelengths absent; found band numbers, 1 to 4 'index'"),
        (np.arange(1.0, 5), None, "wavelengths absent; found band numbers, 1 to 4 without a unit"),
        (np.arange(4.0), None, "wavelengths absent; found band numbers, 0 to 3"),
        (np.arange(4.0, 0, -1), None, "wavelengths absent; found band numbers, 4 to 1"),
        (np.arange(1.0, 5), "Unknown", "wavelengths absent; found band numbers"),
        (
            NM * 10,
            None,
            r"determined from their size; found 4500 to 9000; .*Angstrom \(that is 450 to 900 nm\)",
        ),
        (NM, "counts", "unit of the wavelengths is not known; found 450 to 900 'counts'"),
        (NM[:2], "nm", "wrong number"),
        (np.array([450, np.nan, 600, 900]), "nm", "not positive numbers; found nan among"),
    ],
)
@by_name([envi, hdf5, matlab73, matlab5, npz, gdal, described])
def test_contradictions_are_refused_with_the_numbers(tmp_path, write, given, unit, message):
    if given.size == 2 and write is gdal:
        pytest.skip("an item per band")
    if np.isnan(given).any() and write in (envi, gdal, described):
        message = "absent|damaged|not positive"  # not a number in the text
    with pytest.raises(InputError, match=message):
        open_source(write(tmp_path, given, unit))
    assert open_source(write(tmp_path, given, unit), Hints(wavelengths=tuple(NM))).wavelengths == tuple(NM)


@by_name(READERS)
def test_a_unit_that_is_not_stated_is_given_by_the_size_or_by_the_user(tmp_path, write):
    source = open_source(write(tmp_path, NM, None))
    assert source.wavelengths == pytest.approx(NM) and "unit not stated" in source.wavelengths_from and not source.notes
    source = open_source(write(tmp_path, NM / 1e3, None))
    assert source.wavelengths == pytest.approx(NM) and "micrometres by their size" in source.wavelengths_from
    assert any("0.45 to 0.9 were taken for micrometres" in note for note in source.notes)
    source = open_source(write(tmp_path, NM * 10, None), given_hints(unit="Angstrom"))
    assert source.wavelengths == pytest.approx(NM) and "Angstrom as given" in source.wavelengths_from
    assert open_source(write(tmp_path, NM / 1e3, "nm"), given_hints(unit="um")).wavelengths == pytest.approx(NM)
    assert open_source(write(tmp_path, NM / 50, "um"), given_hints(unit="um")).wavelengths == pytest.approx(NM * 20)


@pytest.mark.parametrize("name", ["wavelength_um", "Wavelength (um)", "bands_um", "lambda_um", "Center_Wavelengths_um"])
def test_the_unit_in_a_name(tmp_path, name):
    assert open_source(hdf5(tmp_path, NM / 1e3, None, name=name)).wavelengths == pytest.approx(NM)
    with pytest.raises(InputError, match=r"two units .* found 0\.45 to 0\.9 in 'nm' and 'um'"):
        open_source(hdf5(tmp_path, NM / 1e3, "nm", name=name))


@pytest.mark.parametrize("key", ["units", "Units", "unit", "UNIT", "wavelength_units"])
def test_where_hdf5_keeps_the_unit(tmp_path, key):
    for where in (None, "scan", "/")[: 3 if key == "wavelength_units" else 1]:
        path = hdf5(tmp_path, NM / 1e3, "microns", key=key, where=where)
        assert open_source(path).wavelengths_from == "file, microns"
    path = hdf5(tmp_path, NM / 1e3, None, **{f"scan/{key}": "microns"})
    assert open_source(path).wavelengths == pytest.approx(NM)
    assert open_source(hdf5(tmp_path, NM, "nm", **{"scan/units": "counts"})).wavelengths == pytest.approx(NM)


def test_a_damaged_text_beside_the_wavelengths_is_not_read(tmp_path):
    path = hdf5(tmp_path, NM, "nanometers")
    data = bytearray(path.read_bytes())
    at = data.index(b"nanometers") - 16  # the object of the heap: index, references, its size, its bytes
    data[at + 8 : at + 16] = (0).to_bytes(8, "little")
    data[at : at + 2] = (0).to_bytes(2, "little")
    path.write_bytes(data)
    assert open_source(path).wavelengths_from == "file, unit not stated"


@pytest.mark.parametrize(("width", "message"), [(5.0, r"fwhm 5 beside wavelengths 0\.45 to 0\.9"), (0.005, None)])
def test_widths_in_another_unit(tmp_path, width, message):
    for write in (envi, hdf5):
        more = {"fwhm": "{" + ", ".join([str(width)] * 4) + "}"} if write is envi else {"scan/fwhm": [width] * 4}
        for unit in ("um", None):
            path = write(tmp_path, NM / 1e3, unit, **more)
            if message is None:
                assert open_source(path).wavelengths == pytest.approx(NM)
                continue
            with pytest.raises(InputError, match=message):
                open_source(path)
    path = envi(tmp_path, NM, "nm", fwhm="{0.005, 0.005, 0.005, 0.005}")
    with pytest.raises(InputError, match=r"fwhm 0\.005 beside wavelengths 450 to 900 'nm'"):
        open_source(path)


@pytest.mark.parametrize("form", ["{}um", "{} um", "{}_\xb5m", "{}micron", "{}-microns"])
def test_units_in_the_names_of_pictures(tmp_path, form):
    for nm, plane in zip(NM, CUBE, strict=True):
        Image.fromarray(plane).save(tmp_path / f"P1_{form.format(nm / 1e3)}.png")
    source = open_source(tmp_path)
    assert source.wavelengths == pytest.approx(NM) and np.array_equal(source.read(0), CUBE)
    (tmp_path / f"P1_{form.format(0.5)}.png").rename(tmp_path / "P1_500nm.png")  # each its own
    assert open_source(tmp_path).wavelengths == pytest.approx(NM)


@pytest.mark.parametrize("form", ["{}nm", "IMG_{:04}"])
def test_numbers_of_pictures_are_no_wavelengths(tmp_path, form):
    numbers = range(1, 5) if "nm" in form else range(451, 455)
    for number, plane in zip(numbers, CUBE, strict=True):
        Image.fromarray(plane).save(tmp_path / f"{form.format(number)}.png")
    with pytest.raises(InputError, match="found 1 to 4 'nm'" if "nm" in form else "wavelengths absent"):
        open_source(tmp_path)
    assert np.array_equal(open_source(tmp_path, Hints(wavelengths=tuple(NM))).read(0), CUBE)


def test_texts_with_their_wavelength():
    texts = ["450 nm 500 ms", "1: 0.5 um (BP20)", "600 NM", "band 9 900nm"]
    assert in_texts(texts, "labels").values == pytest.approx(NM)
    assert in_texts(["Band 201", "Band 202", "Band 203"], "labels") is None, "a counter"
    assert in_texts(["a 450", "a 480", "a 510"], "labels").values.tolist() == [450, 480, 510]


@pytest.mark.parametrize("wavelengths", ["450,500,600,900", "0.45 0.5 0.6 0.9 um", "900,600,500,450nm", "4500:4500:1A"])
def test_wavelengths_as_a_user_tells_them(tmp_path, wavelengths):
    np.save(tmp_path / "a.npy", CUBE)
    hints = given_hints(wavelengths=wavelengths)
    if wavelengths.endswith("A"):
        assert hints.wavelengths == (450.0,)
        return
    source = open_source(tmp_path / "a.npy", hints)
    falling = wavelengths.startswith("900")
    assert source.wavelengths == pytest.approx(NM)
    assert np.array_equal(source.read(0), CUBE[::-1] if falling else CUBE)


def test_wavelengths_that_a_user_must_not_tell():
    for given in ("0.45,0.5", (0.45, 0.9), (4500.0, 9000.0), "1:4:1"):
        with pytest.raises(ConfigError, match="not plausible in nm"):
            given_hints(wavelengths=given)
    assert given_hints(wavelengths=(8000.0, 9000.0), unit="nm").wavelengths == (8000, 9000)
    for given in ("450,500,480", "450,450"):
        with pytest.raises(InputError, match="do not increase"):
            given_hints(wavelengths=given)
    with pytest.raises(ConfigError, match="given twice"):
        given_hints(wavelengths="450,500nm", unit="um")
    with pytest.raises(ConfigError, match="names no unit"):
        given_hints(unit="index")


def test_words_and_lists():
    for word in ("Wavelength (nm)", "nanometers [nm]", " NM ", "wavelength in nm"):
        assert unit_of(word) == "nm"
    for word in ("\xc2\xb5m", "\u212b", "cm^{-1}", "cm\u207b\xb9", "per cm"):
        assert unit_of(word) is not None, word
    assert unit_of("furlong") is None and unit_of("none") == ""
    assert name_unit("Wavelength (nm)") == ("wavelength", "nm") and name_unit("lambda") == ("lambda", "")
    for text in ("450 500", "450;500", "450,\n500", "4.5D+02, 5.0D+02", "{450, 500,}", "450.00 , 500."):
        assert read_list(text)[0].tolist() == [450, 500]
    assert read_list("450 nm, 500 nm")[1] == "nm"
    for text in ("", "a, b", "450 nm, 0.5 um", "450 OD, 500 OD"):
        assert read_list(text) is None
    assert split_unit("12000:20000:500 1/cm") == ("12000:20000:500", "cm-1")
    assert split_unit("1e3,2e3") == ("1e3,2e3", None)
