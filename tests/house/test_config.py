"""Configurations: frozen, unknown keys refused, files and flags alike."""

from typing import Literal

import pytest
from pydantic import Field

from synthgen.config import Config, from_command_line, load
from synthgen.errors import ConfigError, SynthgenError


class Inner(Config):
    width: int = Field(8, ge=1)


class Outer(Config):
    learning_rate: float = Field(1e-3, gt=0, description="peak")
    bands: tuple[int, ...] = (1, 2)
    name: str | None = None
    flag: bool = False
    inner: Inner = Inner()


def test_flags_win_over_the_file(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("learning_rate: 0.5\nname: from-file\ninner: {width: 3}\n")
    config, args = from_command_line(
        Outer, ["--config", str(path), "--learning-rate", "1e-4", "--inner.width", "5", "--flag", "true"], "x", "y"
    )
    assert config == Outer(learning_rate=1e-4, name="from-file", flag=True, inner=Inner(width=5))
    assert args.config == str(path)


def test_yes_or_no_flags_need_no_value():
    config, _ = from_command_line(Outer, ["--flag", "--learning-rate", "2"], "x", "y")
    assert config == Outer(flag=True, learning_rate=2)
    assert not from_command_line(Outer, ["--flag", "false"], "x", "y")[0].flag


def test_on_and_off_are_words_where_the_field_takes_words(tmp_path):
    """YAML 1.1 reads `gates: off` as false."""

    class Spoken(Config):
        gates: Literal["auto", "off"] = "auto"
        flag: bool = True

    path = tmp_path / "c.yaml"
    path.write_text("gates: off\nflag: off\n")
    assert load(Spoken, path) == Spoken(gates="off", flag=False)
    assert from_command_line(Spoken, ["--gates", "off", "--flag", "off"], "x", "y")[0] == Spoken(
        gates="off", flag=False
    )
    with pytest.raises(ConfigError, match="'gates'"):
        from_command_line(Spoken, ["--gates", "on"], "x", "y")
    path.write_text(Spoken(gates="off").to_yaml())
    assert load(Spoken, path).gates == "off"


def test_yaml_round_trip(tmp_path):
    config = Outer(bands=(3, 4), inner=Inner(width=2))
    (tmp_path / "c.yaml").write_text(config.to_yaml())
    assert load(Outer, tmp_path / "c.yaml") == config


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("learning_rat: 1", "Did you mean 'learning_rate'"),
        ("inner: {widht: 1}", "unknown key 'inner.widht'"),
        ("learning_rate: -1", "greater than 0"),
        ("learning_rate: .nan", "finite"),
        ("- 1", "not a table"),
        ("a: [", "not valid YAML"),
    ],
)
def test_bad_files_are_named_in_one_line(tmp_path, text, word):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(Outer, path)
    assert word in str(caught.value) and str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_unknown_flag_suggests_the_near_one():
    with pytest.raises(ConfigError, match="Did you mean --learning-rate"):
        from_command_line(Outer, ["--learning-rates", "1"], "x", "y")


def test_frozen():
    with pytest.raises(Exception, match="frozen"):
        Outer().learning_rate = 1.0


def test_error_line_holds_every_part():
    line = str(SynthgenError("wrong bands", path="a.h5", found=3, expected=16, remedy="resample them"))
    assert line == "a.h5: wrong bands; found 3; expected 16. Resample them"
