"""A resumed run is made from what it was begun with, by contents and not by name; a refusal changes nothing."""

import json
import shutil

import pytest

from synthgen.config import build
from synthgen.contracts import Provenance
from synthgen.cubes.cohort.cohort import Cohort
from synthgen.cubes.cohort.splits import load_or_make_split
from synthgen.errors import MismatchError
from synthgen.experiments.study.plan import fingerprint_of
from synthgen.generator.training.autoencoder import AutoencoderTraining, train_autoencoder
from synthgen.generator.training.flow import DiffusionTraining, train_diffusion
from synthgen.integration.options import Pretraining
from synthgen.integration.pretrain import main, pretrain
from synthgen.integration.sample import sample_shards
from synthgen.quality.io import PACKAGED
from synthgen.runs.files import read_json, remove, write_json
from synthgen.ssl.backbone import load_backbone
from tests.integration.small_trainings import CODER, FLOW, PRETRAIN, SMALL

FAST = {"steps": 2, "checkpoint_every": 2}


def training(kind, here):
    """Run a training on what lies in `here`, or go on with it."""
    places = {"data": str(here / "eyes.h5"), "out": str(here / "run")}
    if kind == "autoencoder":
        first = {"start_from": str(here / "first")} if (here / "first").exists() else {}
        return lambda **more: train_autoencoder(
            build(AutoencoderTraining, places | SMALL | CODER | FAST | first | more)
        )
    if kind == "flow":
        places["autoencoder"] = str(here / "first")
        return lambda **more: train_diffusion(build(DiffusionTraining, places | SMALL | FLOW | FAST | more))
    synthetic = {
        "real": {},
        "generated": {"generator": str(here / "generator"), "synthetic_ratio": "0.5", "gates": "off"},
        "shards": {"shards": str(here / "shards"), "generator": str(here / "generator"), "synthetic_ratio": "0.5"},
    }[kind]
    common = {"sampler_steps": 1, "sampler": "euler", "gates": "off"}
    return lambda **more: pretrain(build(Pretraining, places | PRETRAIN | FAST | common | synthetic | more))


@pytest.fixture(scope="module")
def coders(cohort, tmp_path_factory):
    """Two autoencoders of one shape and one cohort."""
    folder = tmp_path_factory.mktemp("coders")
    for seed in (0, 1):
        options = {"data": str(cohort.path), "out": str(folder / str(seed)), "seed": seed}
        train_autoencoder(build(AutoencoderTraining, options | SMALL | CODER | FAST))
    return folder


def replaced(path, by):
    remove(path)
    shutil.copytree(by, path) if by.is_dir() else shutil.copyfile(by, path)


def other_cubes(here, others):
    replaced(here / "eyes.h5", others["cubes"].path)
    remove(here / "eyes.h5.split.json")


def other_split(here, others):
    split = read_json(here / "eyes.h5.split.json")
    split["train"], split["test"] = [*split["train"][1:], split["test"][0]], [split["train"][0], *split["test"][1:]]
    write_json(here / "eyes.h5.split.json", split)


def other_coder(here, others):
    replaced(here / "first", others["coders"] / "1" / "autoencoder")


def other_generator(here, others):
    remove(here / "generator")
    others["generator"].save(here / "generator")


def more_shards(here, others):
    sample_shards(here / "shards", 60, str(here / "generator"), gates="off", steps=1, sampler="euler")


ALTERED = [
    ("real", other_cubes, "other contents of --data"),
    ("real", other_split, "another split"),
    ("generated", other_generator, "other contents of --generator"),
    ("shards", more_shards, "other contents of --shards"),
    ("autoencoder", other_cubes, "other contents of --data"),
    ("autoencoder", other_split, "another split"),
    ("autoencoder", other_coder, "other contents of --start-from"),
    ("flow", other_cubes, "other contents of --data"),
    ("flow", other_split, "another split"),
    ("flow", other_coder, "other contents of --autoencoder"),
]


@pytest.fixture
def here(cohort, tmp_path):
    shutil.copyfile(cohort.path, tmp_path / "eyes.h5")
    load_or_make_split(Cohort.open(tmp_path / "eyes.h5"))
    return tmp_path


