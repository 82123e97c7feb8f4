"""What a file declares of its numbers comes out as reflectance: every reader, every way of declaring it."""

from itertools import product

import h5py
import numpy as np
import pytest
import scipy.io
import tifffile
from PIL import Image

from synthgen.cubes.cohort.cohort import Cohort
from synthgen.cubes.ingest.run import ingest
from synthgen.cubes.readers.open import open_source
from synthgen.cubes.readers.scaling import full_scale_of, reflectance
from tests.formats import export_cube

NM = (450.0, 500.0, 550.0, 600.0, 650.0)
BANDS, ROWS, COLUMNS = len(NM), 16, 6
TRUE = np.random.default_rng(0).uniform(0.02, 0.4, (BANDS, ROWS, COLUMNS))
HOLE = np.zeros((ROWS, COLUMNS), bool)
HOLE[5:7, 2:4] = True
GAINS, OFFSETS = np.linspace(0.5, 1.5, BANDS) * 1e-4, np.linspace(-0.1, 0.05, BANDS)


def stored(gain=1.0, offset=0.0, missing=None, dtype="i2", hole=HOLE):
    """Numbers that mean `TRUE` by a gain and an offset, one or one per band, with a hole of missing ones."""
    column = lambda v: np.broadcast_to(v, BANDS)[:, None, None]
    numbers = (TRUE - column(offset)) / column(gain)
    numbers = (np.rint(numbers) if np.dtype(dtype).kind in "ui" else numbers).astype(dtype)
    if missing is not None:
        numbers[:, hole] = missing
    return numbers


def listed(values):
    return "{" + ", ".join(f"{v:.9g}" for v in np.ravel(values)) + "}"


def envi(folder, numbers, stated, big=False):
    path = export_cube(folder / "a.hdr", numbers, NM, "envi", interleave="bil", byte_order="big" if big else "little")
    text = "".join(f"{key} = {listed(v) if np.ndim(v) else v}\n" for key, v in stated.items())
    path.write_text(path.read_text().rstrip() + "\n" + text)
    return path


def hdf5(folder, numbers, stated, where="attributes"):
    with h5py.File(folder / "a.h5", "w") as file:
        file["scan/image"], file["scan/wavelength"] = numbers.transpose(1, 2, 0), NM
        for key, value in stated.items():
            if where == "attributes":
                file["scan/image"].attrs[key] = value
            elif where == "file":
                file.attrs[key] = value
            else:
                file[f"scan/{key}"] = value
    return folder / "a.h5"


def matlab5(folder, numbers, stated):
    scipy.io.savemat(folder / "a.mat", {"img": numbers.transpose(1, 2, 0), "wavelengths": NM, **stated})
    return folder / "a.mat"


def matlab73(folder, numbers, stated):
    with h5py.File(folder / "a.mat", "w", userblock_size=512) as file:
        for key, value in {"img": numbers.transpose(1, 2, 0), "wavelengths": NM, **stated}.items():
            file[key] = np.atleast_2d(value).T
    with open(folder / "a.mat", "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM")
    return folder / "a.mat"


def npz(folder, numbers, stated):
    np.savez(folder / "a.npz", cube=numbers, wavelengths_nm=NM, **stated)
    return folder / "a.npz"


def gdal_items(stated):
    gain, offset = (np.broadcast_to(stated.get(k, d), BANDS) for k, d in (("SCALE", 1.0), ("OFFSET", 0.0)))
    items = "".join(
        f'<Item name="OFFSET" sample="{b}" role="offset">{offset[b]:.9g}</Item>'
        f'<Item name="SCALE" sample="{b}" role="scale">{gain[b]:.9g}</Item>'
        for b in range(BANDS)
    )
    return f"<GDALMetadata>{items}</GDALMetadata>" if {"SCALE", "OFFSET"} & stated.keys() else None


