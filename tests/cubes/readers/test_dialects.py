"""Dialects of raw headers, endings of raw files, packed ones; arrays line by line; structs; previews among pictures."""

import gzip

import h5py
import numpy as np
import pytest
import scipy.io
import tifffile
from PIL import Image

from synthgen.cubes.ingest.run import ingest
from synthgen.cubes.readers.describe import describe
from synthgen.cubes.readers.open import Hints, find_sources, open_source
from synthgen.errors import InputError

NM = (450.0, 500.0, 600.0, 900.0)
CUBE = np.random.default_rng(0).integers(1, 4000, (4, 3, 5)).astype(np.uint16)
ORDERS = {"bsq": "CHW", "bil": "HCW", "bip": "HWC"}
GIVEN = Hints(wavelengths=NM)
ENVI = "ENVI\nsamples = 5\nlines = 3\nbands = 4\ndata type = 12\ninterleave = bsq\nwavelength units = nm\n"
ENVI += "wavelength = {450, 500, 600, 900}\n"


def stored(layout="bsq", dtype="<u2"):
    return np.ascontiguousarray(CUBE.transpose(["CHW".index(a) for a in ORDERS[layout]])).astype(dtype).tobytes()


def pair(folder, header, raw, names=("a.hdr", "a.raw")):
    (folder / names[0]).write_text(header)
    (folder / names[1]).write_bytes(raw)
    return folder / names[0]


@pytest.mark.parametrize("layout", ORDERS)
@pytest.mark.parametrize(
    ("kind", "dtype"),
    [("", "<u2"), ("SIGNEDINT", "<i2"), ("FLOAT", "<f4"), ("UNSIGNEDINT", ">u4"), ("FLOAT", ">f8")],
)
def test_esri(tmp_path, layout, kind, dtype):
    dtype = np.dtype(dtype)
    lines = [
        f"BYTEORDER {'M' if dtype.str[0] == '>' else 'I'}",
        f"LAYOUT {layout.upper()}",
        "NROWS 3",
        "NCOLS 5",
        "NBANDS 4",
        f"NBITS {8 * dtype.itemsize}",
        f"PIXELTYPE {kind}" * bool(kind),
        "SKIPBYTES 0",
        "ULXMAP 0.5",
        "XDIM 1",
        f"BANDROWBYTES {5 * dtype.itemsize}" * (layout == "bil"),
        f"TOTALROWBYTES {20 * dtype.itemsize}" * (layout == "bil"),
    ]
    text = "\n".join(line for line in lines if line)
    path = pair(tmp_path, text, stored(layout, dtype), ("a.hdr", f"a.{layout}"))
    with pytest.raises(InputError, match="wavelengths absent"):
        open_source(path)
    for named in (path, tmp_path / f"a.{layout}"):
        source = open_source(named, GIVEN)
        assert source.format == f"ESRI {layout}" and np.array_equal(source.read(0), CUBE)
    assert find_sources(tmp_path) == [path] and describe(path)["kind"] == "ESRI image"
    path.write_text(text.lower().replace(" ", "   "))
    assert np.array_equal(open_source(path, GIVEN).read(0), CUBE)


