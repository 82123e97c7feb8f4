"""Configurations: frozen, unknown keys refused, files and flags alike."""

from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import Field

from synthgen.command_line.command import Command
from synthgen.config import Config, load
from synthgen.errors import ConfigError, SynthgenError


def given(cls, words):
    """The configuration that words of a command line make."""
    return Command(cls, "x").read(words)


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
    config = given(Outer, ["--config", str(path), "--learning-rate", "1e-4", "--inner.width", "5", "--flag"])
    assert config == Outer(learning_rate=1e-4, name="from-file", flag=True, inner=Inner(width=5))


def test_yes_or_no_flags_need_no_value():
    config = given(Outer, ["--flag", "--learning-rate", "2"])
    assert config == Outer(flag=True, learning_rate=2)
    assert not given(Outer, ["--no-flag"]).flag


def test_on_and_off_are_words_where_the_field_takes_words(tmp_path):
    """YAML 1.1 reads `gates: off` as false."""

    class Spoken(Config):
        gates: Literal["auto", "off"] = "auto"
        flag: bool = True

    path = tmp_path / "c.yaml"
    path.write_text("gates: off\nflag: off\n")
    assert load(Spoken, path) == Spoken(gates="off", flag=False)
    assert given(Spoken, ["--gates", "off", "--no-flag"]) == Spoken(gates="off", flag=False)
    with pytest.raises(ConfigError, match="--gates: input should be"):
        given(Spoken, ["--gates", "on"])
    path.write_text(Spoken(gates="off").to_yaml())
    assert load(Spoken, path).gates == "off"


class Kinds(Config):
    """One field of every kind."""

    text: str = "a"
    maybe: str | None = "a"
    place: Path | None = None
    word: Literal["on", "off", "1"] = "on"
    count: int = 1
    rate: float = 1.0
    limit: int | None = 1
    flag: bool = False
    names: tuple[str, ...] = ()
    sizes: tuple[int, ...] = ()
    pair: tuple[float, str] = (1.0, "a")
    of_name: dict[str, tuple[int, ...]] = Field({})
    any: dict[str, Any] = Field({})
    inner: Inner = Inner()


WORDS = ["2024", "2024-12-01", "yes", "no", "on", "1e3", "010", "1:30", "0x1F", "1_000", ".5", "eyes #3.h5", "run: 1"]
WORDS += ["[x]", "{a", "~x", "@a", "*a", "!x", "'a'", "true", "-", "a ", "NaN"]


@pytest.mark.parametrize("word", [*WORDS, "null", "~", ""])
def test_a_flag_is_text_where_the_field_is_text(word):
    config = given(Kinds, [f"--text={word}"])
    assert config.text == word


@pytest.mark.parametrize("word", WORDS)
def test_text_that_may_be_left_out_is_text_as_well(word, tmp_path):
    config = given(Kinds, [f"--maybe={word}", f"--place={word}"])
    assert (config.maybe, config.place) == (word, Path(word))
    path = tmp_path / "c.yaml"
    path.write_text(config.to_yaml())
    assert load(Kinds, path) == config, "as it is read back"