def geotiff(folder, numbers, stated, byteorder="<", planes="separate"):
    tags = [(42112, "s", 0, text, True)] if (text := gdal_items(stated)) else []
    tags += [(42113, "s", 0, str(stated["nodata"]), True)] if "nodata" in stated else []
    array = numbers if planes != "contig" else numbers.transpose(1, 2, 0)
    about = f'{{"wavelengths_nm": {list(NM)}}}'
    how = {"photometric": "minisblack", "metadata": None, "byteorder": byteorder, "extratags": tags}
    with tifffile.TiffWriter(folder / "a.tif", byteorder=byteorder) as file:
        how.pop("byteorder")
        if planes != "pages":
            file.write(array, planarconfig=planes, description=about, **how)
        for band, plane in enumerate(array if planes == "pages" else ()):
            one = {k: float(np.broadcast_to(v, BANDS)[band]) if k != "nodata" else v for k, v in stated.items()}
            role = {"SCALE": "scale", "OFFSET": "offset"}
            items = "".join(f'<Item name="{k}" sample="0" role="{role[k]}">{one[k]}</Item>' for k in role if k in one)
            how["extratags"] = [(42112, "s", 0, f"<GDALMetadata>{items}</GDALMetadata>", True)] if items else []
            how["extratags"] += [(42113, "s", 0, str(one["nodata"]), True)] if "nodata" in one else []
            file.write(plane, description=about if band == 0 else None, **how)
    return folder / "a.tif"


def tiff_json(folder, numbers, stated):
    plain = {key: np.asarray(value).tolist() for key, value in stated.items()}
    tifffile.imwrite(
        folder / "a.tif", numbers, photometric="minisblack", metadata={"axes": "CYX", "wavelengths_nm": NM, **plain}
    )
    return folder / "a.tif"


def plane_tiffs(folder, numbers, stated):
    (folder / "eye").mkdir()
    for band, plane in enumerate(numbers):
        one = {k: np.broadcast_to(v, BANDS)[band] for k, v in stated.items()}
        items = "".join(
            f'<Item name="{k}" sample="0" role="{k.lower()}">{one[k]}</Item>' for k in ("SCALE", "OFFSET") if k in one
        )
        tags = [(42112, "s", 0, f"<GDALMetadata>{items}</GDALMetadata>", True)] if items else []
        tags += [(42113, "s", 0, str(one["nodata"]), True)] if "nodata" in one else []
        tifffile.imwrite(folder / "eye" / f"{NM[band]:g}nm.tif", plane, metadata=None, extratags=tags)
    return folder / "eye"


# For each reader the names of gain, offset, no data, and of the number that divides or multiplies.
AFFINE = {
    "envi": (envi, ("data gain values", "data offset values", "data ignore value")),
    "envi reflectance": (envi, ("data reflectance gain values", "data reflectance offset values", "data ignore value")),
    "envi big": (lambda *a: envi(*a, big=True), ("data gain values", "data offset values", "data ignore value")),
    "hdf5 cf": (hdf5, ("scale_factor", "add_offset", "_FillValue")),
    "hdf5 capitals": (hdf5, ("Scale", "Offset", "NoData")),
    "hdf5 gain": (hdf5, ("gain", "offset", "Data_Ignore_Value")),
    "hdf5 file": (lambda *a: hdf5(*a, where="file"), ("scale_factor", "add_offset", "missing_value")),
    "hdf5 beside": (lambda *a: hdf5(*a, where="beside"), ("gain", "offset", "nodata")),
    "matlab 5": (matlab5, ("scale_factor", "add_offset", "nodata")),
    "matlab 7.3": (matlab73, ("gain", "offset", "fill_value")),
    "npz": (npz, ("scale", "offset", "missing_value")),
    "tiff json": (tiff_json, ("scale_factor", "add_offset", "nodata")),
    "geotiff": (geotiff, ("SCALE", "OFFSET", "nodata")),
    "geotiff big, contig": (lambda *a: geotiff(*a, ">", "contig"), ("SCALE", "OFFSET", "nodata")),
    "tiff pages": (lambda *a: geotiff(*a, "<", "pages"), ("SCALE", "OFFSET", "nodata")),
    "tiff planes": (plane_tiffs, ("SCALE", "OFFSET", "nodata")),
}
FACTORS = {
    "envi": (envi, "reflectance scale factor"),
    "hdf5 scale": (hdf5, "scale"),
    "hdf5 neon": (hdf5, "Scale_Factor"),
    "hdf5 text": (lambda f, n, stated: hdf5(f, n, {k: str(v) for k, v in stated.items()}), "Scale_Factor"),
    "hdf5 bytes": (lambda f, n, stated: hdf5(f, n, {k: np.bytes_(str(v)) for k, v in stated.items()}), "scale"),
    "hdf5 list of one": (lambda f, n, stated: hdf5(f, n, {k: [v] for k, v in stated.items()}), "Scale Factor"),
    "matlab 5": (matlab5, "reflectance_scale_factor"),
    "matlab 7.3": (matlab73, "scale"),
    "npz": (npz, "scale_factor"),
    "npz text": (lambda f, n, stated: npz(f, n, {k: str(v) for k, v in stated.items()}), "scale"),
    "tiff json": (tiff_json, "reflectance_scale_factor"),
}


