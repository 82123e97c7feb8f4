"""`synthgen doctor`: it finds what is planted, and what it says of recipes is what was computed."""

import json
from pathlib import Path

import pytest

from synthgen.cli import doctor
from synthgen.cli.doctor import GB, memory_and_disk, processes, recipes

ROOT = Path(__file__).parents[2]


def statuses(found):
    return {f.name: f.status for f in found}


def test_this_machine_is_well(synthgen, monkeypatch, tmp_path):
    """A real examination; every finding has words, and one that is not well a remedy."""
    monkeypatch.setattr(doctor, "speed", lambda: pytest.fail("was asked not to measure"))
    code, out, err = synthgen("doctor", "--folder", tmp_path, "--no-measure", "--json")
    found = json.loads(out)
    assert code == 0 and err == ""
    assert {"installation", "devices", "memory and disk", "processes", "recipes"} == {f["area"] for f in found}
    assert all(f["found"] and (f["status"] == "ok" or f["remedy"]) for f in found)
    report = {f["name"]: f for f in found}
    assert (
        report["packaged generator"]["found"].startswith("phantom64, ") and report["packaged gates"]["status"] == "ok"
    )


def test_a_damaged_package_is_a_problem(synthgen, monkeypatch):
    monkeypatch.setattr(doctor, "PACKAGED", "no such generator")
    code, out, _ = synthgen("doctor", "--no-measure")
    assert code == 2 and "packaged generator" in out and "install the package again" in out
    assert "something is missing" in out


def test_traps_of_the_launcher(tmp_path):
    config = tmp_path / "default_config.yaml"
    config.write_text("use_cpu: true\nnum_processes: 4\n")
    (trap,) = processes({}, config)
    assert trap.status == "warning" and "--processes 4" in trap.remedy
    config.write_text("use_cpu: false\nnum_processes: 4\n")
    assert statuses(processes({}, config)) == {"several": "ok"}
    none = tmp_path / "none.yaml"
    assert statuses(processes({"ACCELERATE_USE_CPU": "true"}, none)) == {"accelerate": "warning"}
    assert statuses(processes({"ACCELERATE_USE_CPU": "true", "RANK": "0"}, none)) == {"several": "ok"}
    for threads in ("0", "two", "100000"):
        assert statuses(processes({"SYNTHGEN_THREADS": threads}, none)) == {"SYNTHGEN_THREADS": "warning"}
    assert statuses(processes({"OMP_NUM_THREADS": "1"}, none)) == {"OMP_NUM_THREADS": "ok", "several": "ok"}


def test_little_memory_and_disk(monkeypatch, tmp_path):
    class Few:
        available = free = total = GB // 8

    monkeypatch.setattr(doctor.psutil, "virtual_memory", lambda: Few)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: Few)
    found = statuses(memory_and_disk(tmp_path / "not" / "yet"))
    assert found["memory"] == "warning" and found["disk"] == "warning"
    monkeypatch.setattr(doctor.os, "access", lambda path, how: False)
    assert statuses(memory_and_disk(tmp_path))["disk"] == "problem"


def test_recipes_follow_the_card():
    big = "224 (configs/retina224.yaml)"
    small = "224, --diffusion.channels 256"
    assert [statuses(recipes(card))[big] for card in (None, 8, 12, 24)] == ["warning", "warning", "warning", "ok"]
    assert statuses(recipes(12))[small] == "ok" and statuses(recipes(None))["64 (configs/phantom64.yaml)"] == "ok"
    assert "too large" in {f.name: f for f in recipes(8)}[big].found


def test_needs_are_those_of_the_result_file():
    import yaml

    path = ROOT / "benchmarks" / "results" / "memory.json"
    if not path.exists():
        pytest.skip("not a source tree")
    record = json.loads(path.read_text())[-1]
    for name, (fixed, each, batch) in doctor.NEEDS.items():
        size, channels = name[:3], 256 if "256" in name else 512
        held = record[f"{size}, flow of {channels}"]
        assert (fixed, each) == (held["GB before the first cube"], held["GB for each cube of a batch"])
        recipe = yaml.safe_load((ROOT / "configs" / f"retina{size}.yaml").read_text())["diffusion"]
        assert batch == recipe["batch_size"] and recipe["channels"] == 512