@pytest.mark.parametrize("bits", [12, 16])
def test_psi(tmp_path, bits):
    text = f"BYTEORDER I\nLAYOUT BIL\nNROWS 3\nNCOLS 5\nNBANDS 4\nNBITS {bits}\nBANDROWBYTES 10\nTOTALROWBYTES 40\n"
    text += "WAVELENGTHS\n" + "\n".join(f"{nm:.3f}" for nm in NM) + "\nWAVELENGTHS_END\n"
    source = open_source(pair(tmp_path, text, stored("bil"), ("a.hdr", "a.bil")))
    assert source.wavelengths == NM and source.format == "PSI bil" and np.array_equal(source.read(0), CUBE)
    assert len(source.notes) == (bits == 12)
    path = pair(tmp_path, text.replace("500.000\n", ""), stored("bil"), ("a.hdr", "a.bil"))
    with pytest.raises(
        InputError, match=r"wrong number of wavelengths; found 3 \(450 to 900 .* PSI header\); expected 4"
    ):
        open_source(path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("BANDROWBYTES 10", "BANDROWBYTES 12", "'BANDROWBYTES'; found 12; expected 10"),
        ("NBITS 16", "NBITS 1", "type of numbers"),
        ("NBITS 16", "NBITS 16\nPIXELTYPE FLOAT", "found NBITS 16, PIXELTYPE FLOAT"),
        ("NROWS 3", "NROWS three", "'NROWS' is no whole number; found three"),
        ("BYTEORDER I", "BYTEORDER X", "byte order"),
        ("LAYOUT BIL", "LAYOUT BXL", "interleave"),
        ("NBITS 16", "NBITS 16\nSKIPBYTES 4", "shorter than its header says"),
    ],
)
def test_what_an_esri_header_must_not_say(tmp_path, old, new, message):
    text = "BYTEORDER I\nLAYOUT BIL\nNROWS 3\nNCOLS 5\nNBANDS 4\nNBITS 16\nBANDROWBYTES 10\n"
    with pytest.raises(InputError, match=message):
        open_source(pair(tmp_path, text.replace(old, new), stored("bil")), GIVEN)


def test_a_header_without_byte_order_is_little_endian_and_says_so(tmp_path):
    source = open_source(pair(tmp_path, ENVI, stored()))
    assert np.array_equal(source.read(0), CUBE) and "little endian was assumed" in source.notes[0]
    assert describe(source.path)["notes"] == list(source.notes)
    assert not open_source(pair(tmp_path, ENVI + "byte order = 0\n", stored())).notes


@pytest.mark.parametrize(
    "first", ["envi\n", "\n\nENVI\n", "; made by X\nENVI\n", "\ufeffENVI \t\n", "ENVI\r\n", "utf-16", "latin"]
)
def test_how_headers_begin(tmp_path, first):
    path = pair(tmp_path, ENVI, stored())
    text = ENVI.replace("ENVI\n", first) if first.endswith("\n") else ENVI
    coding = {"utf-16": "utf-16", "latin": "latin-1"}.get(first, "utf-8")
    path.write_bytes((text + "description = {M\xfcller}\n").encode(coding))
    assert np.array_equal(open_source(path).read(0), CUBE) and find_sources(tmp_path) == [path]


@pytest.mark.parametrize(
    "marks", ["{1, 0, 1, 1}", "{1.0, 0.0, 1.0, 1.0}", "{1 0 1 1}", "{1., 0., 1., 1.}", "{\n1\n0\n1\n1}"]
)
def test_bad_bands_in_every_writing(tmp_path, marks):
    source = open_source(pair(tmp_path, ENVI + f"byte order = 0\nbbl = {marks}\n", stored()))
    assert source.notes == ("the header marks bands as bad, which are kept: 2",)
    source = open_source(pair(tmp_path, ENVI + "byte order = 0\nbbl = {1, 0, 1}\n", stored()))
    assert source.notes == ("the header's list of bad bands (bbl) was not used: 3 marks for 4 bands",)


def test_a_packed_raw_file(tmp_path):
    header = ENVI + "byte order = 0\nfile compression = 1\n"
    source = open_source(pair(tmp_path, header, gzip.compress(stored())))
    assert np.array_equal(source.read(0), CUBE) and not source.notes
    assert np.array_equal(open_source(pair(tmp_path, header, stored())).read(0), CUBE), "stated, but not packed"
    parts = gzip.compress(stored()[:50]) + gzip.compress(stored()[50:])
    assert np.array_equal(open_source(pair(tmp_path, header, parts)).read(0), CUBE)
    for raw, message in (
        (gzip.compress(stored()[:-2]), "shorter than its header says; found 118 bytes unpacked"),
        (gzip.compress(stored() * 2), "longer than its header says"),
        (gzip.compress(stored())[:-20], "shorter"),
        (b"BZh9" + stored()[:60], "file compression cannot be read"),
    ):
        with pytest.raises(InputError, match=message):
            open_source(pair(tmp_path, header, raw)).read(0)
    plain = header.replace("file compression = 1\n", "")
    for path in tmp_path.iterdir():
        path.unlink()
    path = pair(tmp_path, plain, gzip.compress(stored()), ("a.hdr", "a.raw.gz"))
    assert np.array_equal(open_source(path).read(0), CUBE) and np.array_equal(
        open_source(tmp_path / "a.raw.gz").read(0), CUBE
    )


