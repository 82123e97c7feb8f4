"""Figures in pages are those of the records: `make figures` changes nothing, and names a mark that it cannot fill."""

import pytest

from benchmarks import figures


def test_every_figure_of_every_page_is_the_one_of_its_record():
    assert [str(path) for path in figures.outdated()] == [], "run `make figures`"
    filled = [path.name for path in figures.pages() if "<!--=" in path.read_text(encoding="utf-8")]
    assert {"README.md", "generator.md", "gates.md", "scale.md", "study.md", "supply.md", "sweep.md"} <= set(filled)


KNOWN = {"rate": figures.Record(half=0.801, ends=[0.7649, 0.8371], by=[{"name": "a", "value": 0.25}])}


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("it is <!--= {rate.half:.2f} -->?<!--/-->.", "0.80"),
        ("it is <!--= {1 - rate.half:.0%} -->?<!--/-->.", "20 %"),
        ("it is <!--= {interval(rate.ends)} -->?<!--/-->.", "[0.76, 0.84]"),
        ("it is <!--= {interval('0.994 [0.989, 1.000]')} -->?<!--/-->.", "0.99 [0.99, 1.00]"),
        ("<!--each rate.by\n| h |\n|---|\n| {value:.1f} |\n-->\n\n?\n\n<!--/-->", "\n\n| h |\n|---|\n| 0.2 |\n\n"),
    ],
)  # fmt: skip
def test_a_mark_is_filled(text, made):
    found = figures.filled(text, {**KNOWN, "interval": figures.interval})
    assert f"-->{made}<!--/-->" in found and figures.filled(found, {**KNOWN, "interval": figures.interval}) == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("it is <!--= {rate.none} -->1<!--/-->", "no 'none' among half"),
        ("it is <!--= {rate.half} -->1", "not closed"),
        ("<!--= {rate.half} -->1<!--/-->", "begins with a comment"),
    ],
)
def test_a_mark_that_cannot_be_filled_is_named(text, message):
    with pytest.raises(ValueError, match=message):
        figures.filled(text, KNOWN)
