"""Real cubes held or streamed: the same batches, read ahead, and a fault in the file reported where it is drawn."""

import os
from concurrent.futures import wait

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from synthgen.config import build
from synthgen.cubes.cohort.cohort import Cohort
from synthgen.errors import InputError
from synthgen.integration import pretrain as loop
from synthgen.integration.mix import Mix, as_ratio, real_indices
from synthgen.integration.options import Pretraining
from synthgen.integration.supply.real import RealCubes

CPU = torch.device("cpu")
PLACES = ("memory", "mapped", "file")


@pytest.fixture(scope="module")
def packed(cohort, tmp_path_factory):
    """The same cohort, compressed: only HDF5 can read it."""
    path = tmp_path_factory.mktemp("packed") / "packed.h5"
    with h5py.File(cohort.path) as theirs, h5py.File(path, "w") as ours:
        for name in theirs:
            theirs.copy(name, ours)
        scale = ours["cubes"].attrs["scale"]
        del ours["cubes"]
        ours.create_dataset("cubes", data=theirs["cubes"][:], chunks=True, compression="gzip").attrs["scale"] = scale
    return Cohort.open(path)


def opened(cohort, packed, patients, place):
    real = RealCubes(packed if place == "file" else cohort, patients, CPU, free=None if place == "memory" else 0)
    assert real.kept == place
    return real


@pytest.fixture
def patients(cohort):
    return tuple(sorted(set(cohort.patient_id)))


@pytest.mark.parametrize("place", PLACES[1:])
def test_streamed_cubes_are_those_held(cohort, packed, patients, place):
    held, streamed = (opened(cohort, packed, patients, p) for p in ("memory", place))
    mix = Mix(as_ratio("0.5"), 8)
    for step in range(12):
        wanted = real_indices(mix, step, len(held), 3)
        streamed.expect(wanted if step % 3 else wanted[::-1])  # every third time something else was announced
        for one, other in zip(held.draw(wanted), streamed.draw(wanted), strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("place", PLACES)
def test_a_batch_without_real_cubes_is_empty(cohort, packed, patients, place):
    real, none = opened(cohort, packed, patients, place), np.zeros(0, dtype=np.int64)
    real.expect(none)
    cubes, index = real.draw(none)
    assert cubes.shape == (0, cohort.bands, cohort.height, cohort.width) and index.shape == (0,)


@pytest.mark.parametrize("place", PLACES[1:])
def test_what_is_announced_is_read_before_it_is_drawn(cohort, packed, patients, place, monkeypatch):
    streamed = opened(cohort, packed, patients, place)
    read, reads = streamed._read, []
    monkeypatch.setattr(streamed, "_read", lambda index, into: (reads.extend(index), read(index, into)))
    streamed.expect(np.array([2, 5]))
    wait(streamed._coming[2])
    assert sorted(reads) == streamed.index[[2, 5]].tolist()
    streamed.draw(np.array([2, 5]))
    assert len(reads) == 2, "not read a second time"


@pytest.mark.slow
def test_the_loop_streams_to_the_same_weights(cohort, generator_folder, tmp_path, monkeypatch):
    def run(name):
        values = {
            "data": str(cohort.path), "generator": str(generator_folder), "out": str(tmp_path / name), "gates": "off",
            "batch_size": 8, "steps": 4, "sampler_steps": 1, "sampler": "euler", "backbone": "resnet10t",
        }  # fmt: skip
        return load_file(loop.pretrain(build(Pretraining, values)) / "backbone.safetensors")

    held = run("held")
    monkeypatch.setattr("synthgen.integration.supply.real.HELD_SHARE", 0.0)
    streamed = run("streamed")
    assert held.keys() == streamed.keys() and all(torch.equal(held[k], streamed[k]) for k in held)


@pytest.mark.slow
def test_a_cohort_larger_than_memory_is_never_read_at_once(cohort, generator_folder, tmp_path, monkeypatch):
    """Statistics, batches, looks and the summary: a few cubes at a time."""
    read, most = Cohort.cubes, []

    def spy(self, index=None):
        found = read(self, index)
        most.append(len(found))
        return found

    values = {
        "data": str(cohort.path), "generator": str(generator_folder), "out": str(tmp_path / "r"), "gates": "off",
        "batch_size": 8, "steps": 2, "sampler_steps": 1, "sampler": "euler", "backbone": "resnet10t",
    }  # fmt: skip
    monkeypatch.setattr("synthgen.integration.supply.real.HELD_SHARE", 0.0)
    monkeypatch.setattr("synthgen.cubes.cohort.cohort._READ_BYTES", 8 * 4 * 16 * 32 * 32)
    monkeypatch.setattr(Cohort, "cubes", spy)
    loop.pretrain(build(Pretraining, values))
    assert max(most) <= 16


def test_a_file_that_goes_away_is_reported_at_the_draw(packed, patients, tmp_path):
    moved = tmp_path / "c.h5"
    moved.write_bytes(packed.path.read_bytes())
    streamed = RealCubes(Cohort.open(moved), patients, CPU, free=0)
    moved.unlink()
    streamed.expect(np.array([0]))
    with pytest.raises(InputError, match=r"c\.h5"):
        streamed.draw(np.array([0]))


def test_a_mapped_file_cut_short_is_reported_and_one_removed_is_read_on(cohort, patients, tmp_path):
    moved = tmp_path / "c.h5"
    moved.write_bytes(cohort.path.read_bytes())
    streamed = RealCubes(Cohort.open(moved), patients, CPU, free=0)
    moved.rename(tmp_path / "d.h5")
    assert torch.equal(streamed.draw(np.array([1]))[0], torch.from_numpy(cohort.cubes(streamed.index[[1]])))
    os.truncate(tmp_path / "d.h5", 5000)
    streamed.expect(np.array([0]))
    with pytest.raises(InputError, match=r"c\.h5: the file has changed"):
        streamed.draw(np.array([0]))


@pytest.mark.cuda
@pytest.mark.parametrize("place", ["device", *PLACES])
def test_a_gpu_is_fed_the_same_from_everywhere(cohort, packed, patients, place, monkeypatch):
    if place == "memory":
        monkeypatch.setattr("synthgen.integration.supply.real.DEVICE_SHARE", 0.0)
    free = None if place in ("device", "memory") else 0
    real = RealCubes(packed if place == "file" else cohort, patients, torch.device("cuda"), free=free)
    assert real.kept == place and (place != "memory" or real._held.is_pinned())
    wanted = np.array([3, 0, 5])
    real.expect(wanted)
    assert torch.equal(real.draw(wanted)[0].cpu(), torch.from_numpy(cohort.cubes(real.index[wanted])))
