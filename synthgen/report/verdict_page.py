"""A verdict as one page of HTML that needs nothing else: words first, then checks, distributions, spectra, pictures."""

from __future__ import annotations

import base64
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from string import Template
from typing import Any

import numpy as np

from synthgen.report.spectra import COLOURS
from synthgen.report.verdict_bands import null_figure, strata_figure, wasserstein_figure
from synthgen.report.verdict_figures import (
    FEWEST,
    distribution_figure,
    envelope_figure,
    picture,
    spectra_figure,
)
from synthgen.report.verdict_style import AT_LEAST, PAGE, WORDS, by_owner, by_status, in_words, label_of, number
from synthgen.runs.files import write_text

Group = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Distribution:
    """One quantity of single cubes or pairs: values by group (real first), the limits, and a sentence below."""

    title: str
    unit: str
    groups: Group
    limits: tuple[float, ...] = ()
    note: str = ""
    mean: bool = False
    log: bool = False


@dataclass(frozen=True)
class Pair:
    """A cube [C, H, W] beside another (None: it cannot be shown), and the text below each."""

    left: np.ndarray
    right: np.ndarray | None
    left_label: str
    right_label: str
    note: str = ""
    flagged: bool = False


@dataclass(frozen=True)
class VerdictContent:
    """Everything on the page, as arrays and JSON.

    verdict: status, checks (name, status, value, interval, limit, n, reason), proposed, accepted.
    bands: the checks that have a null distribution: name, status, value, interval, limit, null (its quantiles).
    spectra: structure -> group (real first) -> (mean log-reflectance [N, C], unit [N] of each row).
    envelope: group -> mean reflectance [N, C] of whole cubes; envelope_limits [2, C].
    wasserstein: structure -> distance [C] and that between halves of the real cubes [C], per cent of the reflectance.
    strata: name, proposed, accepted, interval of the fraction; all cubes first.
    rejected: picture [C, H, W], name and reason of some; rejected_by: how many there are of each reason.
    shards: rows of name, cubes, rejected, own verdict, status, reason.
    """

    title: str
    verdict: Mapping[str, Any]
    facts: Sequence[tuple[str, str]]
    wavelengths: Sequence[float]
    notes: Sequence[str] = ()
    bands: Sequence[Mapping[str, Any]] = ()
    cubes: Sequence[Distribution] = ()
    envelope: Group = field(default_factory=dict)
    envelope_limits: np.ndarray | None = None
    spectra: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]] = field(default_factory=dict)
    spectra_note: str = ""
    wasserstein: Mapping[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    structures: Sequence[Distribution] = ()
    pairs: Sequence[Pair] = ()
    pairs_note: str = ""
    diversity: Sequence[Distribution] = ()
    alike: Pair | None = None
    strata: Sequence[tuple[str, int, int, tuple[float, float]]] = ()
    rejected: Sequence[tuple[np.ndarray, str, str]] = ()
    rejected_by: Mapping[str, int] = field(default_factory=dict)
    shards: Sequence[Mapping[str, Any]] = ()


def verdict_page(path: str | os.PathLike, content: VerdictContent) -> None:
    """Write the page, whole or not at all; it loads nothing from anywhere."""
    write_text(path, render(content))


def render(content: VerdictContent) -> str:
    """The page as text."""
    verdict = content.verdict
    parts = [
        _section("Checks", "", _checks(by_status(verdict["checks"]))),
        _section("Statistics on their null distributions", _BANDS, _bands(content)) if content.bands else "",
        _section("Shards", _SHARDS, _shards(content.shards)) if content.shards else "",
        _section("Single cubes and their limits", _CUBES, _cubes(content)),
        _section("Spectra of the structures", content.spectra_note, _spectra(content)),
        _section("Distance per band", _WASSERSTEIN, _wasserstein(content)) if content.wasserstein else "",
        _section("Structures", _STRUCTURES, _figures(content.structures)) if content.structures else "",
        _section("Nearest training cubes, the nearest first", content.pairs_note, _pairs(content)),
        _section("Diversity", _DIVERSITY, _diversity(content)),
        _section("Acceptance per stratum", _STRATA, _strata(content)) if content.strata else "",
        _section("Rejected cubes", "", _rejected(content)),
    ]
    status = str(verdict["status"])
    facts = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in content.facts)
    return Template(PAGE).substitute(
        title=escape(f"{content.title}: {WORDS.get(status, status)}"),
        name=escape(content.title),
        status=escape(status),
        word=escape(WORDS.get(status, status)),
        sentence=escape(in_words(verdict)),
        facts=facts,
        notes="".join(f"<p class='note'>{escape(note)}</p>" for note in content.notes),
        body="".join(parts),
    )


