"""The cohort file: what is written reads back, what is wrong is refused in one line, nothing half-written stays."""

import errno
import io
import pickle

import h5py
import numpy as np
import pytest

import synthgen.cubes.cohort.writer as writer_module
from synthgen.cubes.cohort.cohort import Cohort, CohortWriter
from synthgen.errors import InputError, MismatchError, StorageError

NM = tuple(range(450, 600, 30))
N, C, H, W = 6, len(NM), 7, 9


@pytest.fixture
def cubes():
    return np.random.default_rng(0).random((N, C, H, W)).astype(np.float32)


def write(path, cubes, **options):
    with CohortWriter(path, NM, H, W, **options) as out:
        for i, cube in enumerate(cubes):
            masks = {"artery": cube[0] > 0.5, "fov": np.ones((H, W), bool)} if i % 2 else None
            out.append(cube, f"p{i // 2}", eye="LR"[i % 2], visit=0, label=None if i < 2 else i % 3, masks=masks)
    return path


def raw(path, values, drop=(), **more):
    """A cohort file by hand, as another program would write it."""
    with h5py.File(path, "w") as f:
        data = {
            "cubes": np.rint(values * 65535).astype("<u2"),
            "wavelengths_nm": np.array(NM, float),
            "patient_id": np.array([f"p{i}".encode() for i in range(len(values))]),
        } | more
        for name, value in data.items():
            if name not in drop:
                f[name] = value
        if "cubes" in f and "scale" not in drop:
            f["cubes"].attrs["scale"] = 65535.0
    return path


def test_what_is_written_reads_back(tmp_path, cubes):
    cohort = Cohort.open(write(tmp_path / "a.h5", cubes, attributes={"seed": 3, "more": [1, 2]}))
    assert (len(cohort), cohort.bands, cohort.height, cohort.width) == (N, C, H, W)
    assert cohort.wavelengths == NM and cohort.patients == ("p0", "p1", "p2")
    assert np.abs(cohort.cubes() - cubes).max() <= 0.5 / 65535 + 1e-7
    assert cohort.cubes().dtype == np.float32
    assert np.array_equal(cohort.cubes([4, 1, 1]), cohort.cubes()[[4, 1, 1]])
    assert cohort.cubes([]).shape == (0, C, H, W)
    assert cohort.eye.tolist() == list("LRLRLR") and cohort.visit.tolist() == [0] * N
    assert np.isnan(cohort.label[:2]).all() and cohort.label[2:].tolist() == [2, 0, 1, 2]
    assert cohort.index_of(["p2", "p0"]).tolist() == [0, 1, 4, 5]
    assert pickle.loads(pickle.dumps(cohort)).content_hash == cohort.content_hash
    cohort.check_finite()


def test_masks_left_out_are_empty_and_the_field_of_view_is_then_whole(tmp_path, cubes):
    masks = Cohort.open(write(tmp_path / "a.h5", cubes)).masks()
    assert set(masks) == {"artery", "fov"} and masks["fov"].all()
    assert not masks["artery"][::2].any()
    assert np.array_equal(masks["artery"][1::2], cubes[1::2, 0] > 0.5)


def test_masks_come_from_codes_unless_given(tmp_path, cubes):
    codes = np.random.default_rng(1).choice([0, 1, 2, 3, 4, 255], (N, H, W)).astype(np.uint8)
    disc = np.random.default_rng(2).random((N, H, W)) > 0.5
    cohort = Cohort.open(raw(tmp_path / "a.h5", cubes, structures=codes, **{"masks/disc": disc, "masks/cup": ~disc}))
    assert cohort.mask_names == ("artery", "vein", "disc", "cup", "fov", "crossing")
    masks = cohort.masks([3, 0])
    assert np.array_equal(masks["disc"], disc[[3, 0]]) and np.array_equal(masks["artery"], codes[[3, 0]] == 1)
    assert np.array_equal(masks["fov"], codes[[3, 0]] != 255)


def test_scale_is_the_full_value_or_its_reciprocal(tmp_path, cubes):
    a = Cohort.open(raw(tmp_path / "a.h5", cubes))
    b = raw(tmp_path / "b.h5", cubes)
    with h5py.File(b, "r+") as f:
        f["cubes"].attrs["scale"] = 1 / 65535
    assert np.array_equal(a.cubes(), Cohort.open(b).cubes())
    floats = Cohort.open(raw(tmp_path / "c.h5", cubes, drop=["scale"], cubes=cubes))
    assert np.array_equal(floats.cubes(), cubes)