@pytest.mark.parametrize(
    ("header", "raw"),
    [
        *(("a.hdr", f"a{end}") for end in (".rfl", ".RAD", ".Ref", ".spe", ".rAw", ".tiff", ".anything", "")),
        ("scan.cube.hdr", "scan.cube.raw"),
        ("scan.cube.hdr", "scan.cube"),
        ("a.rfl.hdr", "a.rfl"),
        ("a.bin.Hdr", "a.bin.RAW"),
    ],
)
def test_headers_and_raw_files_of_every_ending_find_each_other(tmp_path, header, raw):
    pair(tmp_path, ENVI, stored(), (header, raw))
    (tmp_path / "a.txt").write_text("notes")
    Image.fromarray(CUBE[0].astype(np.uint8)).save(tmp_path / "a.png")
    for name in (header, raw):
        assert np.array_equal(open_source(tmp_path / name).read(0), CUBE)
    assert find_sources(tmp_path) == [tmp_path / header]


def reversed_lines(folder, kind, hints_axes=None):
    """A cube kept as rows, bands, columns with its bands from long to short."""
    array, nm = CUBE[::-1].transpose(1, 0, 2), NM[::-1]
    if kind == "h5":
        with h5py.File(folder / "a.h5", "w") as file:
            file["HDFEOS/SWATHS/PRS/VNIR"], file["HDFEOS/SWATHS/PRS/wavelength"] = array, nm
    elif kind == "mat":
        scipy.io.savemat(folder / "a.mat", {"cube": array, "wavelength": nm})
    elif kind == "npz":
        np.savez(folder / "a.npz", cube=array, wavelength=nm)
    else:
        tifffile.imwrite(folder / "a.tif", array, photometric="minisblack", metadata={"wavelengths_nm": list(nm)})
    return next(folder.iterdir())


@pytest.mark.parametrize("kind", ["h5", "mat", "npz", "tif"])
def test_cubes_kept_line_by_line_are_found_by_their_wavelengths(tmp_path, kind):
    source = open_source(reversed_lines(tmp_path, kind))
    assert source.wavelengths == NM and source.layout.axes == "HCW" and "sorted" in source.wavelengths_from
    assert np.array_equal(source.read(0), CUBE) and source.order.tolist() == [3, 2, 1, 0]


