"""The sweep: its plan and order, failures, resume, stops; how cells are judged."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from synthgen.config import load, read_table
from synthgen.cubes.phantom.cohort import simulate_cohort
from synthgen.errors import ConfigError, MismatchError, SynthgenError
from synthgen.experiments.jobs import Slot
from synthgen.experiments.sweep.plan import Sweep, asked, cells, jobs, ordered, recipe
from synthgen.experiments.sweep.run import places, run_sweep
from synthgen.experiments.sweep.score import interpolated, judge, reconstructed, tilt_kept
from synthgen.generator.generator import Generator
from synthgen.quality.gates import load_gates
from synthgen.runs.files import read_json, write_json

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def some_eyes(tmp_path_factory):
    return simulate_cohort(tmp_path_factory.mktemp("some") / "eyes.h5", patients=20, size=64, seed=5, workers=1)


def sweep_in(folder: Path, **changes) -> Sweep:
    (folder / "eyes.h5").touch()
    places = {"data": f"{folder}/eyes.h5", "out": f"{folder}/o", "results": f"{folder}/r"}
    return load(Sweep, ROOT / "configs/sweep64.yaml", places | changes)


@pytest.mark.parametrize("name", ["sweep64", "sweep224"])
def test_the_grid_shares_nine_autoencoders_among_27_cells_that_are_all_valid(name):
    sweep = load(Sweep, ROOT / f"configs/{name}.yaml")
    plan = cells(sweep)
    assert [len(jobs(kind, plan)) for kind in ("coder", "flow", "speed")] == [9, 27, 9]
    for cell in plan:
        made = recipe(sweep, cell)
        assert made.diffusion.autoencoder == made.autoencoder.out


def test_the_grid_at_224_is_trained_as_the_recipe_at_224():
    """All that it does not vary, but for the budget and the shape of the U-Net that the original study gives."""
    sweep, recipe = (read_table(ROOT / f"configs/{name}.yaml") for name in ("sweep224", "retina224"))
    for part in ("autoencoder", "diffusion"):
        varied = {"compression", "latent_channels", "channels", "steps", "multipliers"}
        assert {k: v for k, v in sweep[part].items() if k not in varied} == {
            k: v for k, v in recipe[part].items() if k not in varied
        }


def test_ablations_are_valid_and_steps_share_a_training():
    sweep = load(Sweep, ROOT / "configs/ablations64.yaml")
    plan = cells(sweep)
    for cell in plan:
        recipe(sweep, cell)
    common = next(job for job in jobs("flow", plan) if job.cells[0].name == "common")
    assert [c.name for c in common.cells] == ["common", *(f"steps{n}" for n in (2, 4, 16, 32, 64))]
    assert len(jobs("coder", plan)) == 7


def test_cells_of_the_better_autoencoder_come_first_and_unknown_ones_last():
    plan = cells(load(Sweep, ROOT / "configs/sweep64.yaml"))
    coders = list(dict.fromkeys(c.coder for c in plan))
    order = ordered(plan, {coders[4]: 1.0, coders[2]: 2.0})
    assert [c.coder for c in order[:6]] == [coders[4]] * 3 + [coders[2]] * 3
    assert sorted(c.file for c in order) == sorted(c.file for c in plan)


class Done:
    """A process that has ended."""

    def __init__(self, returncode: int):
        self.returncode = returncode

    def poll(self) -> int:
        return self.returncode

    def terminate(self) -> None: ...

    def wait(self, _: float) -> int:
        return self.returncode


class Jobs:
    """Stands in for the processes: does a job at once, fails those named, and keeps what it was asked for."""

    def __init__(self, *failing: str):
        self.failing, self.asked = failing, []

    def __call__(self, sweep: Sweep, job, slot: Slot) -> Done:
        self.asked.append((job.kind, job.name, slot))
        if job.name in self.failing:
            log = Path(sweep.out) / "logs" / f"{job.name}.log"
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_text("error: out of memory\n")
            return Done(2)
        if job.kind == "coder":
            distance = {"interpolation_frechet": float(int(job.name[-4:], 16))}
            write_json(Path(sweep.out) / job.name / "screen.json", distance)
        for cell in job.cells if job.kind != "coder" else ():
            speed = {"cubes_per_s": [5.0, 5.0, 5.0]} if job.kind == "speed" else None
            figures = {"frechet": [1.0, 0.9, 1.1], "ms_ssim_gap": [0.1, 0.0, 0.2]}
            path = Path(sweep.results) / cell.file
            write_json(path, {"status": "done", **asked(sweep, cell), "figures": figures, "speed": speed})
        return Done(0)


@pytest.mark.slow
def test_finished_cells_of_other_eyes_or_gates_are_not_taken_for_these(some_eyes, tmp_path: Path):
    sweep = sweep_in(tmp_path, data=str(some_eyes.path), gates="phantom64")
    cell, doing = cells(sweep)[0], Jobs()
    mine = {"cohort": some_eyes.content_hash, "gates_hash": load_gates("phantom64").hash}
    for other, words in (({"cohort": "0" * 32}, "another cohort"), ({"gates_hash": "0" * 32}, "other gates"), ({}, "")):
        kept = {"status": "done", **asked(sweep, cell), "figures": {}, "speed": {"cubes_per_s": [1]}, **mine, **other}
        write_json(Path(sweep.results) / cell.file, kept)
        if other:
            with pytest.raises(MismatchError, match=words):
                run_sweep(sweep, doing)
            assert not doing.asked
        else:
            run_sweep(sweep, doing)
            assert read_json(Path(sweep.results) / cell.file) == kept


@pytest.mark.slow
def test_failures_are_recorded_the_rest_goes_on_and_nothing_is_done_twice(tmp_path: Path, capsys):
    sweep = sweep_in(tmp_path)
    plan = cells(sweep)
    coder, flow = plan[0].coder, next(c for c in plan if c.coder != plan[0].coder).flow
    first = Jobs(coder, flow)
    paths = run_sweep(sweep, first)
    kinds = [kind for kind, _, _ in first.asked]
    assert kinds == sorted(kinds) and [kinds.count(k) for k in ("coder", "flow", "speed")] == [9, 24, 8]
    records = [read_json(p) for p in paths]
    reasons = [r["reason"] for r in records if r["status"] == "failed"]
    out_of_memory = lambda name: f"out of memory (see {tmp_path}/o/logs/{name}.log)"
    assert sorted(reasons) == [f"needs {coder}: {out_of_memory(coder)}"] * 3 + [out_of_memory(flow)]
    assert "FAILED: out of memory" in capsys.readouterr().err

    second = Jobs()
    run_sweep(sweep, second)
    assert {name for kind, name, _ in second.asked if kind == "flow"} == {
        flow, *(c.flow for c in plan if c.coder == coder)}  # fmt: skip
    assert {read_json(p)["status"] for p in paths} == {"done"}
    third = Jobs()
    run_sweep(sweep, third)
    assert not third.asked
    run_sweep(sweep.model_copy(update={"time_again": True}), third)
    assert [kind for kind, _, _ in third.asked] == ["speed"] * 9
    more = Jobs()
    run_sweep(sweep.model_copy(update={"seeds": (0, 1)}), more)
    assert len([1 for kind, _, _ in more.asked if kind == "flow"]) == 27
    assert len(list((tmp_path / "r").glob("*.json"))) == 54


@pytest.mark.slow
def test_flows_follow_the_screening_and_timing_has_the_machine_to_itself(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("SYNTHGEN_THREADS", "6")
    sweep, ran = sweep_in(tmp_path, devices=2), Jobs()
    assert [s.threads for s in places(sweep)] == [3, 3]
    run_sweep(sweep, ran)
    of = {c.flow: c.coder for c in cells(sweep)}
    distances = [int(of[name][-4:], 16) for kind, name, _ in ran.asked if kind == "flow"]
    assert distances == sorted(distances)
    assert {slot.threads for kind, _, slot in ran.asked if kind == "speed"} == {6}


def test_an_impossible_setting_is_no_reason_not_to_begin(tmp_path: Path):
    sweep = sweep_in(tmp_path, compression=[3], variants={"odd": {"diffusion": {"chanels": 8}}})
    for cell in cells(sweep):
        with pytest.raises(SynthgenError):
            recipe(sweep, cell)
    with pytest.raises(ConfigError, match="no cells"):
        cells(sweep_in(tmp_path, compression=[]))


@pytest.mark.slow
def test_ctrl_c_ends_the_children_and_the_same_command_goes_on(tmp_path: Path):
    sweep, children = sweep_in(tmp_path), []

    def start(sweep: Sweep, job, slot: Slot):
        children.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]))
        return children[-1]

    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    begun = time.monotonic()
    with pytest.raises(SynthgenError, match="0 of 45 jobs are finished") as stopped:
        run_sweep(sweep, start)
    assert stopped.value.exit_code == 130 and time.monotonic() - begun < 20
    assert len(children) == 2 and all(child.poll() is not None for child in children)
    assert not list((tmp_path / "r").glob("*.json"))
    again = Jobs()
    run_sweep(sweep, again)
    assert len(again.asked) == 9 + 27 + 9


@pytest.mark.slow
def test_real_cubes_are_nearer_to_real_cubes_than_spoilt_ones(some_eyes):
    gates, real = load_gates("phantom64"), torch.from_numpy(some_eyes.cubes(range(len(some_eyes))))
    same, spoilt = (np.array(list(judge(gates, real, x).values()), dtype=float) for x in (real, real**1.3))
    assert (same[:, 0] < 1e-6).all()
    assert (spoilt[[0, 2, 3, 4], 0] > 0.1).all()  # MS-SSIM, the second, tells variety
    for figures in (same, spoilt):
        assert (figures[:, 1] <= figures[:, 0]).all() and (figures[:, 0] <= figures[:, 2]).all()
    blank = judge(gates, real, torch.full_like(real, 0.05))
    assert blank["kl_vein"] is None  # there are no vessels to compare


@pytest.mark.slow
def test_half_way_between_equal_cubes_lies_their_reconstruction(some_eyes):
    generator = Generator.load("phantom64", "cpu")
    cubes = torch.from_numpy(some_eyes.cubes(range(8)))
    made = interpolated(generator.autoencoder, torch.cat([cubes, cubes]))
    plain = generator.decode(generator.encode(cubes))
    assert (made - torch.cat([plain, plain])).abs().mean() < 1e-4
    assert (interpolated(generator.autoencoder, cubes) - plain).abs().mean() > 1e-3


@pytest.mark.slow
def test_the_share_of_a_tilt_that_encoding_keeps_is_measured_on_unseen_patients(some_eyes, tmp_path: Path):
    model = Generator.load("phantom64", "cpu").autoencoder
    more_eyes = simulate_cohort(tmp_path / "more.h5", patients=60, size=64, seed=6, workers=1)  # 18 of them unseen
    kept = tilt_kept(model, more_eyes)
    assert all(0.9 < low <= value <= high < 1.1 for value, low, high in kept.values()) and len(kept) == 2
    longer = replace(some_eyes, wavelengths=tuple(nm + 400 for nm in some_eyes.wavelengths))
    assert tilt_kept(model, longer) == {"tilt_retained": None, "tilt_left_half": None}  # no band that short
    cubes = torch.from_numpy(some_eyes.cubes(range(3)))
    assert (reconstructed(model, cubes) - cubes).abs().mean() < 0.02


@pytest.mark.torture
def test_two_cells_of_real_processes_one_of_them_impossible(some_eyes, tmp_path: Path):
    sweep = load(Sweep, ROOT / "configs/sweep64.yaml", {
        "data": str(some_eyes.path), "out": f"{tmp_path}/o", "results": f"{tmp_path}/r", "devices": 1,
        "compression": [8], "latent_channels": [8], "channels": [16, 18], "samples": 64, "timed": 32,
        "autoencoder": {"codes": 64, "steps": 8, "batch_size": 4, "ms_ssim_weight": 0.0},
        "diffusion": {"multipliers": [1, 2, 3], "steps": 8, "batch_size": 8}})  # fmt: skip
    good, bad = (read_json(path) for path in run_sweep(sweep))
    assert good["status"] == "done" and good["speed"]["cubes_per_s"][0] > 0
    assert good["trained"]["diffusion"]["steps"] == 8 and good["figures"]["frechet"][0] > 0
    assert good["tilt_retained"][1] <= good["tilt_retained"][0] <= good["tilt_retained"][2]
    assert bad["status"] == "failed" and "attention_heads" in bad["reason"]