def read(path, given=None):
    source = open_source(path)
    full, _ = full_scale_of(source, given)
    return source, reflectance(source, 0, full)


def check(path, missing=False, tolerance=2e-4, given=None):
    source, cube = read(path, given)
    assert cube.shape == TRUE.shape and cube.dtype == np.float32
    hole = HOLE if missing else np.zeros_like(HOLE)
    assert np.isnan(cube[:, hole]).all(), "no data must not become a value"
    assert np.abs(cube - TRUE)[:, ~hole].max() < tolerance
    return source


@pytest.mark.parametrize("missing", [None, -9999, 32767])
@pytest.mark.parametrize("by_band", [False, True], ids=["one", "by band"])
@pytest.mark.parametrize("reader", AFFINE)
def test_gain_offset_and_no_data(tmp_path, reader, by_band, missing):
    write, (gain, offset, no_data) = AFFINE[reader]
    gains, offsets = (GAINS, OFFSETS) if by_band else (1e-4, -0.1)
    stated = {gain: gains, offset: offsets} | ({no_data: missing} if missing is not None else {})
    source = check(write(tmp_path, stored(gains, offsets, missing), stated), missing is not None)
    assert source.declared.statements and source.declared.applied and not source.declared.not_applied
    if missing is not None:
        assert source.ignored == missing


@pytest.mark.parametrize("factor", [10000, 1e-4])
@pytest.mark.parametrize("reader", FACTORS)
def test_a_scale_divides_above_one_and_multiplies_below(tmp_path, reader, factor):
    write, name = FACTORS[reader]
    check(write(tmp_path, stored(1e-4, dtype="u2"), {name: factor}))


@pytest.mark.parametrize("missing", [-9999.0, 0.1, np.nan, -3.4028234663852886e38])
@pytest.mark.parametrize("reader", [r for r in AFFINE if not r.startswith("tiff json")])
def test_no_data_of_floats(tmp_path, reader, missing):
    write, (_, _, no_data) = AFFINE[reader]
    if missing == 0.1 and np.any(np.float32(TRUE) == np.float32(0.1)):
        pytest.skip("a value of the cube")
    check(write(tmp_path, stored(missing=missing, dtype="f4"), {no_data: missing}), True)


@pytest.mark.parametrize("reader", ["envi", "hdf5 cf", "matlab 5", "npz", "geotiff", "tiff planes"])
def test_no_data_never_sets_the_scale_and_is_never_valid(tmp_path, reader):
    """65535 in a hole of a 12-bit camera: asked for the scale of the counts, and outside the field of the cohort."""
    write, (_, _, no_data) = AFFINE[reader]
    path = write(tmp_path, stored(1 / 4095, missing=65535, dtype="u2"), {no_data: 65535})
    with pytest.raises(Exception, match=r"found uint16 up to 1[5-6]\d\d; .* Give --scale.*4095 \(12 bit\)"):
        read(path)
    report = ingest([path], tmp_path / "o.h5", scale=4095, each_file_a_patient=True, registration="off", fov="full")
    made = Cohort.open(tmp_path / "o.h5")
    assert np.array_equal(made.masks()["fov"][0], ~HOLE) and not made.cubes()[0][:, HOLE].any()
    assert np.abs(made.cubes()[0] - TRUE)[:, ~HOLE].max() < 2e-4
    assert report.no_data_pixels == HOLE.sum() and any("65535" in stated for stated in report.sources[0].applied)
    assert any(check == "declared" and "65535" in example for check, _, _, example in report.table())
    assert "65535" in "\n".join(report.lines())