def test_the_order_of_axes_that_cannot_be_determined_names_every_one(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["cube"], file["wavelength"] = np.zeros((4, 4, 4)), NM
    with pytest.raises(InputError, match="Give --axes CHW or HWC or HCW"):
        open_source(tmp_path / "a.h5")
    assert open_source(tmp_path / "a.h5", Hints(axes="HCW")).layout.axes == "HCW"


def structs(folder, version, several=False):
    """A struct `data` with the cube, and in it another one with wavelengths; or two with a cube each."""
    cube = CUBE.transpose(1, 2, 0).astype(np.float64)
    path = folder / "a.mat"
    if version == "7.3":
        with h5py.File(path, "w", userblock_size=512) as file:
            file["data/cube"], file["data/info/wavelength"] = cube.T, np.array([NM]).T / 1e3
            file["data/info/wavelength"].attrs["MATLAB_class"] = np.bytes_("double")
        with open(path, "r+b") as file:
            file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM")
        return path
    info = {"wavelength": np.array(NM) / 1e3, "empty": np.zeros((0, 0)), "names": np.array(["a", "b"], object)}
    data = {"note": "eye of P1", "cube": cube, "info": info, "odd": np.ones(3) * 1j}
    if several:
        data = np.array([(cube,), (cube + 1,)], dtype=[("cube", object)]).reshape(1, 2)
    variables = (
        {"first": np.arange(6.0), "data": data, "wavelength": np.array(NM)} if several else {"data": data, "z": 1}
    )
    scipy.io.savemat(path, variables, do_compression=version == "packed")
    return path


@pytest.mark.parametrize("version", ["plain", "packed", "7.3"])
def test_structs_of_matlab(tmp_path, version):
    source = open_source(structs(tmp_path, version))
    assert source.wavelengths == pytest.approx(NM) and source.variable.replace("/", ".") == "data.cube"
    assert np.array_equal(source.read(0), CUBE) and source.read(0).dtype == np.float64
    assert describe(source.path)["wavelengths_nm"] == pytest.approx(NM)


@pytest.mark.parametrize("version", ["plain", "packed"])
def test_arrays_of_structs(tmp_path, version):
    path = structs(tmp_path, version, several=True)
    with pytest.raises(
        InputError, match=r"several arrays could hold the cubes; found data\(1\)\.cube, data\(2\)\.cube"
    ):
        open_source(path)
    assert np.array_equal(open_source(path, Hints(variable="data(2).cube")).read(0), CUBE + 1)


@pytest.mark.parametrize("version", ["plain", "packed"])
def test_a_damaged_struct_ends_in_one_line(tmp_path, version):
    path = structs(tmp_path, version)
    whole, random = path.read_bytes(), np.random.default_rng(0)
    for _ in range(60):
        data = bytearray(whole)
        for at in random.integers(128, len(data), 3):
            data[at] = random.integers(256)
        path.write_bytes(data)
        try:
            open_source(path, Hints(variable="data.cube", wavelengths=NM)).read(0)
        except InputError:
            continue
    for length in range(130, len(whole), 97):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError):
            open_source(path).read(0)


@pytest.mark.parametrize("preview", ["P1_RGB.bmp", "P1_RGB.png", "P1_RGB.jpg", "P1_RGB.tif", "stack.tif"])
def test_a_picture_of_several_bands_among_single_ones_is_left_out_and_reported(tmp_path, preview):
    """As the CAVE data set has them: numbered pictures and a preview in colour."""
    folder = tmp_path / "P1_ms"
    folder.mkdir()
    big = CUBE.repeat(8, 1).repeat(8, 2)
    for k, plane in enumerate(big, 1):
        Image.fromarray(plane).save(folder / f"P1_ms_{k:02}.png")
    colours = big[:3].transpose(1, 2, 0).astype(np.uint8)
    if preview == "stack.tif":
        tifffile.imwrite(folder / preview, big.astype(np.uint8), photometric="minisblack")
    elif preview.endswith("tif"):
        tifffile.imwrite(folder / preview, colours, photometric="rgb")
    else:
        Image.fromarray(colours).save(folder / preview)
    (folder / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    if preview == "stack.tif":  # a cube of its own, rather than a preview
        assert find_sources(folder) == [folder / preview]
        return
    source = open_source(folder, GIVEN)
    assert np.array_equal(source.read(0), big)
    assert source.notes == (f"P1_ms: left out as no band of the cube: {preview} (3 bands)",)
    assert find_sources(folder) == [folder] and find_sources(tmp_path) == [folder]
    given = {"source_wavelengths": NM, "each_file_a_patient": True, "fov": "full", "scale": 4095, "max_saturation": 1}
    report = ingest([tmp_path], tmp_path / "o.h5", **given)
    assert report.kept == 1 and any(preview in line for line in report.lines())


def test_bands_in_colour_are_refused_not_left_out(tmp_path):
    for nm, plane in zip(NM, CUBE.astype(np.uint8), strict=True):
        Image.fromarray(plane).save(tmp_path / f"{nm:g}nm.png")
    Image.new("RGB", (5, 3)).save(tmp_path / "500nm.png")
    with pytest.raises(InputError, match=r"500nm.png: is no picture of one band; found mode RGB"):
        open_source(tmp_path)
    for k in range(4):
        Image.new("RGB", (5, 3)).save(tmp_path / f"{NM[k]:g}nm.png")
    with pytest.raises(InputError, match="is no picture of one band"):
        open_source(tmp_path)