def test_hash_depends_on_contents_alone(tmp_path, cubes):
    plain = Cohort.open(write(tmp_path / "a.h5", cubes))
    packed = Cohort.open(write(tmp_path / "b.h5", cubes, compress=True, attributes={"x": 1}))
    assert plain.content_hash == packed.content_hash
    with h5py.File(tmp_path / "c.h5", "w") as f, h5py.File(plain.path) as old:
        f.create_dataset("cubes", data=old["cubes"][()], chunks=(2, 1, 3, 3)).attrs["scale"] = 65535
        f["wavelengths_nm"], f["patient_id"] = old["wavelengths_nm"][()], old["patient_id"][()]
    assert Cohort.open(tmp_path / "c.h5").content_hash == plain.content_hash
    cubes[0, 0, 0, 0] += 0.01
    assert Cohort.open(write(tmp_path / "d.h5", cubes)).content_hash != plain.content_hash
    with h5py.File(tmp_path / "c.h5", "r+") as f:
        f["patient_id"][0] = "other"
    assert Cohort.open(tmp_path / "c.h5").content_hash != plain.content_hash


def test_hash_is_cached_until_the_file_changes_and_a_damaged_sidecar_is_made_anew(tmp_path, cubes, monkeypatch):
    cohort = Cohort.open(write(tmp_path / "a.h5", cubes))
    first, sidecar = cohort.content_hash, tmp_path / "a.h5.hash.json"
    assert sidecar.exists()
    with monkeypatch.context() as patch:
        patch.setattr(Cohort, "_scan", lambda self: pytest.fail("read again"))
        assert Cohort.open(cohort.path).content_hash == first
    sidecar.write_text("{")
    assert Cohort.open(cohort.path).content_hash == first
    write(tmp_path / "a.h5", cubes[::-1])
    assert Cohort.open(cohort.path).content_hash != first


def test_hash_needs_no_writable_folder(tmp_path, cubes, monkeypatch):
    cohort = Cohort.open(write(tmp_path / "a.h5", cubes))

    def refuse(path, value):
        raise StorageError("read-only", path=path)

    monkeypatch.setattr("synthgen.cubes.cohort.cohort.write_json", refuse)
    assert len(cohort.content_hash) == 32 and not (tmp_path / "a.h5.hash.json").exists()


def test_provenance_names_seen_patients(tmp_path, cubes):
    cohort = Cohort.open(write(tmp_path / "a.h5", cubes))
    assert cohort.provenance(["p0", "p1"]).seen(["p1", "p2"]) == ["p1"]
    assert cohort.provenance().cohort_hash == cohort.content_hash
    with pytest.raises(InputError, match="no such patient"):
        cohort.index_of(["p9"])


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        ({"drop": ["wavelengths_nm"]}, "wavelengths absent"),
        ({"drop": ["patient_id"]}, "patients absent"),
        ({"drop": ["cubes"]}, "no dataset 'cubes'"),
        ({"drop": ["scale"]}, "without a usable attribute 'scale'"),
        ({"wavelengths_nm": np.arange(3.0) + 450}, "wrong number of wavelengths"),
        ({"wavelengths_nm": np.array(NM[::-1], float)}, "do not increase"),
        ({"wavelengths_nm": np.full(C, np.nan)}, "not positive numbers"),
        ({"wavelengths_nm": np.array([b"a"] * C)}, "not numbers"),
        ({"patient_id": np.array([b"a"])}, "'patient_id' has the wrong length"),
        ({"label": np.zeros(2)}, "'label' has the wrong length"),
        ({"label": np.array([b"x"] * N)}, "'label' is not numeric"),
        ({"cubes": np.zeros((4, 5, 6), np.uint16)}, "not 4-D"),
        ({"cubes": np.zeros((0, C, H, W), np.uint16)}, "is empty"),
        ({"cubes": np.zeros((N, C, H, W), np.complex64)}, "unusable type"),
        ({"structures": np.zeros((N, H, W + 1), np.uint8)}, "does not fit the cubes"),
        ({"masks/disc": np.zeros((N, H, W), np.float32)}, "does not fit the cubes"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, cubes, change, finding):
    path = raw(tmp_path / "a.h5", cubes, **change)
    with pytest.raises(InputError, match=finding) as caught:
        Cohort.open(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_no_file_no_hdf5_truncated_folder(tmp_path, cubes):
    path = raw(tmp_path / "a.h5", cubes)
    whole = path.read_bytes()
    with pytest.raises(InputError, match="no such file"):
        Cohort.open(tmp_path / "none.h5")
    with pytest.raises(InputError, match="folder"):
        Cohort.open(tmp_path)
    for size in (0, 4, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError):
            Cohort.open(path)
    path.write_text("hello, I am no HDF5 file")
    with pytest.raises(InputError, match="not an HDF5"):
        Cohort.open(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, 40.0])
