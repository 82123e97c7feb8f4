"""A run as one page that can be handed on: what came out, curves, pictures, verdicts, settings, how to repeat it."""

from __future__ import annotations

import base64
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from string import Template
from typing import Any

from synthgen.report.curve_svg import curve_svg
from synthgen.report.verdict_style import PAGE, in_words
from synthgen.runs.files import write_text

NO_CURVE = ("step", "time")
STATUS = {"finished": "pass", "stopped": "undecided", "collection": ""}


@dataclass(frozen=True)
class RunContent:
    """Everything on the page, as JSON and bytes.

    status: finished, stopped or collection (a folder of runs). sentence: what it is, in words. facts: label and value.
    metrics: the lines of metrics.jsonl. pictures: name -> bytes of a PNG. verdicts: name -> (verdict, its page or "").
    results: name of a file -> its JSON. settings: key -> (value, default or None where it is unknown).
    commands: what it does -> the line to type. parts: name -> (status, address) of the runs of a collection.
    """

    title: str
    status: str
    sentence: str
    facts: Sequence[tuple[str, str]] = ()
    notes: Sequence[str] = ()
    metrics: Sequence[Mapping[str, Any]] = ()
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    verdicts: Mapping[str, tuple[Mapping[str, Any], str]] = field(default_factory=dict)
    results: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    commands: Mapping[str, str] = field(default_factory=dict)
    parts: Mapping[str, tuple[str, str]] = field(default_factory=dict)


def run_page(path: str | os.PathLike, content: RunContent) -> None:
    """Write the page, whole or not at all; it loads nothing from anywhere."""
    write_text(path, render(content))


def render(content: RunContent) -> str:
    """The page as text."""
    facts = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in content.facts)
    body = [
        _section("Runs", _parts(content.parts)),
        _section("Curves", _curves(content.metrics)),
        _section("Verdicts", _verdicts(content.verdicts)),
        _section("Pictures", _pictures(content.pictures)),
        _section("Results", _results(content.results)),
        _section("How to repeat it", _commands(content.commands)),
        _section("Settings", _settings(content.settings)),
    ]
    return Template(PAGE).substitute(
        title=escape(f"{content.title}: {content.status}"),
        name=escape(content.title),
        status=STATUS[content.status],
        word=escape(content.status),
        sentence=escape(content.sentence),
        facts=facts,
        notes="".join(f"<p class='note'>{escape(note)}</p>" for note in content.notes),
        body=_STYLE + "".join(body),
    )


_STYLE = """<style>
.curves { display: grid; grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)); gap: 14px; }
svg.curve { width: 100%; height: auto; } svg.curve text { font-size: 11px; fill: #5c6875; }
svg.curve text.name { font-size: 13px; fill: #1d2530; font-weight: 600; } svg.curve line { stroke: #e3e6ea; }
svg.curve path { fill: none; stroke: #1f6fb5; stroke-width: 1.6; } svg.curve circle { fill: #1f6fb5; }
pre { background: #f1f3f5; border-radius: 6px; padding: 10px 14px; overflow-x: auto; margin: 4px 0 12px; }
h3, h3::first-letter { text-transform: none; }
details { margin-top: 8px; } summary { cursor: pointer; color: #4a5563; } td.same { color: #7a8793; }
</style>
"""


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>\n" if body else ""


def _parts(parts: Mapping[str, tuple[str, str]]) -> str:
    lines = (
        f"<p><span class='chip {STATUS[status]}'>{escape(status)}</span> "
        f"<a href='{escape(page, quote=True)}'>{escape(name)}</a></p>"
        for name, (status, page) in parts.items()
    )
    return "".join(lines)