def contents(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and not p.name.startswith("events.")}


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "alter", "words"), ALTERED, ids=lambda v: getattr(v, "__name__", None))
def test_other_contents_under_the_same_name_are_refused(
    here, coders, generator, other_generator, toy_cohort_maker, tmp_path_factory, kind, alter, words
):
    others = {"coders": coders, "generator": other_generator}
    others["cubes"] = toy_cohort_maker(tmp_path_factory.mktemp("other") / "o.h5", seed=1)
    generator.save(here / "generator")
    if kind in ("flow", "autoencoder"):
        replaced(here / "first", coders / "0" / "autoencoder")
    if kind == "shards":
        sample_shards(here / "shards", 40, str(here / "generator"), gates="off", steps=1, sampler="euler")
    run = training(kind, here)
    run()
    alter(here, others)
    before = contents(here / "run")
    with pytest.raises(MismatchError, match=words):
        run(resume=True, steps=3)
    assert contents(here / "run") == before, "a refused run leaves its folder as it was"


@pytest.mark.slow
def test_other_gates_under_the_same_name_are_refused(fresh_eyes, small_gates, tmp_path):
    shutil.copyfile(fresh_eyes.path, tmp_path / "eyes.h5")
    shutil.copytree(PACKAGED / "phantom64", tmp_path / "gates")
    places = {"data": str(tmp_path / "eyes.h5"), "gates_folder": str(tmp_path / "gates"), "out": str(tmp_path / "run")}
    given = {"generator": "phantom64", "synthetic_ratio": "0.5", "gates": "report", "certify_count": 25}
    run = lambda **more: pretrain(build(Pretraining, places | PRETRAIN | FAST | given | more))
    run()
    replaced(tmp_path / "gates", small_gates)
    before = contents(tmp_path / "run")
    with pytest.raises(MismatchError, match="other contents of --gates-folder"):
        run(resume=True, steps=3)
    assert contents(tmp_path / "run") == before
    replaced(tmp_path / "gates", PACKAGED / "phantom64")
    run(resume=True, steps=3)
    assert read_json(tmp_path / "run" / "summary.json")["steps"] == 3


def test_the_same_contents_under_another_name_go_on(here):
    run = training("real", here)
    run()
    (here / "moved").mkdir()
    for name in ("eyes.h5", "eyes.h5.split.json"):
        (here / name).rename(here / "moved" / name)
    run(resume=True, steps=3, data=str(here / "moved" / "eyes.h5"))
    assert read_json(here / "run" / "summary.json")["steps"] == 3


def test_a_run_of_a_version_with_other_parts_is_refused_in_one_line(here):
    run = training("real", here)
    run(reading="last", statistics={"weight": 0}, method="simclr")
    before = {k: v for k, v in contents(here / "run").items() if k.name != "config.yaml"}
    old = (here / "run" / "config.yaml").read_text()
    cut = old[: old.index("statistics:")] + old[old.index("clip:") :]
    (here / "run" / "config.yaml").write_text("".join(t for t in cut.splitlines(True) if not t.startswith("reading:")))
    with pytest.raises(MismatchError, match="method with other parts"):
        run(resume=True, steps=3, method="simclr")
    assert {k: v for k, v in contents(here / "run").items() if k.name != "config.yaml"} == before


def test_fewer_steps_than_were_made_are_refused_and_nothing_is_rewritten(here, capsys):
    run = training("real", here)
    run()
    before = contents(here / "run")
    with pytest.raises(SystemExit) as refused:
        main(["--out", str(here / "run"), "--resume", "--steps", "1"])
    message = capsys.readouterr().err.splitlines()[-1]
    assert refused.value.code == 2 and "has already made 2 steps; found --steps 1; expected at least 2" in message
    assert contents(here / "run") == before


