"""Figures in pages come from `results/`: `make figures` writes every one anew, and every page that is made of records.

A page says where a figure comes from in a comment that no reader sees, and holds the figure after it:

    samples/s at ratio 0.5 over ratio 0: <!--= {loop_speed.ratio_half_over_none:.2f} -->0.80<!--/-->

The comment is the body of a Python f-string. Its names are the newest CPU record of each `results/<name>.json` (and
the whole list as `every.<name>`), the cells of the sweeps (`sweep64`, `ablations64`), the configurations of what is
packaged (`packaged.gates`, `.generator`, `.segmenter`) and the small functions below. 0.46 as `.0%` is `46 %`. A
table has its heading and one row as such a text, filled in for every record of a list:

    <!--each study.arms
    | arm | AUROC |
    | --- | --- |
    | {arm} | {mean(aurocs):.3f} |
    -->

    | arm | ...

    <!--/-->
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks import RESULTS, ROOT, page
from benchmarks.quality.power import page as power_page

INLINE = re.compile(r"(<!--= ([^\n|]*?) -->)([^\n]*?)(<!--/-->)")
TABLE = re.compile(r"(<!--each ([^\n]+)\n(.*?)\n-->\n\n)(.*?)(\n\n<!--/-->)", re.S)
SWEEPS = {"sweep64": "pareto64", "ablations64": "ablations64"}
PACKAGED = {
    "gates": "quality/packaged/phantom64/gates.json",
    "generator": "generator/packaged/phantom64/config.json",
    "segmenter": "quality/packaged/segmenter/segmenter.json",
}


class Record(dict):
    """JSON whose keys can be asked for by a dot."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"no '{name}' among {', '.join(self)}") from None


def interval(ends: Iterable[Any] | str, form: str = ".2f") -> str:
    """'[low, high]' of two numbers, 'value [low, high]' of three or of a text that holds some."""
    numbers = re.findall(r"[-+]?\d+(?:\.\d+)?", ends) if isinstance(ends, str) else list(ends)
    *value, low, high = (f"{float(number):{form}}" for number in numbers)
    return f"{value[0]} [{low}, {high}]" if value else f"[{low}, {high}]"


def find(records: Iterable[Mapping[str, Any]], **wanted: Any) -> Any:
    """The one record with these values, or None."""
    return next((one for one in records if all(one[k] == v for k, v in wanted.items())), None)


def against(study: Mapping[str, Any], first: str, second: str, form: str = "+.2f") -> str:
    """What one arm of a study has over another, with its interval; nothing where they were not compared."""
    found = find(study["differences"], first=first, second=second)
    return interval([found.difference, *found.interval], form) if found else ""


def check(verdict: Mapping[str, Any], name: str) -> Any:
    """A check's value in a verdict."""
    return next(one["value"] for one in verdict["checks"] if one["name"] == name)


def names() -> dict[str, Any]:
    """What a figure may be made of."""
    read = lambda path: json.loads(path.read_text(encoding="utf-8"), object_hook=Record)
    found = {path.stem: read(path) for path in sorted(RESULTS.glob("*.json"))}
    every = Record({name: runs if isinstance(runs, list) else [runs] for name, runs in found.items()})
    rows = {name: _rows(ROOT / "docs" / place / "table.csv") for name, place in SWEEPS.items()}
    packaged = Record({name: read(ROOT / "synthgen" / path) for name, path in PACKAGED.items()})
    newest = {name: _newest(runs) for name, runs in every.items()}
    helpers = {one.__name__: one for one in (interval, find, against, check, mean)}
    return {**helpers, **newest, **rows, "every": every, "packaged": packaged}


def _newest(runs: list[Any]) -> Any:
    return next((run for run in reversed(runs) if run.get("device", "cpu") == "cpu"), runs[-1])


def _rows(path: Path) -> Record:
    """The cells of a sweep by name; their figures as numbers."""
    number = lambda text: float(text) if re.fullmatch(r"-?\d[\d.e+-]*", text) else text
    with path.open(newline="", encoding="utf-8") as file:
        rows = [Record({k: number(v) for k, v in row.items()}) for row in csv.DictReader(file)]
    return Record({row.name: row for row in rows})


def filled(text: str, known: Mapping[str, Any]) -> str:
    """The page with every figure as the records have it; ValueError for a mark that nothing answers."""

    def one(template: str, more: Mapping[str, Any] = {}) -> str:
        try:
            made = eval('f"""' + template + '"""', {**known, **more})  # our own pages: as trusted as our own code
        except Exception as error:
            raise ValueError(f"{template}: {type(error).__name__}: {error}") from error
        return re.sub(r"(\d)%", r"\1 %", made)

    def table(found: re.Match) -> str:
        *heading, row = found[3].splitlines()
        records = eval(found[2], dict(known))
        rows = [one(row, {**each, "row": each}) for each in records]
        return found[1] + "\n".join([*heading, *rows]) + found[5]

    marks = len(re.findall("<!--(?:=|each )", text))
    if not marks == len(INLINE.findall(text)) + len(TABLE.findall(text)) == text.count("<!--/-->"):
        raise ValueError("a mark is not closed, or holds what it must not: '|' or a line's end in a line of text")
    if begins := re.search("^ {0,3}<!--=.*", text, re.M):
        raise ValueError(f"a line that begins with a comment is not text to Markdown: {begins[0]}")
    text = TABLE.sub(table, text)
    return INLINE.sub(lambda found: found[1] + one(found[2]) + found[4], text)


def pages() -> list[Path]:
    """Everything that may hold figures."""
    top = [path for name in ("README.md", "CONTRIBUTING.md") if (path := ROOT / name).exists()]
    return [*top, *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "synthgen").glob("*/packaged/*/README.md"))]


def outdated() -> dict[Path, str]:
    """Pages that no longer say what the records say, with what they should hold."""
    known, made = names(), {}
    for path in pages():
        try:
            made[path] = filled(path.read_text(encoding="utf-8"), known)
        except ValueError as error:
            raise ValueError(f"{path.relative_to(ROOT)}: {error}") from None
    made[RESULTS.parent / "README.md"] = page.render()
    made[ROOT / "docs" / "power.md"] = power_page.render()
    return {path: text for path, text in made.items() if not path.exists() or path.read_text(encoding="utf-8") != text}


def write() -> None:
    """Bring every page up to date."""
    for path, text in outdated().items():
        path.write_text(text, encoding="utf-8")
        print(f"{path.relative_to(ROOT)}: written anew")


if __name__ == "__main__":
    write()