_SHARDS = (
    "Each shard is judged by its own cubes as well. A reader takes a shard when the whole set passes and the shard "
    "itself does not fail; a shard with too few cubes for a verdict of its own stands and falls with the set."
)
_BANDS = (
    "Grey: what two sets of real cubes without a patient in common give at the same size, all of them, the middle 90 % "
    "and the middle half. Point and bar: these cubes and the 95 % interval. Right of the limit is worse; the limits "
    "hold together for a sound set in 95 of 100 cases (that of the Fréchet ratio is a policy)."
)
_WASSERSTEIN = (
    "How far the synthetic cubes' reflectance lies from that of the real ones, band by band (Wasserstein-1). To read; "
    "no check rests on it. Dotted: between two halves of the real patients."
)
_STRATA = (
    "A filter removes the rare phenotype first. Pigment is read from the background at 600 to 700 nm, in thirds of the "
    "real cubes; the side of the eye from where the disc lies."
)
_CUBES = "Cubes beyond a red line are rejected one by one."
_STRUCTURES = (
    "As found by one segmenter in real and synthetic cubes alike. The limits of these checks are on the divergence "
    "between the synthetic cubes and the real ones that the gates remember, given below each."
)
_DIVERSITY = (
    "How alike pairs of cubes are (MS-SSIM, 1 is the same picture), among real ones and among synthetic ones. The "
    "check itself compares with the real cubes that the gates remember."
)


def _section(title: str, lead: str, body: str) -> str:
    intro = f"<p class='lead'>{escape(lead)}</p>" if lead else ""
    return f"<section><h2>{escape(title)}</h2>{intro}{body}</section>\n"


def _image(data: bytes, alt: str, kind: str = "figure") -> str:
    encoded = base64.b64encode(data).decode()
    return f"<img class='{kind}' alt='{escape(alt, quote=True)}' src='data:image/png;base64,{encoded}'>"


def _chip(status: str) -> str:
    return f"<span class='chip {escape(status)}'>{escape(status)}</span>"


