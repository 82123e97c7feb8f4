"""The rolling window: when it looks, at what level, what a fail changes, and that nothing else does."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from synthgen.config import build
from synthgen.contracts import Admission, Check, Provenance, Status, Tokens, Verdict
from synthgen.errors import ConfigError
from synthgen.generator.dataset import SyntheticRetinaDataset
from synthgen.integration.options import Pretraining
from synthgen.integration.pretrain import pretrain
from synthgen.integration.supply import open as opening
from synthgen.integration.supply.pool import SyntheticPool
from synthgen.integration.supply.pool_state import reshard
from synthgen.integration.supply.rolling_window import Window, level_of
from synthgen.integration.supply.source import OPEN, AdmissionState, admission_of
from synthgen.quality.gates import load_gates
from synthgen.quality.sets.table import Rows
from synthgen.runs.folder import read_metrics
from synthgen.runs.state import load_state, save_state


class Scripted:
    """Gates that admit every cube but each seventh, and whose verdicts are fixed beforehand."""

    images = 3

    def __init__(self, *states):
        self.states, self.seen, self.levels = list(states), [], []
        self.limits = SimpleNamespace(sets=[SimpleNamespace(size=s) for s in (12, 24, 1000)])

    def __call__(self, cubes):
        marks = cubes.double().sum((1, 2, 3)).long() % 7 != 0
        n = len(cubes)
        scores = {
            "copy": ~marks,
            "authenticity": cubes.mean((1, 2, 3)),
            "pigment": torch.zeros(n),
            "side": torch.ones(n),
        }
        return Admission(marks, ("odd",) * int((~marks).sum()), scores, {"mean": cubes.mean((1, 2, 3))})

    def rows(self, admission):
        return Rows.of({"mean": admission.columns["mean"][admission.accept].numpy()}, made_by="scripted")

    def similarity(self, cubes):
        return np.eye(len(cubes))

    def certify(self, rows, acceptance, similarity, generator_hash, *, alpha):
        self.seen.append((rows["mean"].copy(), acceptance.proposed, len(similarity)))
        self.levels.append(alpha)
        status = self.states.pop(0) if self.states else Status.PASS
        check = Check(name="set", status=status, value=1.0, limit=1.0, n=len(rows), reason="as scripted")
        return Verdict(status=status, checks=(check,), generator_hash=generator_hash)


def make_pool(generator, gates, rank=0, world=1, window=True, mean=lambda x: x, reuse=2, **more):
    dataset = SyntheticRetinaDataset(
        generator, seed=5, steps=1, sampler="euler", gates=gates, output="tokens", rank=rank, world=world
    )
    watch = Window(gates, generator.decode, size=24, every=10, world=world, **more) if window else None
    pool = SyntheticPool(dataset, 4, seed=5, rank=rank, reuse=reuse, mean=mean, window=watch)
    pool.fill()
    return pool


def drawn(pool, steps, start=0):
    return [pool.draw(4, step)[1].tolist() for step in range(start, steps)]


def test_the_levels_of_all_looks_sum_to_five_per_cent():
    for world in (1, 3):
        total = world * sum(level_of(k, world) for k in range(1, 20001))
        assert 0.0499 < total < 0.05


def test_it_looks_at_the_newest_cubes_every_so_often(generator):
    gates = Scripted()
    pool = make_pool(generator, gates)
    drawn(pool, 60)
    assert len(gates.seen) == pool.window.looks == pool.counters()["window/looks"] >= 4
    assert all(12 <= len(rows) <= 24 for rows, _, _ in gates.seen) and len(gates.seen[-1][0]) == 24
    assert all(images == 3 for _, _, images in gates.seen)
    assert gates.levels == [level_of(k, 1) for k in range(1, len(gates.levels) + 1)]
    accepted = np.concatenate([gates.rows(c.admission)["mean"] for c in every_chunk(generator, gates, pool.proposed)])
    last = gates.seen[-1][0]
    at = next(i for i in range(len(accepted)) if np.array_equal(accepted[i : i + 24], last))
    assert len(accepted) - (at + 24) < 10 + generator.chunk, "the window is not the newest cubes"


def every_chunk(generator, gates, proposed):
    dataset = SyntheticRetinaDataset(
        generator, seed=5, steps=1, sampler="euler", gates=gates, output="tokens", rank=0, world=1, count=proposed
    )
    return list(dataset.chunks())


def test_a_window_that_passes_changes_nothing(generator):
    plain, watched = make_pool(generator, Scripted(), window=False), make_pool(generator, Scripted())
    assert drawn(plain, 60) == drawn(watched, 60)
    shared = plain.counters()
    assert shared == {k: v for k, v in watched.counters().items() if k in shared}


@pytest.mark.slow
def test_a_fail_ends_admission_and_training_goes_on(generator):
    gates = Scripted(Status.PASS, Status.UNDECIDED, Status.FAIL)
    pool = make_pool(generator, gates)
    before = drawn(pool, 200)
    assert pool.admission.stopped and 0 < pool.admission.failed_at < 199
    proposed, held = pool.proposed, len(pool.draw_count)
    assert held == pool.accepted, "what was used up before the fail is at hand again"
    after = drawn(pool, 260, start=200)
    assert pool.proposed == proposed and len(gates.seen) == 3
    assert all(len(set(ids)) == 4 for ids in before + after)
    counts = np.bincount(np.concatenate(before + after))
    draws = counts[counts > 0]
    assert len(draws) == held and draws.max() - draws.min() <= 1, "every cube is drawn as often as any other"
    assert pool.overdrawn == np.maximum(draws - pool.reuse, 0).sum() == pool.counters()["pool/overdrawn"] > 0


@pytest.mark.slow
def test_under_report_a_fail_is_only_on_record(generator):
    gates = Scripted(Status.FAIL)
    plain, watched = make_pool(generator, Scripted(), window=False), make_pool(generator, gates, closes=False)
    assert drawn(plain, 60) == drawn(watched, 60)
    assert watched.admission.failed_at is not None and not watched.admission.stopped and len(gates.seen) > 1


def test_the_fail_of_another_rank_stops_this_one(generator):
    gates = Scripted()
    pool = make_pool(generator, gates, mean=lambda x: (x + 1) / 2)
    assert pool.admission.stopped and pool.admission.failed_at == 0 and pool.proposed == pool.chunk
    assert not pool.window.failed


@pytest.mark.slow
@pytest.mark.parametrize("stop", [3, 30, 70])
def test_resumed_equals_uninterrupted(generator, tmp_path, stop):
    given = (Status.PASS, Status.PASS, Status.UNDECIDED, Status.FAIL)
    whole = make_pool(generator, Scripted(*given))
    drawn(whole, stop)
    save_state(tmp_path / "s", whole.state_dict())
    expected = drawn(whole, 120, start=stop)
    assert whole.admission.stopped
    part = make_pool(generator, Scripted())
    part.load_state_dict(load_state(tmp_path / "s"))
    part.dataset.gates.states = list(given)[part.window.looks :]
    assert drawn(part, 120, start=stop) == expected
    assert part.counters() == whole.counters() and part.admission[:3] == whole.admission[:3]
    assert part.window.verdict == whole.window.verdict and part.window.acceptance == whole.window.acceptance
    assert np.array_equal(part.window.rows["mean"], whole.window.rows["mean"])


@pytest.mark.slow
def test_a_stopped_run_resharded_to_other_processes_stays_stopped(generator):
    pools = [make_pool(generator, Scripted(Status.PASS, Status.FAIL), rank=r, world=2) for r in range(2)]
    for pool in pools:
        drawn(pool, 200)
    states = [p.state_dict() for p in pools]
    assert all(s["admission"][2] for s in states)
    held = sorted(i for s in states for i in s["id"].tolist())
    resharded = [reshard(states, r, 3) for r in range(3)]
    assert sorted(i for s in resharded for i in s["id"].tolist()) == held
    for rank, state in enumerate(resharded):
        pool = make_pool(generator, Scripted(), rank=rank, world=3)
        pool.load_state_dict(state)
        proposed = pool.proposed
        assert set(np.concatenate(drawn(pool, 20)).tolist()) <= set(held) and pool.proposed == proposed


@pytest.mark.parametrize(
    ("stopped_at", "failed_at", "found"),
    [(None, None, OPEN), (None, 3, AdmissionState(3)), (3, 3, AdmissionState(3, "", True))],
)
def test_the_admission_of_checkpoints_of_earlier_versions_is_read(stopped_at, failed_at, found):
    assert admission_of({"stopped_at": stopped_at, "window": {"failed_at": failed_at}}) == found


def test_a_window_too_small_to_judge_is_refused(generator):
    with pytest.raises(ConfigError, match="at least 12"):
        Window(Scripted(), generator.decode, size=11)
    assert Window(Scripted(), generator.decode).size == 24, "the largest calibrated size up to 400"


@pytest.fixture
def scripted_run(cohort, generator_folder, monkeypatch):
    """Pretrain with gates that pass the generator and then answer what the test states."""

    def call(out, *states, **more):
        gates = Scripted(*states)
        gates.provenance, gates.hash = Provenance.of("0" * 32, ["somebody"]), "given"
        monkeypatch.setattr(opening, "open_gates", lambda *_, **__: gates)
        monkeypatch.setattr(opening, "certify", lambda *_, **__: Verdict(status=Status.PASS))
        monkeypatch.setattr(opening, "tilt_checks", lambda *_: [])
        values = {
            "data": str(cohort.path), "generator": str(generator_folder), "out": str(out), "gates": "require",
            "batch_size": 8, "steps": 40, "sampler_steps": 1, "sampler": "euler", "log_every": 1, "reuse": 1,
            "checkpoint_every": 10, "backbone": "resnet10t", "gate_window": 24, "gate_every": 10,
        }  # fmt: skip
        return pretrain(build(Pretraining, {**values, **more}))

    return call


@pytest.mark.slow
def test_the_user_is_warned_everywhere(scripted_run, tmp_path, capsys):
    run = scripted_run(tmp_path / "r", Status.PASS, Status.PASS, Status.FAIL)
    message = [line for line in capsys.readouterr().err.splitlines() if "failed the last" in line]
    lines = [m for m in read_metrics(run) if "gates" in m]
    stopped = next(m["gates"] for m in lines if m["gates"] != "pass")
    step = int(stopped.removeprefix("stopped at step "))
    assert 0 < step < 39 and len(message) == 1 and f"at step {step} " in message[0] and "as scripted" in message[0]
    assert [m["gates"] for m in lines] == ["pass"] * step + [stopped] * (40 - step)
    assert {m["synthetic_share"] for m in lines} == {0.5} and lines[-1]["pool/overdrawn"] > 0
    stamp = f"uncertified after step {step}"
    assert json.loads((run / "summary.json").read_text())["gates"] == stamp
    assert stamp in (run / "backbone.json").read_text()
    assert json.loads((run / "window_verdict.json").read_text())["status"] == "fail"


@pytest.mark.slow
def test_under_report_the_run_goes_on_and_says_so(scripted_run, tmp_path, capsys):
    run = scripted_run(tmp_path / "r", Status.FAIL, gates="report")
    assert "used all the same" in capsys.readouterr().err
    last = [m for m in read_metrics(run) if "gates" in m][-1]
    assert last["gates"] == "failed at step 0" and last["pool/overdrawn"] == 0
    assert json.loads((run / "summary.json").read_text())["gates"] == "uncertified after step 0"


@pytest.mark.slow
def test_real_gates_let_unseen_eyes_go_on_and_stop_a_few_that_come_again_and_again(small_gates, fresh_eyes):
    """Each cube passes by itself; only the set tells that these are three eyes under noise."""
    gates, cubes = load_gates(small_gates), torch.from_numpy(fresh_eyes.cubes())
    sound = cubes[gates(cubes).accept]
    noise = 1 + 0.01 * torch.randn(len(sound), 16, 64, 64, generator=torch.Generator().manual_seed(0))
    few = (sound[:3].repeat(40, 1, 1, 1)[: len(sound)] * noise).clamp(0, 1)
    for shown, fails in ((sound, False), (few, True)):
        window = Window(gates, lambda tokens, shown=shown: shown[tokens.id], every=25)
        assert window.size == 25
        states = []
        for start in range(0, len(shown), 16):
            ids = torch.arange(start, min(start + 16, len(shown)))
            admission = gates(shown[ids])
            held = ids[admission.accept]
            window.add(admission, Tokens(torch.zeros(len(held), 1, 1, 1), torch.zeros(len(held), 0), held, "g"))
            if window.due:
                states.append(window.look().status)
        assert len(states) >= 2 and (Status.FAIL in states) == fails, states
