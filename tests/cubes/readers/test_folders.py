"""Folders: one picture per band, and which cubes a folder of files holds."""

import os
import struct
import zlib

import h5py
import numpy as np
import pytest
import scipy.io
import tifffile
from PIL import Image

from synthgen.cubes.readers.describe import describe
from synthgen.cubes.readers.open import Hints, find_sources, open_source
from synthgen.errors import InputError
from tests.formats import export_cube

NM = (450.0, 500.0, 550.0)
CUBE = np.random.default_rng(0).integers(0, 4000, (3, 4, 5)).astype(np.uint16)


def pictures(folder, names, cube=CUBE):
    folder.mkdir(parents=True, exist_ok=True)
    for name, plane in zip(names, cube, strict=True):
        if name.endswith(("tif", "tiff")):
            tifffile.imwrite(folder / name, plane)
        else:
            Image.fromarray(plane).save(folder / name)
    return folder


@pytest.mark.parametrize(
    "names",
    [
        ("eye_450nm.png", "eye_500nm.png", "eye_550nm.png"),
        ("eye_2024_450nm.png", "eye_2024_500 nm.png", "eye_2024_550NM.png"),
        ("band_450.tif", "band_500.tif", "band_550.tif"),
        ("450.png", "500.tif", "550.png"),
        ("p1001_450.0.png", "p1001_500.0.png", "p1001_550.0.png"),
    ],
)
def test_wavelengths_from_the_names(tmp_path, names):
    source = open_source(pictures(tmp_path / "eye", names))
    assert source.wavelengths == NM and source.wavelengths_from == "file names" and source.format == "picture per band"
    assert np.array_equal(source.read(0), CUBE) and source.read(0).dtype == np.uint16
    assert describe(tmp_path / "eye")["wavelengths_nm"] == list(NM)


def test_eight_bit_pictures_and_floats(tmp_path):
    small = CUBE.astype(np.uint8)
    assert np.array_equal(
        open_source(pictures(tmp_path / "a", ("450nm.png", "500nm.bmp", "550nm.png"), small)).read(0), small
    )
    floats = CUBE.astype(np.float32) / 4000
    assert np.array_equal(
        open_source(pictures(tmp_path / "b", ("450.tif", "500.tif", "550.tif"), floats)).read(0), floats
    )
    for name, plane in zip(("450.tif", "500.tif", "550.tif"), CUBE, strict=True):
        tifffile.imwrite(tmp_path / "b" / name, plane, byteorder=">", compression="lzw")
    assert np.array_equal(open_source(tmp_path / "b").read(0), CUBE)


def test_bands_are_sorted_by_wavelength_not_by_name(tmp_path):
    source = open_source(pictures(tmp_path / "eye", ("a_550nm.png", "b_450nm.png", "c_500nm.png")))
    assert source.wavelengths == NM and np.array_equal(source.read(0), CUBE[[1, 2, 0]])


def test_given_wavelengths_go_by_the_numbers_in_the_names(tmp_path):
    folder = pictures(tmp_path / "eye", ("band_10.png", "band_2.png", "band_1.png"))
    with pytest.raises(InputError, match="wavelengths absent"):
        open_source(folder)
    assert "absent" in describe(folder)["wavelengths_nm"]
    source = open_source(folder, Hints(wavelengths=NM))
    assert source.wavelengths_from == "given" and np.array_equal(source.read(0), CUBE[::-1])
    with pytest.raises(InputError, match="wrong number of wavelengths"):
        open_source(folder, Hints(wavelengths=NM[:2]))


def test_pictures_beside_the_bands_are_left_out(tmp_path):
    folder = pictures(tmp_path / "eye", ("450nm.png", "500nm.png", "550nm.png"))
    Image.new("RGB", (9, 9)).save(folder / "preview.png")
    (folder / "notes.txt").write_text("x")
    (folder / ".hidden_600nm.png").write_bytes(b"x")
    assert np.array_equal(open_source(folder).read(0), CUBE)


