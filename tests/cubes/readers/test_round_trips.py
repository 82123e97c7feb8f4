"""A cube written in any format reads back bit for bit, and other programs read what we wrote."""

import numpy as np
import pytest
import tifffile
from spectral.io import envi

from synthgen.cubes.readers.open import Hints, open_source
from tests.formats import export_cube

NM = (450.0, 480.5, 510.0, 555.25, 600.0, 900.0)
RNG = np.random.default_rng(0)
TYPES = (np.uint16, np.float32)
FORMATS = ("tiff", "ome-tiff", "matlab5", "matlab7.3", "hdf5", "npz", "npy")


def a_cube(dtype):
    """[6, 5, 8] over the whole range of the type."""
    if np.dtype(dtype).kind == "f":
        return RNG.normal(0, 1, (6, 5, 8)).astype(dtype)
    info = np.iinfo(dtype)
    return RNG.integers(info.min, info.max, (6, 5, 8), dtype=dtype, endpoint=True)


def check(path, cube, hints=None):
    source = open_source(path, hints or Hints())
    found = source.read(0)
    assert found.dtype == cube.dtype and np.array_equal(found, cube)
    assert source.wavelengths == NM and source.layout.count == 1
    return source


@pytest.mark.parametrize("dtype", [*TYPES, np.uint8, np.int16, np.int32, np.uint32, np.float64, np.int64, np.uint64])
@pytest.mark.parametrize("byte_order", ["little", "big"])
@pytest.mark.parametrize("interleave", ["bsq", "bil", "bip"])
def test_envi(tmp_path, interleave, byte_order, dtype):
    cube = a_cube(dtype)
    path = export_cube(tmp_path / "a.hdr", cube, NM, "envi", interleave=interleave, byte_order=byte_order)
    source = check(path, cube)
    assert source.format == f"ENVI {interleave}" and source.byte_order in (byte_order, "none")
    check(tmp_path / "a.raw", cube)  # named by its raw file
    theirs = envi.open(str(path), str(tmp_path / "a.raw"))
    assert np.array_equal(np.asarray(theirs.load(dtype=dtype)).transpose(2, 0, 1), cube)
    assert tuple(theirs.bands.centers) == NM and theirs.bands.band_unit == "Nanometers"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.hdr", "a.raw"]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("form", FORMATS)
def test_one_file(tmp_path, form, dtype):
    cube = a_cube(dtype)
    path = export_cube(tmp_path / "a", cube, NM, form)  # no suffix: the content tells
    check(path, cube, Hints(wavelengths=NM) if form == "npy" else None)
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "zstd"])
@pytest.mark.parametrize("byte_order", ["little", "big"])
@pytest.mark.parametrize("form", ["tiff", "ome-tiff"])
@pytest.mark.parametrize("dtype", TYPES)
def test_tiff(tmp_path, dtype, form, byte_order, compression):
    cube = a_cube(dtype)
    path = export_cube(tmp_path / "a.tif", cube, NM, form, byte_order=byte_order, compression=compression)
    source = check(path, cube)
    assert source.byte_order == byte_order and source.layout.axes == "CHW"
    assert np.array_equal(tifffile.imread(path), cube)
    with tifffile.TiffFile(path) as file:
        assert len(file.pages) == len(NM)
        if form == "ome-tiff":
            channels = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]["Pixels"]["Channel"]
            assert tuple(c["EmissionWavelength"] for c in channels) == NM
        else:
            assert tuple(file.shaped_metadata[0]["wavelengths_nm"]) == NM


def test_matlab_sees_rows_columns_bands(tmp_path):
    import h5py
    import scipy.io

    cube = a_cube(np.uint16)
    seen = scipy.io.loadmat(export_cube(tmp_path / "a.mat", cube, NM, "matlab5"))
    assert np.array_equal(seen["cube"], cube.transpose(1, 2, 0)) and np.array_equal(seen["wavelengths"], [NM])
    with h5py.File(export_cube(tmp_path / "b.mat", cube, NM, "matlab7.3")) as file:
        assert np.array_equal(file["cube"][()].T, cube.transpose(1, 2, 0))  # HDF5 shows MATLAB's axes reversed
        assert file["cube"].attrs["MATLAB_class"] == b"uint16" and file.userblock_size == 512


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_pictures(tmp_path, dtype):
    cube = a_cube(dtype)
    source = check(export_cube(tmp_path / "eye", cube, NM, "pictures"), cube)
    assert source.wavelengths_from == "file names" and len(list((tmp_path / "eye").iterdir())) == len(NM)
