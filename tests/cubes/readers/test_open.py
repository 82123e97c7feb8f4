"""Every foreign format gives back the cube that was written, in any order of axes."""

import h5py
import numpy as np
import pytest
import scipy.io

from synthgen.cubes.readers.open import Hints, open_source
from synthgen.errors import InputError

NM = tuple(range(450, 630, 30))
C, H, W = len(NM), 5, 8
CUBES = np.random.default_rng(0).integers(0, 4000, (3, C, H, W)).astype(np.uint16)
GIVEN = Hints(wavelengths=NM)


def mat73(path, **variables):
    """MATLAB v7.3: HDF5 behind a user block, arrays with their axes reversed."""
    with h5py.File(path, "w", userblock_size=512) as f:
        for name, value in variables.items():
            f[name] = np.asarray(value).T
    with open(path, "r+b") as f:
        f.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM")
    return path


def npy(path, array):
    np.save(path, array)
    return path


def check(source, cubes=CUBES, exact=True):
    assert source.layout.count == len(cubes) and source.wavelengths == NM
    for i, cube in enumerate(cubes):
        found = source.read(i)
        assert found.shape == (C, H, W) and np.array_equal(found, cube)


@pytest.mark.parametrize("order", ["CHW", "HWC"])
def test_numpy_and_hdf5_and_matlab_find_the_order_of_axes(tmp_path, order):
    array = CUBES[0].transpose(["CHW".index(a) for a in order])
    check(open_source(npy(tmp_path / "a.npy", array), GIVEN), CUBES[:1])
    check(open_source(npy(tmp_path / "f.npy", np.asfortranarray(array)), GIVEN), CUBES[:1])
    with h5py.File(tmp_path / "a.h5", "w") as f:
        f["data/image"], f["wavelength"] = array, np.array(NM)
    check(open_source(tmp_path / "a.h5"), CUBES[:1])
    for packed in (False, True):
        scipy.io.savemat(tmp_path / "a.mat", {"img": array, "Wavelengths": NM}, do_compression=packed)
        check(open_source(tmp_path / "a.mat"), CUBES[:1])
    check(open_source(mat73(tmp_path / "b.mat", img=array, wavelengths=[NM])), CUBES[:1])


def test_several_cubes_in_a_file(tmp_path):
    check(open_source(npy(tmp_path / "a.npy", CUBES), GIVEN))
    check(open_source(npy(tmp_path / "b.npy", CUBES.transpose(0, 2, 3, 1)), GIVEN))
    scipy.io.savemat(tmp_path / "a.mat", {"img": CUBES.transpose(2, 3, 1, 0)})
    check(open_source(tmp_path / "a.mat", GIVEN))
    check(open_source(mat73(tmp_path / "b.mat", img=CUBES.transpose(2, 3, 1, 0)), GIVEN))


@pytest.mark.parametrize("make", ["v5", "v7.3"])
def test_bands_by_pixels_in_matlab_order_with_selected_bands(tmp_path, make):
    original = np.arange(400, 400 + 30 * 12, 30.0)
    chosen = np.array([2, 3, 5, 7, 8, 11])
    variables = {
        "Y": CUBES[0].transpose(0, 2, 1).reshape(C, H * W),  # pixel = row + column * rows
        "SlectBands": chosen[:, None].astype(np.uint8),
        "nRow": [[H]],
        "nCol": [[W]],
        "maxValue": [[5000]],
        "A": np.random.default_rng(0).random((4, H * W)),
    }
    path = tmp_path / "a.mat"
    if make == "v5":
        scipy.io.savemat(path, variables)
    else:
        mat73(path, **variables)
    source = open_source(path, Hints(wavelengths=tuple(original)))
    assert source.wavelengths == tuple(original[chosen - 1]) and source.full_scale == 5000 and source.variable == "Y"
    assert np.array_equal(source.read(0), CUBES[0])
    check(open_source(path, GIVEN), CUBES[:1])  # one wavelength per band of the file does as well


def test_wavelengths_in_micrometres(tmp_path):
    scipy.io.savemat(tmp_path / "a.mat", {"img": CUBES[0], "wavelength": np.array(NM) / 1000})
    source = open_source(tmp_path / "a.mat")
    assert source.wavelengths == pytest.approx(NM) and "micrometres" in source.wavelengths_from


def test_given_wins_over_found(tmp_path):
    scipy.io.savemat(tmp_path / "a.mat", {"img": CUBES[0], "wavelengths": NM, "other": CUBES[1][:, :4, :4]})
    given = tuple(n + 5.0 for n in NM)
    source = open_source(tmp_path / "a.mat", Hints(variable="other", wavelengths=given))
    assert source.wavelengths == given and np.array_equal(source.read(0), CUBES[1][:, :4, :4])


@pytest.mark.parametrize(
    ("array", "hints", "finding"),
    [
        (CUBES[0], Hints(), "wavelengths absent"),
        (CUBES[0], Hints(wavelengths=NM[:3]), "wrong number of bands"),
        (CUBES[0][:, :, :6].transpose(1, 2, 0), GIVEN, None),
        (CUBES[0].reshape(-1), GIVEN, "no array that could hold cubes"),
        (np.zeros((C, 4, C)), GIVEN, "ambiguous"),
        (np.zeros((C, 4, 4), complex), GIVEN, "no array that could hold cubes"),
        (np.zeros((C, 0, 4)), GIVEN, "no array that could hold cubes"),
        (np.zeros((C, 4, 4)), Hints(wavelengths=NM, axes="CHWX"), "do not fit"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, array, hints, finding):
    path = npy(tmp_path / "a.npy", array)
    if finding is None:
        open_source(path, hints)
        return
    with pytest.raises(InputError, match=finding):
        open_source(path, hints)
    scipy.io.savemat(tmp_path / "a.mat", {"array": array})
    if array.ndim > 1 and "axes" not in finding:
        with pytest.raises(InputError, match=finding):
            open_source(tmp_path / "a.mat", hints)


def test_given_axes_settle_what_is_ambiguous(tmp_path):
    array = np.arange(C * 4 * C).reshape(C, 4, C)
    source = open_source(npy(tmp_path / "a.npy", array), Hints(wavelengths=NM, axes="HWC"))
    assert np.array_equal(source.read(0), array.transpose(2, 0, 1))


def test_two_arrays_alike_must_be_distinguished(tmp_path):
    scipy.io.savemat(tmp_path / "a.mat", {"one": CUBES[0], "two": CUBES[1]})
    with pytest.raises(InputError, match="--variable"):
        open_source(tmp_path / "a.mat", GIVEN)
    check(open_source(tmp_path / "a.mat", Hints(variable="two", wavelengths=NM)), CUBES[1:2])
    with pytest.raises(InputError, match="no array 'three'"):
        open_source(tmp_path / "a.mat", Hints(variable="three", wavelengths=NM))