def test_an_unusable_cube_is_named(tmp_path, cubes, value):
    cubes[3, 2, 1, 1] = value
    cohort = Cohort.open(raw(tmp_path / "a.h5", np.zeros_like(cubes), drop=["scale"], cubes=cubes))
    for _ in range(2):  # read, then from the sidecar
        with pytest.raises(InputError, match=r"a\.h5: cube 3") as caught:
            Cohort.open(cohort.path).check_finite()
        assert "NaN" in str(caught.value) or "values from" in str(caught.value)


@pytest.mark.parametrize("name", ["cubes", "wavelengths_nm", "patient_id", "masks"])
@pytest.mark.parametrize("link", [h5py.ExternalLink("other.h5", "/cubes"), h5py.SoftLink("/elsewhere")])
def test_links_are_refused(tmp_path, cubes, name, link):
    raw(tmp_path / "other.h5", cubes)
    path = raw(tmp_path / "a.h5", cubes)
    with h5py.File(path, "r+") as f:
        if name in f:
            del f[name]
        f[name] = link
    with pytest.raises(InputError, match="is a link"):
        Cohort.open(path)


def test_data_in_other_files_are_refused(tmp_path, cubes):
    (tmp_path / "secret.bin").write_bytes(b"\0" * cubes.size * 2)
    path = raw(tmp_path / "a.h5", cubes, drop=["cubes"])
    with h5py.File(path, "r+") as f:
        external = [(str(tmp_path / "secret.bin"), 0, h5py.h5f.UNLIMITED)]
        f.create_dataset("cubes", cubes.shape, "u2", external=external).attrs["scale"] = 65535
    with pytest.raises(InputError, match="other files"):
        Cohort.open(path)
    path = raw(tmp_path / "b.h5", cubes, drop=["cubes"])
    layout = h5py.VirtualLayout(cubes.shape, "u2")
    layout[:] = h5py.VirtualSource("a.h5", "cubes", cubes.shape)
    with h5py.File(path, "r+") as f:
        f.create_virtual_dataset("cubes", layout).attrs["scale"] = 65535
    with pytest.raises(InputError, match="other files"):
        Cohort.open(path)


@pytest.mark.parametrize("shape", [(10**6, C, 512, 512), (N, C, 2**20, 2**20), (2**40, C, 16, 16)])
def test_declared_sizes_that_are_not_stored_are_refused(tmp_path, cubes, shape):
    path = raw(tmp_path / "a.h5", cubes, drop=["cubes"])
    with h5py.File(path, "r+") as f:
        f.create_dataset("cubes", shape, "u2", chunks=(1, 1, 16, 16)).attrs["scale"] = 65535
    with pytest.raises(InputError):
        Cohort.open(path)


def test_the_writer_refuses_and_leaves_nothing(tmp_path, cubes):
    path = tmp_path / "a.h5"
    bad = cubes[0].copy()
    bad[1, 0, 0] = np.nan

    def attempt(cube, patient):
        with CohortWriter(path, NM, H, W) as out:
            out.append(cubes[0], "p")
            out.append(cube, patient)
            if patient == "stop":
                raise KeyboardInterrupt

    for cube, patient, kind in [
        (bad, "p", InputError),
        (cubes[0, :2], "p", MismatchError),
        (cubes[0], " ", InputError),
        (cubes[0], "stop", KeyboardInterrupt),
    ]:
        with pytest.raises(kind):
            attempt(cube, patient)
    with pytest.raises(InputError, match="no cubes"), CohortWriter(path, NM, H, W):
        pass
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="folder"), CohortWriter(tmp_path, NM, H, W):
        pass


def test_values_are_clipped(tmp_path, cubes):
    cohort = Cohort.open(write(tmp_path / "a.h5", cubes * 4 - 2))
    assert np.abs(cohort.cubes() - np.clip(cubes * 4 - 2, 0, 1)).max() < 1e-5


@pytest.mark.parametrize("room", [0, 3000, 6000])
def test_a_full_disk_is_reported_and_the_old_file_stays(tmp_path, cubes, monkeypatch, room, capfd):
    path = write(tmp_path / "a.h5", cubes)
    before = path.read_bytes()

    def write_some(self, data):
        if self.tell() + memoryview(data).nbytes > room:
            raise OSError(errno.ENOSPC, "No space left on device")
        return io.FileIO.write(self, data)

    monkeypatch.setattr(writer_module._Sink, "_put", write_some)
    with pytest.raises(StorageError, match="no space left"):
        write(path, cubes[::-1])
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["a.h5"]
    assert "Traceback" not in capfd.readouterr().err