def test_what_does_not_fit_together_is_named(tmp_path):
    names = ("450nm.png", "500nm.png", "550nm.png")
    folder = pictures(tmp_path / "a", names)
    Image.fromarray(CUBE[0, :2]).save(folder / names[1])
    with pytest.raises(InputError, match=r"500nm.png: pictures of one cube differ"):
        open_source(folder)
    Image.fromarray(CUBE[0].astype(np.uint8)).save(folder / names[1])
    with pytest.raises(InputError, match="differ"):
        open_source(folder)
    Image.new("RGB", (5, 4)).save(folder / names[1])
    with pytest.raises(InputError, match=r"500nm.png: is no picture of one band; found mode RGB"):
        open_source(folder)
    with pytest.raises(InputError, match="same wavelength"):
        open_source(pictures(tmp_path / "b", ("a_450nm.png", "b_450nm.png", "c_500nm.png")))
    with pytest.raises(InputError, match="single picture"):
        open_source(tmp_path / "b" / "a_450nm.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no pictures"):
        open_source(tmp_path / "empty")


def test_a_picture_that_declares_more_than_it_holds(tmp_path):
    folder = pictures(tmp_path / "a", ("450nm.png", "500nm.png", "550nm.png"))
    for path in folder.iterdir():
        data = bytearray(path.read_bytes())
        data[16:24] = struct.pack(">II", 2**30, 2**30)
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
        path.write_bytes(data)
    with pytest.raises(InputError):
        open_source(folder, Hints(wavelengths=NM))


def test_linked_pictures_are_read_and_left_as_they_are(tmp_path):
    real = pictures(tmp_path / "far", ("450nm.png", "500nm.png", "550nm.png"))
    before = {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in real.iterdir()}
    (tmp_path / "eye").mkdir()
    for path in real.iterdir():
        os.symlink(path, tmp_path / "eye" / path.name)
    assert np.array_equal(open_source(tmp_path / "eye").read(0), CUBE)
    assert before == {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in real.iterdir()}
    (tmp_path / "eye" / "600nm.png").symlink_to(tmp_path / "nowhere.png")
    assert open_source(tmp_path / "eye").wavelengths == NM  # a link to nothing is no file


def test_a_folder_of_everything(tmp_path):
    for form, name in (("envi", "a.hdr"), ("tiff", "b.tif"), ("hdf5", "c.h5"), ("matlab5", "d.mat"), ("npz", "e.npz")):
        export_cube(tmp_path / name, CUBE, NM, form)
    export_cube(tmp_path / "no_suffix", CUBE, NM, "ome-tiff")
    np.save(tmp_path / "f.npy", CUBE)
    (tmp_path / "damaged.mat").write_bytes(b"damaged")  # a source: refused with its reason, not overlooked
    pictures(tmp_path / "g_eye", ("450nm.png", "500nm.png", "550nm.png"))
    pictures(tmp_path / "masks", ("artery.png", "vein.png", "disc.png"))
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / ".c.h5.12.partial").write_bytes((tmp_path / "c.h5").read_bytes())
    Image.new("L", (9, 9)).save(tmp_path / "preview.png")
    names = ["a.hdr", "b.tif", "c.h5", "d.mat", "damaged.mat", "e.npz", "f.npy", "g_eye", "no_suffix"]
    found = find_sources(tmp_path)
    assert [p.name for p in found] == names
    for path in found:
        if path.name not in ("damaged.mat", "f.npy"):
            assert np.array_equal(open_source(path).read(0), CUBE)
    assert find_sources(tmp_path / "g_eye") == [tmp_path / "g_eye"]


def test_a_file_that_may_not_be_read_does_not_hide_the_others(tmp_path, monkeypatch):
    import builtins

    export_cube(tmp_path / "a.hdr", CUBE, NM, "envi")
    for name in ("b.h5", "c.hdr", "d.png"):
        (tmp_path / name).write_bytes(b"x")
    real = builtins.open

    def guarded(path, *args, **kwargs):
        if str(path).endswith(("b.h5", "c.hdr", "d.png")):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *args, **kwargs)

    monkeypatch.setattr(builtins, "open", guarded)
    assert [p.name for p in find_sources(tmp_path)] == ["a.hdr", "b.h5", "c.hdr"]
    with pytest.raises(InputError, match="no permission"):
        open_source(tmp_path / "b.h5")


def test_a_folder_of_folders(tmp_path):
    for name in ("p1_L", "p1_R"):
        pictures(tmp_path / name, ("1.png", "2.png", "3.png"))
    assert [p.name for p in find_sources(tmp_path)] == ["p1_L", "p1_R"]
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="holds no files that can be read"):
        find_sources(tmp_path / "none")
    for missing in (tmp_path / "nowhere", tmp_path / "p1_L" / "1.png"):
        with pytest.raises(InputError):
            find_sources(missing)