@pytest.mark.slow
def test_a_backbone_forgets_no_patient(here, toy_cohort_maker):
    """Also where the run was begun by a version that kept no record of what it was made from."""
    run, first = training("real", here), load_or_make_split(Cohort.open(here / "eyes.h5")).train
    run()
    remove(here / "run" / "inputs.json")
    remove(here / "eyes.h5.split.json")
    toy_cohort_maker(here / "eyes.h5", seed=1)
    run(resume=True, steps=3)
    seen = load_backbone(here / "run").provenance
    second = load_or_make_split(Cohort.open(here / "eyes.h5")).train
    assert seen.seen(first) == sorted(first) and seen.seen(second) == sorted(second)
    before = read_json(here / "run" / "backbone.json")["provenance"]
    run(resume=True, steps=4)
    assert read_json(here / "run" / "backbone.json")["provenance"] == before


def test_parts_of_parts_are_not_forgotten(tmp_path):
    from types import SimpleNamespace

    from synthgen.integration.finish import never_forgotten

    coder = Provenance.of("1" * 32, ["a"])
    generator = Provenance.of("2" * 32, ["b"], also=(coder,))
    earlier, now = Provenance.of("3" * 32, ["c"], also=(generator,)), Provenance.of("4" * 32, ["d"])
    found = never_forgotten(SimpleNamespace(path=tmp_path), [p.model_dump(mode="json") for p in (earlier, now)])
    assert found.seen(["a", "b", "c", "d", "e"]) == ["a", "b", "c", "d"]


def test_samples_of_every_number_of_processes_are_counted(here, monkeypatch):
    """The second half was resumed by one process; the first was made by two, as its checkpoint says."""
    from synthgen.runs.checkpoint import Checkpoints

    run = training("real", here)
    run()
    store = Checkpoints(here / "run" / "checkpoints")
    kept = store.load()
    kept.shared["totals"] = {"samples_seen": 16, "synthetic_seen": 0}
    store.save(2, kept.shared, kept.own[0])
    run(resume=True, steps=3)
    summary = read_json(here / "run" / "summary.json")
    assert (summary["samples_seen"], summary["processes"], summary["steps"]) == (20, 1, 3)
    environment = read_json(here / "run" / "environment.json")
    assert environment["changed"] == {"steps": [2, 3]} and [e["until_step"] for e in environment["earlier"]] == [2]


@pytest.mark.slow
def test_a_study_knows_a_given_generator_by_its_contents(make_study, generator, other_generator, tmp_path):
    prints = []
    for made in (generator, generator, other_generator):
        remove(tmp_path / "g")
        made.save(tmp_path / "g")
        prints.append(fingerprint_of(make_study(given_generator=str(tmp_path / "g"), given_gates="phantom64")))
    assert prints[0] == prints[1] != prints[2]


def test_shards_of_another_generator_under_the_same_name_are_not_added_to(generator, other_generator, tmp_path):
    how = {"gates": "off", "steps": 1, "sampler": "euler"}
    generator.save(tmp_path / "g")
    sample_shards(tmp_path / "s", 8, str(tmp_path / "g"), **how)
    before = contents(tmp_path / "s")
    remove(tmp_path / "g")
    other_generator.save(tmp_path / "g")
    with pytest.raises(MismatchError, match="another generator hash"):
        sample_shards(tmp_path / "s", 16, str(tmp_path / "g"), **how)
    assert contents(tmp_path / "s") == before


def test_json_has_no_nan(tmp_path):
    from synthgen.config import Config
    from synthgen.runs.files import write_json
    from synthgen.runs.folder import RunFolder, read_metrics

    def strict(text):
        return json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))

    write_json(tmp_path / "a.json", {"a": [float("nan"), 1.5, {"b": float("-inf")}], "c": (float("inf"),)})
    assert strict((tmp_path / "a.json").read_text()) == {"a": [None, 1.5, {"b": None}], "c": [None]}
    with RunFolder(tmp_path / "run", Config()) as run:
        run.begin(0)
        run.log(1, loss=float("nan"), rate=0.5)
    assert strict((tmp_path / "run" / "metrics.jsonl").read_text())["loss"] is None
    assert read_metrics(tmp_path / "run")[0]["rate"] == 0.5
