"""References go by wavelength: one value per band by the order of the cubes' own file, images by their own."""

import numpy as np
import pytest

from synthgen.cubes.cohort.cohort import Cohort
from synthgen.cubes.ingest.run import ingest
from synthgen.cubes.phantom.simulate import simulate_cube
from synthgen.errors import InputError, MismatchError
from tests.formats import export_cube

NM = tuple(450.0 + 30 * i for i in range(16))
RNG = np.random.default_rng(0)
DARK, LAMP = 30 + 20 * RNG.random(16), 2000 + 6000 * RNG.random(16)


@pytest.fixture(scope="module")
def eye():
    return simulate_cube(0, "OS", size=64, seed=1)


def envi(path, cube, backwards=False, wavelengths=NM):
    """An ENVI pair, with the band of the longest wavelength first where `backwards` asks for it."""
    path = export_cube(path, cube[::-1] if backwards else cube, wavelengths, "envi")
    if backwards:
        lines = [
            "wavelength = {" + ", ".join(f"{nm:g}" for nm in wavelengths[::-1]) + "}"
            if words.startswith("wave")
            else words
            for words in path.read_text().replace(",\n", ", ").splitlines()
            if not words.startswith("wavelength units")
        ]
        path.write_text("\n".join(lines))
    return path


def counts(cube):
    return DARK[:, None, None] + LAMP[:, None, None] * cube


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("dark", ["vector", "image"])
@pytest.mark.parametrize("white", ["vector", "image", "text", "image backwards"])
def test_each_band_has_its_own_gain(tmp_path, eye, backwards, dark, white):
    cube, fov = eye.cube, eye.masks["fov"]
    step = -1 if backwards else 1
    path = envi(tmp_path / "p.hdr", counts(cube), backwards)
    given = {"white_reflectance": 0.99, "each_file_a_patient": True}
    bright = DARK + 0.99 * LAMP
    if dark == "vector":
        np.save(tmp_path / "d.npy", DARK[::step])
        given["dark"] = tmp_path / "d.npy"
    else:
        given["dark"] = envi(tmp_path / "d.hdr", counts(np.zeros((16, 64, 64))))
    if white == "vector":
        np.save(tmp_path / "w.npy", bright[::step])
        given["white"] = tmp_path / "w.npy"
    elif white == "text":
        (tmp_path / "w.txt").write_text("\n".join(f"{v!r}" for v in bright[::step].tolist()))
        given["white"] = tmp_path / "w.txt"
    else:
        given["white"] = envi(tmp_path / "w.hdr", counts(np.full((16, 64, 64), 0.99)), "backwards" in white)
    ingest([path], tmp_path / "o.h5", **given)
    made = Cohort.open(tmp_path / "o.h5")
    assert made.wavelengths == NM
    assert np.abs(made.cubes()[0] - cube)[:, fov].max() < 1e-4


def test_references_of_other_wavelengths_are_refused(tmp_path, eye):
    other = tuple(nm + 550 for nm in NM)
    path = envi(tmp_path / "p.hdr", counts(eye.cube))
    white = envi(tmp_path / "w.hdr", counts(np.ones((16, 64, 64))), wavelengths=other)
    words = (
        r"wavelengths differ from those of the dark or white .*16 bands, 450-900 nm; expected 16 bands, 1000-1450 nm"
    )
    with pytest.raises(InputError, match=words):
        ingest([path], tmp_path / "o.h5", white=white, each_file_a_patient=True)
    dark = envi(tmp_path / "d.hdr", counts(np.zeros((16, 64, 64))))
    with pytest.raises(MismatchError, match=r"do not belong together.*1000-1450 nm"):
        ingest([path], tmp_path / "o.h5", white=white, dark=dark, each_file_a_patient=True)


def test_what_a_white_reference_lacks_lies_outside(tmp_path, eye):
    bright, fov = counts(np.ones((16, 64, 64))), eye.masks["fov"]
    bright[:, ~fov] = -1
    white = envi(tmp_path / "w.hdr", bright)
    white.write_text(white.read_text() + "\ndata ignore value = -1\n")
    np.save(tmp_path / "d.npy", DARK)
    path = envi(tmp_path / "p.hdr", counts(np.where(fov, eye.cube, 0.3)))
    ingest(
        [path], tmp_path / "o.h5", white=white, dark=tmp_path / "d.npy", white_reflectance=1, each_file_a_patient=True
    )
    made = Cohort.open(tmp_path / "o.h5")
    assert np.array_equal(made.masks()["fov"][0], fov) and np.abs(made.cubes()[0] - eye.cube)[:, fov].max() < 1e-4
