"""A verdict on the terminal: the checks beside their limits, and the shards."""

from __future__ import annotations

from synthgen.contracts import Check, Manifest, Status, Verdict
from synthgen.report.verdict_style import AT_LEAST, number

_COLOURS = {Status.PASS: "green", Status.FAIL: "red", Status.UNDECIDED: "yellow"}


def print_verdict(verdict: Verdict) -> None:
    """Print the table of checks, and in words those that stand in the way."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    title = f"{verdict.accepted:,} of {verdict.proposed:,} cubes admitted"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for name in ("check", "verdict", "value [95 % interval]", "limit", "n"):
        words = name in ("check", "verdict")
        table.add_column(name, justify="left" if words else "right", no_wrap=words, overflow="fold")
    for check in verdict.checks:
        table.add_row(check.name, _coloured(check.status), _value(check), _limit(check), f"{check.n:,}")
    console = Console()
    console.print(table)
    for check in verdict.checks:
        if check.status in (Status.FAIL, Status.UNDECIDED):
            console.print(f"{check.name}: {check.reason}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"verdict: {_coloured(verdict.status)}", highlight=False)


def print_shards(manifest: Manifest) -> None:
    """Print a line on the shards: how many may be used, and which failed."""
    used = [s for s in manifest.shards if s.status == Status.PASS]
    rejected = sum(len(s.rejected) for s in manifest.shards)
    print(f"{len(used)} of {len(manifest.shards)} shards may be used; {rejected} cubes rejected one by one")
    for entry in manifest.shards:
        if entry.verdict is not None and entry.verdict.status == Status.FAIL:
            print(f"{entry.name} fails: {entry.verdict.reason}")


def _value(check: Check) -> str:
    if check.value is None:
        return "–"
    low, high = check.interval or (None, None)
    return number(check.value) + (f" [{number(low)}, {number(high)}]" if check.interval else "")


def _limit(check: Check) -> str:
    return (
        f"at least {number(check.limit)}" if check.name in AT_LEAST and check.limit is not None else number(check.limit)
    )


def _coloured(status: Status) -> str:
    colour = _COLOURS.get(status)
    return f"[{colour}]{status}[/{colour}]" if colour else str(status)