def _checks(checks: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for check in checks:
        interval = check.get("interval")
        ends = f"{number(interval[0])} to {number(interval[1])}" if interval else "&ndash;"
        rows.append(
            f"<tr><th scope='row'>{escape(label_of(check['name']))}<small>{escape(check['name'])}</small></th>"
            f"<td>{_chip(str(check['status']))}</td><td class='n'>{number(check.get('value'))}</td>"
            f"<td class='n'>{ends}</td><td class='n'>{_limit(check)}</td>"
            f"<td class='n'>{check.get('n', 0):,}</td><td>{escape(check.get('reason', ''))}</td></tr>"
        )
    heads = ("check", "verdict", "value", "95 % interval", "limit", "n", "in words")
    head = "".join(f"<th scope='col'>{h}</th>" for h in heads)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return table


def _limit(check: Mapping[str, Any]) -> str:
    limit = number(check.get("limit"))
    return f"at least {limit}" if check["name"] in AT_LEAST and check.get("limit") is not None else limit


def _bands(content: VerdictContent) -> str:
    rows = [{**row, "label": label_of(row["name"])} for row in by_owner(content.bands)]
    return _image(null_figure(rows), "every statistic on its null distribution", "figure wide")


def _wasserstein(content: VerdictContent) -> str:
    return _image(wasserstein_figure(content.wavelengths, content.wasserstein), "Wasserstein distance per band")


def _strata(content: VerdictContent) -> str:
    return _image(strata_figure(content.strata), "fraction admitted of each stratum")


def _shards(shards: Sequence[Mapping[str, Any]]) -> str:
    rows = "".join(
        f"<tr><th scope='row'>{escape(s['name'])}</th><td class='n'>{s['count']:,}</td>"
        f"<td class='n'>{s['rejected']:,}</td><td>{_chip(s['own'])}</td><td>{_chip(s['status'])}</td>"
        f"<td>{escape(s['reason'])}</td></tr>"
        for s in shards
    )
    heads = ("shard", "cubes", "rejected", "its own verdict", "status", "in words")
    head = "".join(f"<th scope='col'>{h}</th>" for h in heads)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _figures(distributions: Sequence[Distribution]) -> str:
    cards = [
        f"<figure><h3>{escape(d.title)}</h3>"
        f"{_image(distribution_figure(d.groups, d.limits, d.unit, d.mean, d.log), d.title)}"
        f"<figcaption>{escape(d.note)}</figcaption></figure>"
        for d in distributions
    ]
    return f"<div class='grid'>{''.join(cards)}</div>"


def _cubes(content: VerdictContent) -> str:
    body = _figures(content.cubes)
    if content.envelope_limits is not None and content.envelope:
        low, high = content.envelope_limits
        drawn = envelope_figure(content.wavelengths, content.envelope, low, high)
        body += f"<figure><h3>Mean spectrum of the cube</h3>{_image(drawn, 'spectra within their limits')}</figure>"
    return body


def _spectra(content: VerdictContent) -> str:
    if not content.spectra:
        return "<p>The gates know no structures: they were calibrated without masks.</p>"
    cards, missing = [], ""
    for name, groups in content.spectra.items():
        if few := [g for g, (logs, _) in groups.items() if np.isfinite(logs).all(1).sum() < FEWEST]:
            missing += f"<p>{escape(name)}: found in too few {escape(' and '.join(few))} cubes to draw.</p>"
        if len(few) < len(groups):
            drawn = _image(spectra_figure(content.wavelengths, groups, _tone(name)), f"spectra of {name}")
            cards.append(f"<figure><h3>{escape(name)}</h3>{drawn}</figure>")
    return f"<div class='grid'>{''.join(cards)}</div>{missing}"


def _tone(name: str) -> str:
    tone = COLOURS.get(name, "#1f6fb5")
    return tone if tone.startswith("#") else "#1f6fb5"


def _pair(pair: Pair, wavelengths: Sequence[float]) -> str:
    def side(cube: np.ndarray | None, label: str) -> str:
        shown = _image(picture(cube, wavelengths), label, "cube") if cube is not None else "<div class='blank'></div>"
        return f"<div>{shown}<small>{escape(label)}</small></div>"

    both = side(pair.left, pair.left_label) + side(pair.right, pair.right_label)
    mark = " flagged" if pair.flagged else ""
    return f"<figure class='pair{mark}'><div>{both}</div><figcaption>{escape(pair.note)}</figcaption></figure>"


def _pairs(content: VerdictContent) -> str:
    shown = "".join(_pair(p, content.wavelengths) for p in content.pairs)
    return f"<div class='pairs'>{shown}</div>" if shown else "<p>No cube to show.</p>"


def _diversity(content: VerdictContent) -> str:
    alike = f"<div class='pairs'>{_pair(content.alike, content.wavelengths)}</div>" if content.alike else ""
    return _figures(content.diversity) + alike if content.diversity else "<p>Too few cubes to compare.</p>"


def _rejected(content: VerdictContent) -> str:
    total = sum(content.rejected_by.values())
    if not total:
        return "<p>None of these cubes was rejected by the per-cube gates.</p>"
    counts = "; ".join(f"{reason}: {n:,}" for reason, n in Counter(content.rejected_by).most_common())
    shown = len(content.rejected)
    lead = f"{total:,} rejected ({counts}). " + ("All are shown." if shown == total else f"{shown} are shown.")
    cards = "".join(
        f"<figure>{_image(picture(cube, content.wavelengths), name, 'cube')}"
        f"<figcaption><b>{escape(name)}</b><br>{escape(reason)}</figcaption></figure>"
        for cube, name, reason in content.rejected
    )
    return f"<p class='lead'>{escape(lead)}</p><div class='sheet'>{cards}</div>"
