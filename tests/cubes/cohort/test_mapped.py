"""Cubes mapped past HDF5 are those that HDF5 gives, to the last bit, or HDF5 has to give them."""

import h5py
import numpy as np
import pytest

from synthgen.cubes.cohort.cohort import Cohort, CohortWriter
from synthgen.cubes.cohort.mapped import map_cubes

NM = tuple(np.linspace(450, 900, 5))
N, SHAPE = 7, (5, 6, 9)


def write(path, values, userblock=0, **how):
    with h5py.File(path, "w", userblock_size=userblock) as file:
        file["first"] = np.arange(333)  # so that cubes do not begin at a round place
        data = file.create_dataset("cubes", data=values, **how)
        if values.dtype.kind == "u":
            data.attrs["scale"] = 60000
        file["wavelengths_nm"], file["patient_id"] = NM, np.array([f"p{i}" for i in range(N)], "S2")
    return Cohort.open(path)


def read(cohort, index):
    mapped = map_cubes(cohort)
    out = np.full((len(index), *SHAPE), np.nan, np.float32)
    mapped.read(index, out)
    return out


@pytest.mark.parametrize("dtype", ["<u2", ">u2", "<u4", "<f2", "<f4", ">f8"])
@pytest.mark.parametrize("chunks", [None, (1, *SHAPE), (3, *SHAPE)])
def test_mapped_equals_read(tmp_path, dtype, chunks):
    rng = np.random.default_rng(0)
    values = rng.random((N, *SHAPE)) * (60000 if "u" in dtype else 1)
    cohort = write(tmp_path / "c.h5", values.astype(dtype), chunks=chunks)
    index = [4, 0, 6, 6, 1]
    assert np.array_equal(read(cohort, index), cohort.cubes(index))


def test_a_written_cohort_is_mapped(tmp_path):
    rng = np.random.default_rng(1)
    for compress in (False, True):
        with CohortWriter(tmp_path / "c.h5", NM, *SHAPE[1:], compress=compress) as writer:
            for i in range(N):
                writer.append(rng.random(SHAPE), f"p{i}", masks={"vein": rng.random(SHAPE[1:]) > 0.5})
        cohort = Cohort.open(tmp_path / "c.h5")
        if compress:
            assert map_cubes(cohort) is None
        else:
            assert np.array_equal(read(cohort, range(N)), cohort.cubes())


@pytest.mark.parametrize(
    "how",
    [
        {"compression": "gzip"},
        {"fletcher32": True},
        {"chunks": (1, 5, 3, 9)},
        {"chunks": (1, *SHAPE), "shuffle": True},
        {"userblock": 512},
    ],
)
def test_what_only_hdf5_can_put_together_is_left_to_it(tmp_path, how):
    assert map_cubes(write(tmp_path / "c.h5", np.zeros((N, *SHAPE), np.float32), **how)) is None


def test_cubes_never_written_are_left_to_hdf5(tmp_path):
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file.create_dataset("cubes", (N, *SHAPE), "f4", chunks=(1, *SHAPE))[:3] = 0.5
        file["wavelengths_nm"], file["patient_id"] = NM, np.array([f"p{i}" for i in range(N)], "S2")
    assert map_cubes(Cohort.open(tmp_path / "c.h5")) is None
