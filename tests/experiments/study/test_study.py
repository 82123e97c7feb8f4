"""The study: the same patients everywhere, finished jobs never run again, paired comparisons, words that fit."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from synthgen.command_line.command import Command
from synthgen.config import build, load
from synthgen.cubes.cohort.cohort import Cohort
from synthgen.cubes.cohort.splits import load_or_make_split
from synthgen.errors import ConfigError, InputError, LeakError, MismatchError, Stopped
from synthgen.experiments import jobs as processes
from synthgen.experiments.study.job import check_same_patients, pretraining_of, run_job, steps_of
from synthgen.experiments.study.options import ARMS, Study
from synthgen.experiments.study.plan import fingerprint_of, job_name, jobs_of, made_by, outcome_path
from synthgen.experiments.study.run import StudyError, run_study, run_study_here
from synthgen.runs.files import remove, write_json
from tests.experiments.study.studies import TINY, leave, outcome


@pytest.fixture
def of_two_cohorts(make_study, toy_cohort_maker, tmp_path):
    """A study that probes other people than those of `data`, with a table of their labels; both may be changed."""
    data, labelled = (toy_cohort_maker(tmp_path / f"{n}.h5", patients=8, seed=n) for n in (5, 6))
    load_or_make_split(data, (0.4, 0.3, 0.3))
    table = tmp_path / "t.csv"
    table.write_text("\n".join(["patient,late", *(f"{p},{i % 2}" for i, p in enumerate(labelled.patients))]) + "\n")
    places = {"data": str(data.path), "labelled": str(labelled.path), "table": str(table), "label": "late"}
    return make_study(seeds=[0], arms=["real"], **places)


# ---- the plan


def test_every_job_comes_after_what_it_needs_and_every_arm_has_every_seed(make_study):
    study = make_study(seeds=[0, 4], seeds_of={"real-much-longer": [4]})
    jobs, before = jobs_of(study), set()
    for job in jobs:
        assert set(job.needs) <= before, job
        before.add(job.name)
    assert len(before) == len(jobs)
    seeds = {name: [j.seed for j in jobs if j.arm is not None and j.arm.name == name] for name in ARMS}
    assert seeds.pop("mean-spectra") == [0] and seeds.pop("real-much-longer") == [4]
    assert set(map(tuple, seeds.values())) == {(0, 4)}


def test_only_what_the_arms_need_is_made(make_study):
    names = lambda **more: [job.name for job in jobs_of(make_study(seeds=[0], **more))]
    assert names(arms=["real"]) == ["real-seed0"]
    assert names(arms=["gates-off"]) == ["generator", "gates-off-seed0"]
    assert names(arms=["procedural"]) == ["procedural-set", "procedural-seed0"]
    given = {"given_generator": "phantom64", "given_gates": "phantom64"}
    assert names(arms=["real", "mixed-0.5"], **given) == ["real-seed0", "mixed-0.5-seed0"]
    assert names(arms=["real-longer"]) == ["generator", "gates", "real-seed0", "mixed-0.5-seed0", "real-longer-seed0"]


def test_arms_differ_in_what_they_say_and_in_nothing_else(make_study, tmp_path):
    study = make_study()
    plain = pretraining_of(study, ARMS["real"], 3, tmp_path, 7)
    assert plain.patients == "known" and plain.seed == 3 and plain.steps == 7
    changed = {
        "mixed-0.25": {"synthetic_ratio", "generator", "gates", "gates_folder"},
        "gates-off": {"synthetic_ratio", "generator"},
        "reuse-1": {"synthetic_ratio", "generator", "gates", "gates_folder", "reuse"},
        "synthetic-first": {"synthetic_ratio", "generator", "gates", "gates_folder", "ratio_schedule"},
        "procedural": {"synthetic_ratio", "shards"},
        "reuse-inf": {"synthetic_ratio", "shards", "gates", "gates_folder"},
        "real-strong": {"augmentation"},
        "real-longer": set(),
    }
    for name, expected in changed.items():
        arm = pretraining_of(study, ARMS[name], 3, tmp_path, 7)
        assert {k for k in type(arm).model_fields if getattr(arm, k) != getattr(plain, k)} == expected, name


def test_equal_wall_clock_counts_the_generator_or_not(make_study):
    study = make_study(seeds=[0])
    for job in jobs_of(study):
        leave(study, outcome(study, job))
    assert steps_of(study, ARMS["real"], 0) == 2
    assert steps_of(study, ARMS["real-longer"], 0) == 5  # 25 s against 10 s
    assert steps_of(study, ARMS["real-much-longer"], 0) == 20  # and 60 s of generator, 15 s of gates


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"arms": ["mixed-0.3"]}, "no arm 'mixed-0.3'"),
        ({"pretrain": {"synthetic_ratio": 0.25}}, "'pretrain.synthetic_ratio' differs between arms"),
        ({"pretrain": {"out": "elsewhere"}}, "'pretrain.out' is set by the study"),
        ({"generator": {"patients": "all"}}, "'generator.patients' is set by the study"),
        ({"given_generator": "phantom64"}, "needs the gates"),
        ({"generator": {"autoencoder": {"codez": 3}}}, "unknown key"),
    ],
)
def test_impossible_studies_are_refused(make_study, more, message):
    with pytest.raises(ConfigError, match=message):
        make_study(**more)


def test_the_resolved_study_can_be_read_back(make_study, tmp_path):
    study = make_study(seeds=[1], seeds_of={"real": [2]})
    (tmp_path / "s.yaml").write_text(study.to_yaml())
    assert load(Study, tmp_path / "s.yaml") == study


@pytest.mark.parametrize("name", ["study", "study_small"])
def test_the_recipes_are_valid_and_flags_reach_their_parts(name):
    path = Path(__file__).parents[3] / "configs" / f"{name}.yaml"
    flags = ["--config", str(path), "--seeds", "[5]", "--pretrain.steps", "3", "--generator.autoencoder.codes", "64"]
    study = Command(Study, "study").read([*flags, "--out", "elsewhere"])
    assert study.seeds == (5,) and study.pretrain.steps == 3 and study.generator.autoencoder.codes == 64
    assert study.generator.out == "elsewhere/generator" and study.arms == tuple(ARMS)


def test_the_fingerprint_holds_what_arms_share_and_no_more(make_study, tmp_path):
    same = {
        fingerprint_of(make_study(**m)) for m in ({}, {"seeds": [7]}, {"arms": ["real"]}, {"out": str(tmp_path / "b")})
    }
    assert len(same) == 1 and fingerprint_of(make_study(results=str(tmp_path / "r"))) in same
    assert fingerprint_of(make_study(pretrain=TINY | {"steps": 3})) not in same
    assert fingerprint_of(make_study(generator={"autoencoder": {"codes": 64}})) not in same


# ---- the engine, with processes that only leave an outcome


def fake(started, broken=(), stop_at=None):
    def start(study, job, slot):
        started.append(job.name)
        if job.name == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
            return subprocess.Popen(["sleep", "60"])
        if job.name in broken:
            return subprocess.Popen(["false"])
        if job.arm is None:
            made_by(study, job.name).mkdir(parents=True, exist_ok=True)
        text = json.dumps(outcome(study, job).model_dump(mode="json"))
        path = outcome_path(study, job.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(text)
        return subprocess.Popen(["mv", str(part), str(path)])

    return start


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(processes, "POLL_SECONDS", 0.02)


@pytest.mark.slow
def test_a_study_that_was_stopped_goes_on_without_repeating_anything(make_study):
    study, first, second, third = make_study(seeds=[0], workers=1), [], [], []
    names = [job.name for job in jobs_of(study)]
    with pytest.raises(Stopped, match=f"5 of {len(names)} jobs are finished"):
        run_study(study, fake(first, stop_at=names[5]))
    assert first == names[:6]
    run_study(study, fake(second))
    assert second == names[5:]
    run_study(study.model_copy(update={"seeds": (0, 1)}), fake(third))  # runs add up
    assert third == [job_name(name, 1) for name in ARMS if name != "mean-spectra"]
    found = json.loads((outcome_path(study, "x").parents[1] / "study.json").read_text())
    assert {tuple(arm["seeds"]) for arm in found["arms"] if arm["arm"] != "mean-spectra"} == {(0, 1)}
    assert (outcome_path(study, "x").parents[1] / "study.png").stat().st_size > 10_000


@pytest.mark.slow
def test_jobs_are_dealt_over_the_workers(make_study):
    study, together, running = make_study(seeds=[0, 1], workers=3, arms=["real", "random-weights"]), [], []

    def start(study, job, slot):
        running[:] = [p for p in running if p.poll() is None]
        process = subprocess.Popen(
            ["sh", "-c", f"sleep 0.3; cp {prepared(study, job)} {outcome_path(study, job.name)}"]
        )
        running.append(process)
        together.append(len(running))
        return process

    def prepared(study, job):
        path = outcome_path(study, job.name).parents[1] / f"{job.name}.ready"
        outcome_path(study, job.name).parent.mkdir(parents=True, exist_ok=True)
        write_json(path, outcome(study, job).model_dump(mode="json"))
        return path

    run_study(study, start)
    assert max(together) == 3 and len(together) == 4


@pytest.mark.slow
def test_a_job_that_fails_stops_only_those_that_need_it(make_study):
    study, started = make_study(seeds=[0], workers=1, arms=["real", "mixed-0.5", "procedural"]), []
    with pytest.raises(StudyError, match=r"2 of 6 jobs failed.* generator: exit code 1 .see .*logs/generator.log"):
        run_study(study, fake(started, broken=["generator"]))
    assert "mixed-0.5-seed0" not in started and {"real-seed0", "procedural-seed0", "gates"} <= set(started)
    again = []
    run_study(study, fake(again))
    assert again == ["generator", "mixed-0.5-seed0"]


def test_results_of_other_settings_are_not_mixed_in(make_study):
    study = make_study(seeds=[0], arms=["real"])
    run_study(study, fake([]))
    with pytest.raises(MismatchError, match="other data, labels, split or settings"):
        run_study(make_study(seeds=[0], arms=["real"], pretrain=TINY | {"steps": 3}), fake([]))


def test_corrected_labels_and_a_changed_split_are_not_mixed_with_old_results(of_two_cohorts):
    study, table = of_two_cohorts, Path(of_two_cohorts.table)
    run_study(study, fake([]))
    given = table.read_text()
    table.write_text(given.replace(",0", ",2", 1).replace(",1", ",0", 1).replace(",2", ",1", 1))
    with pytest.raises(MismatchError, match="other data, labels, split or settings"):
        run_study(study, fake([]))
    table.write_text(given)
    again = []
    run_study(study, fake(again))
    assert again == [], "the old labels are the old study"
    cohort = Cohort.open(study.data)
    cohort.path.with_name(cohort.path.name + ".split.json").unlink()
    load_or_make_split(cohort, (0.4, 0.3, 0.3), seed=1)
    with pytest.raises(MismatchError, match="other data, labels, split or settings"):
        run_study(study, fake([]))


@pytest.mark.slow
def test_results_may_lie_apart_and_a_generator_is_made_anew_only_where_it_is_needed(make_study, tmp_path):
    """A checkout has the results (they are committed) and none of the folders."""
    study, started = make_study(seeds=[0], arms=["real", "gates-off", "reuse-inf"], results=str(tmp_path / "kept")), []
    run_study(study, fake(started))
    assert {p.stem for p in (tmp_path / "kept").glob("*.json")} == set(started)
    assert not (Path(study.out) / "results").exists()
    places = {name: made_by(study, name) for name in ("generator", "gates", "fixed-set")}
    for place in places.values():
        remove(place)
    asked = lambda **seeds: study.model_copy(update={"seeds_of": {k.replace("_", "-"): v for k, v in seeds.items()}})
    again, first, second = [], [], []
    run_study(study, fake(again))
    assert again == []
    run_study(asked(gates_off=(0, 1)), fake(first))
    assert first == ["generator", "gates-off-seed1"]
    remove(places["generator"])
    places["gates"].mkdir(parents=True)
    places["fixed-set"].mkdir(parents=True)
    run_study(asked(reuse_inf=(0, 1)), fake(second))
    assert second == ["generator", "fixed-set", "reuse-inf-seed1"], "the tokens of the set were the old generator's"


def test_patients_to_probe_may_not_be_among_those_that_everything_learns_from(make_study, study_eyes):
    with pytest.raises(InputError, match="everything learns from; found t2-"):
        run_study(make_study(labelled=str(study_eyes.path), arms=["real"]), fake([]))


def test_labels_that_cannot_be_probed_are_refused_before_anything_is_trained(make_study, tmp_path):
    started = []
    with pytest.raises(InputError, match="has no label 'amyloid'"):
        run_study(make_study(label="amyloid"), fake(started))
    (tmp_path / "t.csv").write_text("patient,amyloid\nt2-000,1\nt2-001,\n")
    with pytest.raises(InputError, match=r"two classes|several patients|cross-validate"):
        run_study(make_study(label="amyloid", table=str(tmp_path / "t.csv")), fake(started))
    assert started == []


# ---- real work, tiny


@pytest.mark.slow
def test_three_arms_end_to_end(make_study, study_eyes):
    """Real pretrainings of two steps: the control reads its shards, and all learn from the same patients."""
    study = make_study(seeds=[0], arms=["mean-spectra", "random-weights", "real", "procedural"], repeats=1, folds=2)
    run_study_here(study)
    split = load_or_make_split(study_eyes)
    found = {
        n: json.loads(outcome_path(study, n).read_text())
        for n in ("real-seed0", "procedural-seed0", "random-weights-seed0")
    }
    assert len({f["patients"] for n, f in found.items() if "random" not in n}) == 1
    assert found["procedural-seed0"]["synthetic_seen"] == 4 and found["real-seed0"]["synthetic_seen"] == 0
    assert {f["probe"]["n_patients"] for f in found.values()} == {len(split.test)}
    assert not any(patient in outcome_path(study, "real-seed0").read_text() for patient in study_eyes.patients)
    folder = outcome_path(study, "x").parents[1] / "pretrain" / "real-seed0"
    seen = json.loads((folder / "backbone.json").read_text())["provenance"]["patients"]
    assert seen == list(study_eyes.provenance(split.known).patients)


@pytest.mark.slow
def test_the_generator_learns_from_the_patients_of_the_real_arm(make_study, study_eyes):
    """Two training steps; its provenance is that of the real-only arm, and another one is refused."""
    brief = {"steps": 2, "batch_size": 4, "validate_every": 2, "cpu": True}
    recipe = {
        "autoencoder": brief | {"compression": 8, "encoder_channels": 8, "decoder_channels": 8, "max_channels": 16,
                                "codes": 16, "latent_channels": 4, "base_grid": 2},
        "diffusion": brief | {"channels": 8, "multipliers": [1], "attention_heads": 0, "chunk": 4},
    }  # fmt: skip
    study = make_study(generator=recipe, seeds=[0], arms=["gates-off", "real"])
    made = run_job(study, jobs_of(study)[0])
    split = load_or_make_split(study_eyes)
    known = study_eyes.provenance(split.known)
    assert made.patients == check_same_patients(study, known, "x")
    with pytest.raises(LeakError, match="the patients of the real-only arm"):
        check_same_patients(study, study_eyes.provenance(split.train), "the generator")
    assert known.seen(split.test) == []


OWN = {
    "arms": ["mean-spectra", "random-weights", "real", "procedural", "gates-off"],
    "generator": {
        "autoencoder": {"steps": 4, "batch_size": 8, "validate_every": 4, "compression": 8, "encoder_channels": 8,
                        "decoder_channels": 8, "max_channels": 16, "codes": 16, "latent_channels": 4, "base_grid": 2},
        "diffusion": {"steps": 4, "batch_size": 8, "validate_every": 4, "channels": 8, "multipliers": [1, 2],
                      "attention_heads": 0, "chunk": 8},
    },
}  # fmt: skip
GIVEN = {
    "arms": ["real", "mixed-0.5", "synthetic-first", "reuse-1", "reuse-inf", "real-longer"],
    "given_generator": "phantom64",
    "given_gates": "phantom64",
    "pretrain": {**TINY, "sampler": "ab2", "sampler_steps": 8},  # with one Euler step the gates refuse its cubes, too
}


@pytest.mark.torture
@pytest.mark.parametrize("kind", [OWN, GIVEN], ids=["own generator", "packaged generator"])
def test_end_to_end_in_processes(eyes, tmp_path, kind):
    """Two processes at a time, a few steps each, then again without work. (Gates would refuse an untrained one.)"""
    values = {"data": str(eyes.path), "labelled": str(_labelled(tmp_path)), "out": str(tmp_path / "s"), "seeds": [0]}
    values |= {"workers": 2, "folds": 2, "repeats": 1, "pretrain": TINY} | kind
    study = build(Study, values)
    found = run_study(study)
    assert [arm.arm for arm in found.arms] == [name for name in ARMS if name in kind["arms"]]
    assert found.same_patients and found.given_generator == ("given_generator" in kind)
    started = []
    run_study(study, fake(started))
    assert started == []


def _labelled(tmp_path):
    from synthgen.cubes.phantom.cohort import simulate_cohort

    return simulate_cohort(tmp_path / "labelled.h5", patients=12, size=64, seed=77, workers=1).path