@pytest.mark.parametrize(("names", "unpacked"), [*product(["valid_range", "valid_min valid_max"], [False, True])])
def test_a_valid_range_of_stored_numbers_or_of_values(tmp_path, names, unpacked):
    numbers = stored(1e-4, dtype="i2", missing=9000)
    ends = np.array([0.0, 0.5]) if unpacked else np.array([0, 5000], "i2")
    stated = {
        "scale_factor": 1e-4,
        **({names: ends} if " " not in names else dict(zip(names.split(), ends, strict=True))),
    }
    check(hdf5(tmp_path, numbers, stated), True)


def test_missing_values_of_several_numbers_and_fill_values_by_band(tmp_path):
    numbers = stored(1e-4, dtype="i2")
    numbers[:, HOLE] = np.array([-1, -2, -3, -1], "i2")
    check(hdf5(tmp_path, numbers, {"scale_factor": 1e-4, "missing_value": np.array([-1, -2, -3], "i2")}), True)
    fills = -np.arange(1, BANDS + 1, dtype="i2")
    numbers[:, HOLE] = fills[:, None]
    check(hdf5(tmp_path, numbers, {"scale_factor": 1e-4, "_FillValue": fills}), True)


def test_signed_bytes_that_are_unsigned(tmp_path):
    numbers = stored(1 / 500, dtype="u1", missing=255)
    stated = {"_Unsigned": "true", "scale_factor": 1 / 500, "_FillValue": np.int8(-1)}
    check(hdf5(tmp_path, numbers.view("i1"), stated), True, tolerance=2e-3)


def test_the_fill_value_of_hdf5_and_bands_in_another_order(tmp_path):
    numbers = stored(GAINS, OFFSETS, -1)[::-1]
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = file.create_dataset("image", numbers.shape, "i2", fillvalue=-1, chunks=(1, ROWS, COLUMNS))
        data[...] = numbers
        data.attrs["gain"], data.attrs["offset"] = GAINS[::-1], OFFSETS[::-1]
        file["wavelength"] = NM[::-1]
    source = check(tmp_path / "a.h5", True)
    assert source.order is not None


def test_prisma_keeps_its_calibration_in_the_file(tmp_path):
    low, high = -0.01, 0.6
    with h5py.File(tmp_path / "a.he5", "w") as file:
        numbers = np.rint((TRUE - low) / (high - low) * 65535).astype("u2")
        file["HDFEOS/SWATHS/PRS_L2D_HCO/Data Fields/VNIR_Cube"] = numbers
        file["wavelengths"] = NM
        file.attrs["L2ScaleVnirMin"], file.attrs["L2ScaleVnirMax"] = np.float32(low), np.float32(high)
    check(tmp_path / "a.he5")


def test_imagej_keeps_signed_numbers_by_a_straight_line(tmp_path):
    numbers = (stored(1e-4, dtype="i4") + 32768).astype("u2")
    labels = [f"{nm:g} nm" for nm in NM]
    about = {"axes": "CYX", "Labels": labels, "cf": 0, "c0": -3.2768, "c1": 1e-4}
    tifffile.imwrite(tmp_path / "a.tif", numbers, imagej=True, metadata=about)
    check(tmp_path / "a.tif")


def test_per_cent_by_its_unit(tmp_path):
    check(hdf5(tmp_path, TRUE.astype("f4") * 100, {"units": "%"}))
    check(hdf5(tmp_path, stored(1e-4), {"units": "percent", "scale_factor": 0.01}))


def test_eight_bit_pictures_have_255_as_white(tmp_path):
    (tmp_path / "eye").mkdir()
    for nm, plane in zip(NM, np.rint(TRUE * 255).astype("u1"), strict=True):
        Image.fromarray(plane).save(tmp_path / "eye" / f"{nm:g}nm.png")
    check(tmp_path / "eye", tolerance=3e-3)
