"""Experiment trackers get the settings and every line of metrics; one that is not there is refused beforehand."""

from typing import ClassVar

import pytest
from accelerate import PartialState, tracking

from synthgen.config import Config, build
from synthgen.errors import ConfigError
from synthgen.runs.folder import RunFolder, read_metrics
from synthgen.runs.trackers import KNOWN, Trackers


class Settings(Config):
    command: ClassVar[str] = "train-autoencoder"
    steps: int = 4
    sizes: tuple[int, ...] = (1, 2)
    tracker: Trackers = ""


@pytest.fixture
def kept_by(monkeypatch):
    """A tracker under wandb's name that keeps what it is given."""
    PartialState(cpu=True)
    kept = {"started": [], "settings": [], "lines": [], "finished": 0}

    class Tracker(tracking.GeneralTracker):
        name, requires_logging_directory = "wandb", False

        def __init__(self, project, **about):
            super().__init__()
            self.about = {"project": project, **about}

        @property
        def tracker(self):
            return self

        def start(self):
            kept["started"].append(self.about)

        def store_init_configuration(self, values):
            kept["settings"].append(values)

        def log(self, values, step=None, **_):
            kept["lines"].append((step, values))

        def finish(self):
            kept["finished"] += 1

    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "wandb", Tracker)
    monkeypatch.setattr(tracking, "get_available_trackers", lambda: ["tensorboard", "wandb"])
    return kept


def test_a_tracker_gets_settings_and_metrics(kept_by, tmp_path):
    with RunFolder(tmp_path / "run", build(Settings, {"tracker": "wandb, tensorboard"})) as run:
        run.begin(0)
        run.log(3, loss=0.5, gates="pass", absent=None)
    assert kept_by["started"] == [{"project": "synthgen", "name": "run", "dir": str(tmp_path / "run")}]
    assert kept_by["settings"] == [{"steps": 4, "sizes": "(1, 2)", "tracker": "wandb, tensorboard"}]
    assert kept_by["lines"] == [(3, {"loss": 0.5})] and kept_by["finished"] == 1
    assert read_metrics(tmp_path / "run")[0]["loss"] == 0.5


@pytest.mark.parametrize("what", ["log", "finish"])
def test_a_tracker_that_fails_while_the_run_is_at_work_costs_no_run(kept_by, tmp_path, monkeypatch, capsys, what):
    def gone(*_, **__):
        raise ConnectionError("no route to the server")

    with RunFolder(tmp_path / "run", build(Settings, {"tracker": "wandb"})) as run:
        run.begin(0)
        monkeypatch.setattr(tracking.LOGGER_TYPE_TO_CLASS["wandb"], what, gone)
        run.log(3, loss=0.5)
        run.log(4, loss=0.4)
    assert [m["loss"] for m in read_metrics(tmp_path / "run")] == [0.5, 0.4]
    assert capsys.readouterr().err.count("wandb takes no more metrics: no route to the server") == 1


def test_a_tracker_that_cannot_be_started_is_one_line(kept_by, tmp_path, monkeypatch):
    def start(self):
        raise RuntimeError("no API key\nand a page of advice")

    monkeypatch.setattr(tracking.LOGGER_TYPE_TO_CLASS["wandb"], "start", start)
    refused = pytest.raises(ConfigError, match="cannot be started; found wandb: no API key")
    with RunFolder(tmp_path / "run", build(Settings, {"tracker": "wandb"})) as run, refused:
        run.begin(0)


def test_only_the_main_process_tracks(kept_by, tmp_path):
    with RunFolder(tmp_path / "run", build(Settings, {"tracker": "wandb"}), main=False) as run:
        run.begin(0)
        run.log(3, loss=0.5)
    assert kept_by == {"started": [], "settings": [], "lines": [], "finished": 0}


def test_a_tracker_that_is_not_installed_leaves_nothing_behind(kept_by, tmp_path):
    with pytest.raises(ConfigError, match=r"not installed; found aim\. Install it \(pip install aim\)"):
        RunFolder(tmp_path / "run", build(Settings, {"tracker": "wandb,aim"}))
    assert not (tmp_path / "run").exists()


def test_an_unknown_tracker_is_named():
    with pytest.raises(ConfigError, match="unknown tracker 'wandbb'"):
        build(Settings, {"tracker": "wandbb"})


def test_the_names_are_accelerates():
    assert {*KNOWN, "tensorboard"} == {str(name) for name in tracking.LOGGER_TYPE_TO_CLASS}
