"""Bands that a file keeps in another order than that of wavelength: read sorted, and the source says which is which."""

import h5py
import numpy as np
import pytest
import scipy.io
import tifffile

from synthgen.cubes.readers.open import open_source
from tests.formats import export_cube

NM = (600.0, 450.0, 550.0, 500.0)
STORED = np.random.default_rng(0).integers(1, 4000, (4, 6, 7)).astype(np.uint16)


def descending(folder, kind):
    """A file of the kind that keeps STORED as it is, with NM beside it."""
    path = folder / f"a.{kind}"
    if kind == "h5":
        with h5py.File(path, "w") as file:
            file["cubes"], file["wavelengths_nm"] = STORED[None], NM
    elif kind == "mat":
        scipy.io.savemat(path, {"Y": STORED.transpose(1, 2, 0), "wavelengths": NM})
    elif kind == "npz":
        np.savez(path, cube=STORED, wavelengths=NM)
    elif kind == "tif":
        tifffile.imwrite(path, STORED, photometric="minisblack", description=f'{{"wavelengths_nm": {list(NM)}}}')
    else:
        path = export_cube(folder / "a.hdr", STORED, sorted(NM), "envi")
        path.write_text(path.read_text().replace(listed(sorted(NM), path), ", ".join(map(str, NM))))
    return path


def listed(values, path):
    """The wavelengths as the header has them."""
    text = path.read_text().split("wavelength = {")[1].split("}")[0]
    assert [float(word) for word in text.split(",")] == list(values)
    return text


@pytest.mark.parametrize("kind", ["h5", "mat", "npz", "tif", "hdr"])
def test_the_source_says_where_its_bands_are_in_the_file(tmp_path, kind):
    source = open_source(descending(tmp_path, kind))
    assert source.wavelengths == tuple(sorted(NM)) and source.order.tolist() == [1, 3, 2, 0]
    assert np.array_equal(source.read(0), STORED[source.order])


def test_pictures_go_by_their_names(tmp_path):
    folder = export_cube(tmp_path / "a", STORED, sorted(NM), "pictures")
    for k, nm in enumerate(sorted(NM)):  # the k-th picture was taken at NM[k]
        (folder / f"band_{nm:g}nm.png").rename(folder / f"shot{k}_{NM[k]:g}nm.png")
    source = open_source(folder)
    assert source.wavelengths == tuple(sorted(NM)) and source.order.tolist() == [1, 3, 2, 0]
    assert np.array_equal(source.read(0), STORED[source.order])