def _curves(metrics: Sequence[Mapping[str, Any]]) -> str:
    series: dict[str, list[tuple[float, float]]] = {}
    lost: dict[str, int] = {}
    for line in metrics:
        for name, value in line.items():
            if name in NO_CURVE or isinstance(value, bool) or not isinstance(value, int | float | None):
                continue
            if value is not None and math.isfinite(value):  # what was not finite is null in metrics.jsonl
                series.setdefault(name, []).append((line["step"], value))
            else:
                lost[name] = lost.get(name, 0) + 1
    drawn = {n: p for n, p in series.items() if len(p) > 1 and len({v for _, v in p}) > 1}
    still = [f"{n} {p[-1][1]:.4g}" for n, p in series.items() if n not in drawn]
    body = "".join(curve_svg(n, p) for n, p in sorted(drawn.items(), key=lambda item: "loss" not in item[0]))
    notes = f"<p class='lead'>Without a curve: {escape('; '.join(still))}.</p>" if still else ""
    for name, count in lost.items():
        notes += f"<p class='note'>{escape(name)} was not finite in {count} lines, which are left out.</p>"
    return (f"<div class='curves'>{body}</div>" if body else "") + notes


def _verdicts(verdicts: Mapping[str, tuple[Mapping[str, Any], str]]) -> str:
    shown = []
    for name, (verdict, page) in verdicts.items():
        status = escape(str(verdict["status"]))
        link = f" <a href='{escape(page, quote=True)}'>the verdict as a page</a>" if page else ""
        line = f"<span class='chip {status}'>{status}</span> <b>{escape(name)}</b>"
        shown.append(f"<p>{line}: {escape(in_words(verdict))}{link}</p>")
    return "".join(shown)


def _pictures(pictures: Mapping[str, bytes]) -> str:
    return "".join(
        f"<figure><h3>{escape(name)}</h3><img class='figure' alt='{escape(name, quote=True)}' "
        f"src='data:image/png;base64,{base64.b64encode(data).decode()}'></figure>"
        for name, data in pictures.items()
    )


def _results(results: Mapping[str, Any]) -> str:
    tables = []
    for name, value in results.items():
        rows = "".join(
            f"<tr><th scope='row'>{escape(key)}</th><td>{escape(_short(result))}</td></tr>"
            for key, result in flattened(value)[:200]
        )
        tables.append(f"<h3>{escape(name)}</h3><table><tbody>{rows}</tbody></table>")
    return "".join(tables)


def flattened(value: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """Leaves of nested tables as (dotted key, value); lists of plain values are leaves."""
    if isinstance(value, Mapping):
        return [leaf for k, v in value.items() for leaf in flattened(v, f"{prefix}.{k}" if prefix else str(k))]
    if isinstance(value, list) and any(isinstance(v, dict | list) for v in value):
        return [leaf for k, v in enumerate(value) for leaf in flattened(v, f"{prefix}[{k}]")]
    return [(prefix, value)]


def _short(value: Any) -> str:
    text = f"{value:.5g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 300 else text[:297] + "..."


def _commands(commands: Mapping[str, str]) -> str:
    return "".join(f"<p>{escape(what)}:</p><pre>{escape(line)}</pre>" for what, line in commands.items())


def _settings(settings: Mapping[str, tuple[Any, Any]]) -> str:
    def table(rows: Mapping[str, tuple[Any, Any]]) -> str:
        lines = "".join(
            f"<tr><th scope='row'>{escape(k)}</th><td>{escape(_short(v))}</td><td class='same'>"
            f"{'' if d is None else escape(_short(d))}</td></tr>"
            for k, (v, d) in rows.items()
        )
        head = "<thead><tr><th>setting</th><th>value</th><th>default</th></tr></thead>"
        return f"<table>{head}<tbody>{lines}</tbody></table>"

    changed = {k: (v, d) for k, (v, d) in settings.items() if str(v) != str(d)}
    rest = {k: v for k, v in settings.items() if k not in changed}
    own = table(changed) if changed else ""
    return own + (
        f"<details><summary>{len(rest)} settings at their defaults</summary>{table(rest)}</details>" if rest else ""
    )