def test_wavelengths_as_attributes_or_deeper_in_hdf5(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["scan/image"] = CUBE.astype(">u2")
        file["scan/image"].attrs["Wavelength"] = NM
    source = open_source(path)
    assert source.wavelengths == NM and "attribute of 'scan/image'" in source.wavelengths_from
    assert source.byte_order == "big" and source.read(0).dtype == np.uint16 and np.array_equal(source.read(0), CUBE)
    assert describe(path)["wavelengths_nm"] == list(NM)
    with h5py.File(path, "w") as file:
        file["scan/image"], file.attrs["wavelengths_nm"] = CUBE, NM[::-1]
    source = open_source(path)
    assert "of the file" in source.wavelengths_from and np.array_equal(source.read(0), CUBE[::-1])
    with h5py.File(path, "w") as file:
        file["scan/image"], file["scan/meta/wavelengths"] = CUBE, NM
    assert open_source(path).wavelengths == NM


def test_info_gives_the_wavelengths_of_every_format(tmp_path):
    for form in ("hdf5", "matlab5", "matlab7.3", "npz", "tiff", "ome-tiff", "envi"):
        path = export_cube(tmp_path / f"{form}.hdr", CUBE, NM, form)
        found = describe(path)
        assert found["wavelengths_nm"] == list(NM), form
        assert any(
            str(list(np.shape(CUBE))) in text or "[4, 5, 3]" in text or "[3, 5, 4]" in text
            for text in found["arrays"].values()
        )


@pytest.mark.slow
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("order", [(2, 3, 1, 0), (0, 1, 2, 3)])
def test_one_of_many_cubes_costs_the_memory_of_one(tmp_path, order, packed):
    import tracemalloc

    cubes = np.random.default_rng(0).integers(0, 9, (24, 3, 256, 256)).astype(np.float64)
    variables = {"img": cubes.transpose(order), "wavelengths": NM, "odd": np.ones((3, 3)) * 1j}
    scipy.io.savemat(tmp_path / "a.mat", variables, do_compression=packed)
    np.save(tmp_path / "a.npy", cubes)
    np.savez(tmp_path / "a.npz", img=cubes)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["img"] = cubes
    for name in ("a.mat", "a.npy", "a.npz", "a.h5"):
        source = open_source(tmp_path / name, Hints(wavelengths=NM))
        tracemalloc.start()
        found = [source.read(i) for i in (0, 23, 7)]
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert all(np.array_equal(cube, cubes[i]) for cube, i in zip(found, (0, 23, 7), strict=True))
        assert peak < 8 * cubes[0].nbytes  # the three found, the one in hand and what is being unpacked


def test_a_cube_of_the_layout_of_jasper_ridge_resampled(tmp_path):
    """Bands x pixels in column order, kept bands, full scale; beside explicit loops in float64."""
    from synthgen.cubes.wavelengths import resample

    rng = np.random.default_rng(0)
    kept, rows, columns = np.array([k for k in range(4, 90) if k not in (30, 31)]), 7, 6
    stored = rng.integers(0, 5000, (len(kept), rows * columns)).astype(np.uint16)
    variables = {
        "Y": stored,
        "SlectBands": kept[:, None].astype(np.uint8),
        "nRow": rows,
        "nCol": columns,
        "maxValue": 5000,
    }
    scipy.io.savemat(tmp_path / "a.mat", variables)
    source = open_source(tmp_path / "a.mat", Hints(wavelengths=tuple(380 + 9.46 * k for k in range(224))))
    targets = range(450, 901, 30)
    found = resample(source.read(0).astype(np.float32) / np.float32(source.full_scale), source.wavelengths, targets)
    nm = 380 + 9.46 * (kept - 1)
    for t, centre in enumerate(targets):
        weights = [np.exp(-4 * np.log(2) * ((n - centre) / 30) ** 2) for n in nm]
        for row in range(rows):
            for column in range(columns):
                values = stored[:, row + rows * column].astype(float) / 5000
                direct = sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)
                assert abs(found[t, row, column] - direct) < 1e-6