@pytest.mark.parametrize(
    "word", ["2024", "2024-12-01", "yes", "off", "1e3", "010", "1:30", "0x1F", "1_000", ".5", "NaN"]
)
def test_a_word_in_a_file_is_text_where_the_field_is_text(word, tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(f"text: {word}\nmaybe: {word}\nnames: [{word}, b]\npair: [2, {word}]\n")
    found = load(Kinds, path)
    assert found == Kinds(text=word, maybe=word, names=(word, "b"), pair=(2.0, word))


def test_nothing_is_given_by_null_where_a_field_may_be_without_a_value(tmp_path):
    words = ["--maybe", "null", "--limit", "null", "--place", "null"]
    assert given(Kinds, words) == Kinds(maybe=None, limit=None)
    (tmp_path / "c.yaml").write_text("maybe:\nlimit: ~\nplace: null\n")
    assert load(Kinds, tmp_path / "c.yaml") == Kinds(maybe=None, limit=None)
    (tmp_path / "c.yaml").write_text("maybe: 'null'\n")
    assert load(Kinds, tmp_path / "c.yaml").maybe == "null"


@pytest.mark.parametrize(
    ("word", "count", "rate", "flag"),
    [
        ("12", 12, 12.0, None), ("-3", -3, -3.0, None), ("1e1", 10, 10.0, None), ("1e-3", None, 1e-3, None),
        ("1_000", 1000, 1000.0, None), (".5", None, 0.5, None), ("5.", 5, 5.0, None), ("0.5", None, 0.5, None),
        ("0x1F", 31, None, None), ("0", 0, 0.0, None), ("010", None, None, None), ("1:30", None, None, None),
        ("00", None, None, None), ("1_", None, None, None), ("2024-12-01", None, None, None),
        ("yes", None, None, True), ("Off", None, None, False), ("true", None, None, True), ("no", None, None, False),
        ("y", None, None, None), ("one", None, None, None), ("1,5", None, None, None), ("1 000", None, None, None),
    ],
)  # fmt: skip
def test_numbers_are_read_in_one_way_or_refused(word, count, rate, flag, tmp_path):
    """YAML 1.1 reads 010 as 8, 1:30 as 90, yes as true, and 1e-3 as text."""
    path = tmp_path / "c.yaml"
    for name, wanted in (("count", count), ("rate", rate), ("flag", flag), ("sizes", count), ("limit", count)):
        listed = f"[{word}]" if name == "sizes" and "," not in word else word
        path.write_text(f"{name}: {listed}\n")
        ways = [(f"'{name}'", lambda: load(Kinds, path))]
        if name != "flag":  # an option that has no value
            ways.append((f"--{name}", lambda name=name, listed=listed: given(Kinds, [f"--{name}={listed}"])))
        for message, read in ways:
            if wanted is not None:
                found = getattr(read(), name)
                assert found == ((wanted,) if name == "sizes" else wanted) and isinstance(found, bool) == (
                    name == "flag"
                )
            else:
                with pytest.raises(ConfigError, match=message) as caught:
                    read()
                assert word in str(caught.value)


def test_dotted_keys_are_those_of_the_inner_table(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("inner.width: 3\n")
    assert load(Kinds, path) == load(Kinds, None, {"inner.width": 3}) == Kinds(inner=Inner(width=3))
    path.write_text("any: {a.b: 1, c: 1e-3, d: yes, e: 010, f: [1, x], g: true}\nof_name: {a.b: [1]}\n")
    found = load(Kinds, path)
    assert found.any == {"a.b": 1, "c": 1e-3, "d": "yes", "e": "010", "f": [1, "x"], "g": True}
    assert found.of_name == {"a.b": (1,)}
    path.write_text("inner.widht: 3\n")
    with pytest.raises(ConfigError, match=r"unknown key 'inner.widht'. Did you mean 'inner.width'"):
        load(Kinds, path)


@pytest.mark.parametrize(
    "text",
    [
        "count: 1\nrate: 1\ncount: 2\n", "{count: 1, count: 1}", "inner:\n  width: 1\n  width: 2\n",
        "any: {a: 1, a: 2}", "inner: {}\ninner: {}\n",
        "inner.width: 1\ninner: {width: 2}\n", "inner: {width: 2}\ninner.width: 1\n",
    ],
)  # fmt: skip
def test_a_key_given_twice_is_refused(text, tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="given twice") as caught:
        load(Kinds, path)
    assert str(path) in str(caught.value)


def test_anchors_and_merges_stay(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("any: {base: &b {x: 1, y: 2}, more: {<<: *b, y: 3}}\n")
    assert load(Kinds, path).any == {"base": {"x": 1, "y": 2}, "more": {"x": 1, "y": 3}}


def test_resume_of_a_folder_that_is_not_there_is_refused(tmp_path):
    class Run(Config):
        out: str = "nowhere"
        resume: bool = False

    with pytest.raises(ConfigError, match=r"nowhere: there is no run to resume"):
        given(Run, ["--resume"])
    (tmp_path / "c.yaml").write_text(f"resume: yes\nout: {tmp_path / 'none'}\n")
    with pytest.raises(ConfigError, match="there is no run to resume"):
        given(Run, ["--config", str(tmp_path / "c.yaml")])
    assert not (tmp_path / "none").exists()
    assert given(Run, ["--resume", "--out", str(tmp_path)]).resume


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
        given(Outer, ["--learning-rates", "1"])


def test_frozen():
    with pytest.raises(Exception, match="frozen"):
        Outer().learning_rate = 1.0


def test_error_line_holds_every_part():
    line = str(SynthgenError("wrong bands", path="a.h5", found=3, expected=16, remedy="resample them"))
    assert line == "a.h5: wrong bands; found 3; expected 16. Resample them"
