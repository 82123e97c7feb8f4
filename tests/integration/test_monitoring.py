"""The monitors see a planted collapse and a planted shortcut, and disturb nothing."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from synthgen.config import build
from synthgen.cubes.cohort.splits import load_or_make_split
from synthgen.cubes.phantom.demographics import LEARNABLE
from synthgen.cubes.reflectance import band_statistics
from synthgen.integration.monitoring import Monitor, even_subset
from synthgen.integration.options import Pretraining
from synthgen.integration.pretrain import pretrain, watch
from synthgen.integration.supply.shard_cubes import ShardCubes
from synthgen.integration.supply.source import Supply
from synthgen.runs.folder import read_metrics
from synthgen.ssl.backbone import make_backbone

CPU = torch.device("cpu")


class MeanSpectrum(torch.nn.Module):
    """A backbone that gives the mean of each band, times `scale`, plus one."""

    def __init__(self, scale=1.0):
        super().__init__()
        self.scale, self.norm = scale, torch.nn.BatchNorm1d(16)

    def forward(self, x):
        torch.rand(1)  # what a network with random layers would draw
        return self.norm(1 + self.scale * x.mean((2, 3)))


@pytest.fixture(scope="module")
def monitor_of(toy_cohort_maker, tmp_path_factory):
    cohort = toy_cohort_maker(tmp_path_factory.mktemp("monitor") / "toy.h5", patients=30)
    split = load_or_make_split(cohort, (0.5, 0.4, 0.1))

    def make(supply=None, **more):
        statistics = band_statistics(cohort.cubes())
        return Monitor(cohort, split, statistics, supply or Supply(None, None), CPU, **more)

    return make


def shards(monitor, factor):
    cubes = torch.from_numpy(monitor.cohort.cubes(monitor.held_out)) * factor
    return Supply(ShardCubes(torch.arange(len(cubes)), cubes.__getitem__, CPU, 0), None)


def test_a_look_disturbs_nothing_and_repeats_itself(monitor_of):
    monitor, backbone = monitor_of(), MeanSpectrum().train()
    state, mean = torch.get_rng_state(), backbone.norm.running_mean.clone()
    found = monitor.measure(backbone)
    assert torch.equal(state, torch.get_rng_state()) and np.array_equal(backbone.norm.running_mean, mean)
    assert backbone.training and found == monitor.measure(backbone)
    assert found["monitor/cubes"] == 24 and found["monitor/held_out"] == 1
    assert 0 <= found["monitor/knn_auroc"] <= 1 and not {"monitor/source_auroc", "monitor/targets_r2"} & set(found)
    assert 1 <= found["monitor/rankme"] <= found["monitor/rankme_ceiling"] * 1.01


def test_held_out_cubes_are_of_patients_not_trained_on(monitor_of):
    monitor = monitor_of()
    split = load_or_make_split(monitor.cohort)
    assert set(monitor.cohort.patient_id[monitor.held_out]) == set(split.calibration)
    looked_at = {*monitor.cohort.patient_id[monitor.held_out], *monitor.cohort.patient_id[monitor.labelled]}
    assert not looked_at & set(split.test)


def test_what_features_tell_of_the_covariates_is_watched(eyes):
    """Mean spectra tell the phantom's pigments, features that are all alike tell nothing; no test patient is asked."""
    split = load_or_make_split(eyes)
    monitor = Monitor(eyes, split, band_statistics(eyes.cubes(range(32))), Supply(None, None), CPU)
    assert {t.name for t in monitor.targets} == set(LEARNABLE)
    assert not set(eyes.patient_id[monitor.known]) & set(split.test)
    given, nothing = (monitor.measure(network)["monitor/targets_r2"] for network in (MeanSpectrum(), MeanSpectrum(0.0)))
    assert given > 0.15 and nothing == 0


def test_calibration_patients_who_are_trained_on_are_not_called_held_out(monitor_of):
    """`patients: known`, as in every run of a study."""
    monitor = monitor_of()
    split = load_or_make_split(monitor.cohort)
    known = split._replace(train=split.known)
    found = Monitor(monitor.cohort, known, monitor.statistics, Supply(None, None), CPU).measure(MeanSpectrum())
    assert found["monitor/held_out"] == 0


def test_a_shortcut_between_real_and_synthetic_is_seen(monitor_of):
    plain = monitor_of(count=64)
    brighter = monitor_of(shards(plain, 1.5)).measure(MeanSpectrum())["monitor/source_auroc"]
    alike = monitor_of(shards(plain, 1.0)).measure(MeanSpectrum())["monitor/source_auroc"]
    assert brighter > 0.9 and alike < 0.7


def test_a_collapse_is_reported_and_logged_but_not_of_the_untrained_network(monitor_of, capsys):
    class Run:
        def __init__(self):
            self.lines = []

        def log(self, step, **values):
            self.lines.append({"step": step, **values})

    class Method:
        backbone = MeanSpectrum()

    monitor, method, run = monitor_of(), Method(), Run()
    watch(monitor, method, run, 0)
    watch(monitor, method, run, 10)
    assert capsys.readouterr().err == "" and not any("warning" in line for line in run.lines)
    method.backbone = MeanSpectrum(1e-4)
    watch(monitor, method, run, 20)
    message = capsys.readouterr().err.strip().splitlines()
    assert len(message) == 1 and message[0].startswith("warning: step 20: the features have collapsed to a point")
    assert run.lines[-1]["warning"] in message[0]
    assert monitor_of(start=run.lines[-1]).measure(MeanSpectrum(1e-4)).get("warning") is None, "it began like this"


@pytest.mark.slow
def test_the_loop_is_the_same_with_and_without_looks(cohort, generator_folder, tmp_path):
    given = {
        "data": str(cohort.path), "generator": str(generator_folder), "gates": "report", "batch_size": 6, "steps": 4,
        "sampler_steps": 1, "sampler": "euler", "log_every": 1, "backbone": "test_resnet", "monitor_count": 16,
    }  # fmt: skip
    with_looks, without = (
        pretrain(build(Pretraining, {**given, "out": str(tmp_path / str(every)), "monitor_every": every}))
        for every in (2, 0)
    )
    first, second = (load_file(folder / "backbone.safetensors") for folder in (with_looks, without))
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    looks = [m for m in read_metrics(with_looks) if "monitor/rankme" in m]
    assert [m["step"] for m in looks] == [0, 2, 4] and len({m["monitor/cubes"] for m in looks}) == 1
    assert all(0 <= m["monitor/source_auroc"] <= 1 for m in looks)
    assert not any("monitor/rankme" in m for m in read_metrics(without))


def test_cubes_are_chosen_evenly():
    assert even_subset(np.arange(10), 4).tolist() == [0, 3, 6, 9] and even_subset(np.arange(3), 9).tolist() == [
        0,
        1,
        2,
    ]


@pytest.mark.slow
def test_a_backbone_that_is_read_at_every_stage_is_watched_too(eyes):
    split = load_or_make_split(eyes)
    monitor = Monitor(eyes, split, band_statistics(eyes.cubes(range(32))), Supply(None, None), CPU)
    ways = monitor._of_patients(make_backbone("test_resnet", 16, 64, "stages").eval())
    assert {"", "stage 1, mean", "all stages, mean, std, max"} <= set(ways)
