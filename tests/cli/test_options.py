"""Every command's options are the parameters of its function: the same names, defaults, bounds, and a help for each."""

import functools
import inspect
import json
import typing

import pytest
from pydantic import TypeAdapter

from synthgen.cli.shared import COMMANDS, kept_settings
from synthgen.command_line.reading import from_text
from synthgen.command_line.settings import AS_JSON, DEBUG, FILE, OVERWRITE, PREFLIGHT, SEVERAL
from synthgen.config import fields, typed

SHARED = {s.name for s in (DEBUG, AS_JSON, FILE, SEVERAL, OVERWRITE, PREFLIGHT)}
HELD = {name: command.settings() for name, command in COMMANDS.items()}
OPTIONS = [(name, setting) for name, settings in HELD.items() for setting in settings]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_every_option_whole_with_what_it_means(name, synthgen, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    code, out, err = synthgen(name, "--help")
    assert code == 0 and not err
    words = out.split()
    for setting in HELD[name]:
        assert setting.help, setting.name
        for given in setting.names:
            assert given in words or f"{given}," in words, f"{name}: {given}"
        assert "".join(setting.help.split()) in "".join(words), f"{name}: the help of {setting.name}"


@pytest.mark.parametrize("name", COMMANDS)
def test_options_are_the_fields_of_the_function(name):
    command = COMMANDS[name]
    model, whole = command.model()
    assert {s.name for s in HELD[name]} - SHARED == set(fields(model))
    if not whole:
        function = inspect.signature(command.function()).parameters
        own = {n for n, p in function.items() if typing.get_origin(_hint(command, n)) is typing.Annotated}
        assert own - {n for n, p in function.items() if p.kind is p.VAR_KEYWORD} <= set(fields(model))


def _hint(command, name):
    return typing.get_type_hints(command.function(), include_extras=True).get(name)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_default_shown_is_the_functions_own(name):
    """What is shown as a default, when it is typed, is the default."""
    model, _ = COMMANDS[name].model()
    held = {s.name: s for s in HELD[name]}
    for key, (kind, _, default) in fields(model).items():
        shown = True if held[key].default == "on" else held[key].default
        if not shown:
            assert default in (None, False, "required", (), {}, ""), f"{name}: the default of {key} is not shown"
            continue
        adapter = TypeAdapter(kind)
        message = adapter.validate_python(typed(kind, from_text(kind, shown), key, None))
        assert message == adapter.validate_python(default), f"{name}: {key}"


@pytest.mark.slow
def test_a_value_out_of_bounds_is_refused_in_one_line_that_names_the_option(synthgen):
    """One bad value for every option that takes a number or one of some words."""
    for name, setting in OPTIONS:
        if setting.kind not in ("INT", "FLOAT", "WORD") or setting.positional or setting.name.startswith("generator."):
            continue
        code, _, err = synthgen(name, *_required(name), f"{setting.names[0]}=x-y")
        assert code == 2 and len(err.splitlines()) == 1 and err.startswith(f"error: {setting.names[0]}"), (
            f"{name}: {err}"
        )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("phantom x.h5 --patients 0", "--patients: input should be greater than or equal to 1; found 0"),
        ("figure --data x --out y --count 17", "--count: input should be less than or equal to 16; found 17"),
        ("sample --out s --dtype int8", "--dtype: input should be 'uint16' or 'float16'; found 'int8'"),
        ("pretrain --dino.hidden-dim 1.5", "--dino.hidden-dim is not a whole number; found '1.5'"),
        ("pretrain --processes 0", "--processes must be a whole number from 1; found '0'"),
        ("calibrate --out g", "--data: field required"),
        ("gate --gates g", "missing argument 'SHARDS'. See `synthgen gate --help`"),
        ("gate s", "missing option '--gates'"),
        ("gate s --gatez g", "no such option: --gatez. Did you mean --gates?"),
        ("view x --out", "option '--out' requires an argument"),
        ("gat s", "no such command 'gat'. Did you mean 'gate'"),
    ],
)
def test_what_is_refused_is_reported_with_the_remedy(words, message, synthgen):
    code, out, err = synthgen(*words.split())
    assert code == 2 and not out and len(err.splitlines()) == 1
    assert err.startswith("error: ") and message in err


def _required(name):
    """Words that a command cannot do without."""
    found = []
    model, _ = COMMANDS[name].model()
    needed = {key for key, (_, _, default) in fields(model).items() if default == "required" and "." not in key}
    for setting in HELD[name]:
        if setting.name in needed:
            word = setting.choices[0] if setting.choices else "none"
            found += [word] if setting.positional else [setting.names[0], word]
    return found


def test_text_stays_text_and_what_is_given_twice_is_the_last(tmp_path):
    read = COMMANDS["pretrain"].read
    assert read(["--out", "2024"]).out == "2024" and read(["--data", "1e3"]).data == "1e3"
    assert read(["--steps", "3", "--steps", "5"]).steps == 5
    assert COMMANDS["phantom"].read(["010", "--bands", "450,480"]).path == "010"
    (tmp_path / "c.yaml").write_text("steps: 7\nresume: true\n")
    config = ["--config", str(tmp_path / "c.yaml"), "--out", str(tmp_path)]
    assert read(config).resume and not read([*config, "--no-resume"]).resume and read(config).steps == 7
    assert read([*config, "--steps", "9"]).steps == 9


def test_a_function_gets_what_was_given_and_keeps_its_defaults(monkeypatch, synthgen, tmp_path):
    from synthgen.cubes.phantom import cohort

    seen = {}
    simulate = cohort.simulate_cohort

    @functools.wraps(simulate)
    def remembered(**asked):
        seen.update(asked)
        return simulate(**asked)

    monkeypatch.setattr(cohort, "simulate_cohort", remembered)
    words = ["phantom", tmp_path / "e.h5", "--patients", "2", "--size", "16", "--workers", "1"]
    code, out, _ = synthgen(*words)
    assert code == 0 and "4 cubes of 2 patients" in out
    assert seen == {"path": str(tmp_path / "e.h5"), "patients": 2, "size": 16, "workers": 1}
    code, _, err = synthgen(*words)
    assert code == 2 and "is there already" in err and synthgen(*words, "--overwrite")[0] == 0


def test_settings_are_read_once_and_kept_until_the_code_changes(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for each in COMMANDS.values():
        assert kept_settings(each) == kept_settings(each) == each.settings()
    command = COMMANDS["pareto"]
    (kept,) = tmp_path.glob("synthgen/*/pareto.json")
    held = json.loads(kept.read_text())
    kept.write_text(json.dumps(held[:1]))
    assert kept_settings(command) == command.settings()[:1], "from what is kept"
    kept.write_text("half of a fi")
    assert kept_settings(command) == command.settings(), "a damaged file is read anew"
    assert json.loads(kept.read_text()) == held
    old = tmp_path / "synthgen" / "older" / "pareto.json"
    old.parent.mkdir()
    old.write_text("[]")
    kept.unlink()
    kept_settings(command)
    assert not old.exists()
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    assert kept_settings(command) == command.settings(), "where nothing can be kept"
