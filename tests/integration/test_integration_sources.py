"""Real cubes held or streamed: the same batches, read ahead, and a fault in the file told where it is drawn."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from synthgen.config import build
from synthgen.cubes.cohort import Cohort
from synthgen.errors import InputError
from synthgen.integration import pretrain as loop
from synthgen.integration.mix import Mix, as_ratio, real_indices
from synthgen.integration.options import Pretraining
from synthgen.integration.sources import RealCubes

CPU = torch.device("cpu")


@pytest.fixture
def patients(cohort):
    return tuple(sorted(set(cohort.patient_id)))


def test_streamed_cubes_are_those_held(cohort, patients):
    held, streamed = RealCubes(cohort, patients, CPU), RealCubes(cohort, patients, CPU, free=0)
    assert (held.kept, streamed.kept) == ("memory", "file")
    mix = Mix(as_ratio("0.5"), 8)
    for step in range(12):
        wanted = real_indices(mix, step, len(held), 3)
        streamed.expect(wanted if step % 3 else wanted[::-1])  # every third time something else was announced
        for one, other in zip(held.draw(wanted), streamed.draw(wanted), strict=True):
            assert torch.equal(one, other)


def test_what_is_announced_is_read_before_it_is_drawn(cohort, patients, monkeypatch):
    streamed = RealCubes(cohort, patients, CPU, free=0)
    read, reads = Cohort.cubes, []
    monkeypatch.setattr(Cohort, "cubes", lambda self, index=None: (reads.append(list(index)), read(self, index))[1])
    streamed.expect(np.array([2, 5]))
    streamed._coming[1].result()
    assert reads == [streamed.index[[2, 5]].tolist()]
    streamed.draw(np.array([2, 5]))
    assert len(reads) == 1, "not read a second time"


def test_the_loop_streams_to_the_same_weights(cohort, generator_folder, tmp_path, monkeypatch):
    def run(name):
        values = {
            "data": str(cohort.path), "generator": str(generator_folder), "out": str(tmp_path / name), "gates": "off",
            "batch_size": 8, "steps": 4, "sampler_steps": 1, "sampler": "euler", "backbone": "resnet10t",
        }  # fmt: skip
        return load_file(loop.pretrain(build(Pretraining, values)) / "backbone.safetensors")

    held = run("held")
    monkeypatch.setattr("synthgen.integration.sources.HELD_SHARE", 0.0)
    streamed = run("streamed")
    assert held.keys() == streamed.keys() and all(torch.equal(held[k], streamed[k]) for k in held)


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
    monkeypatch.setattr("synthgen.integration.sources.HELD_SHARE", 0.0)
    monkeypatch.setattr("synthgen.cubes.cohort._READ_BYTES", 8 * 4 * 16 * 32 * 32)
    monkeypatch.setattr(Cohort, "cubes", spy)
    loop.pretrain(build(Pretraining, values))
    assert max(most) <= 16


def test_a_file_that_goes_away_is_told_at_the_draw(cohort, patients, tmp_path):
    moved = tmp_path / "c.h5"
    moved.write_bytes(cohort.path.read_bytes())
    streamed = RealCubes(Cohort.open(moved), patients, CPU, free=0)
    moved.unlink()
    streamed.expect(np.array([0]))
    with pytest.raises(InputError, match=r"c\.h5"):
        streamed.draw(np.array([0]))
