"""docs/power.md, which `make figures` writes from the records of the power study, and its picture, docs/power.png:

python -m benchmarks.quality.power.page
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from benchmarks import RESULTS, ROOT

PLAIN = ("plain FID", "plain AuthPct", "plain C_T")
SHOWN = 200  # cubes: the size of the picture

HEAD = """# What the gates catch

Made of `benchmarks/results/power.json` and `false_alarms.json`; `python -m benchmarks.run --only power`, part of `make
bench`, measures them. A bank of {cubes:,} simulated eyes of {patients:,} patients that the
packaged gates have not seen; each fault is applied to all of them; {repetitions} times, n admitted cubes of different
patients are drawn and judged. Per cent of verdicts that *fail* (undecided ones are not counted as caught, though
`--gates require` stops for them too); between brackets the exact 95 % interval. A fault counts as caught when the
verdict fails; copies also when every one of them was rejected by the per-cube gates. These are simulated eyes: real
ones vary in ways that a simulation does not, so weak spectral faults will be harder to see there.

"""


_PLAIN = """The same sets under plain measures with fixed thresholds, per cent called bad. Plain FID: a small untrained
network on three bands in place of Inception, below 1.5 times real against real at 1,000 cubes; AuthPct at least 50 %;
C_T above -3. At small n they call good sets bad, at large n they miss most faults."""


def render() -> str:
    """The page."""
    power, alarms = newest()
    bank = power["bank"]
    head = HEAD.format(cubes=bank["cubes"], patients=bank["patients"], repetitions=power["repetitions"])
    return "\n".join([head, _faults(power), _copies(power), _alarms(alarms)])


def newest() -> tuple[dict, dict]:
    """The newest records of planted faults and of false alarms."""
    return tuple(json.loads((RESULTS / f"{name}.json").read_text())[-1] for name in ("power", "false_alarms"))


def _faults(power: dict) -> str:
    sizes = sorted({int(n) for at in power["faults"].values() for n in at} & {50, 200, 1000})
    smallest = power["smallest size that catches 90 %"]
    lines = [
        "| planted fault | " + " | ".join(f"n = {n}" for n in sizes) + " | caught in 90 % from | seen first by |",
        "| --- |" + " --- |" * (len(sizes) + 2),
    ]
    for name, at in power["faults"].items():
        cells = [_percent(at[str(n)]["failed"], at[str(n)]["interval"]) if str(n) in at else "" for n in sizes]
        middle = at.get(str(SHOWN)) or next(iter(at.values()))
        first = [check for check in middle["by check"] if check not in PLAIN][:3]
        rejected = middle["all copies rejected by the per-cube gates"]
        if rejected:
            first.append(f"all copies rejected by the per-cube gates in {rejected:.0%}")
        lines.append(f"| {name} | {' | '.join(cells)} | {smallest.get(name, '')} | {', '.join(first)} |")
    beside = ["", "![faults by check](power.png)", "", _PLAIN, ""]
    beside += ["| planted fault | n | " + " | ".join(PLAIN) + " |", "| --- | --- |" + " --- |" * len(PLAIN)]
    for name, at in power["faults"].items():
        for n in sizes:
            if str(n) in at:
                found = [f"{at[str(n)]['by check'].get(measure, 0):.0%}" for measure in PLAIN]
                beside.append(f"| {name} | {n} | {' | '.join(found)} |")
    return "\n".join([*lines, *beside, ""])


def _copies(power: dict) -> str:
    unseen = power["unseen"]
    lines = [
        "",
        "Copies of training cubes, one by one, at the per-cube gates:",
        "",
        "| form | called copies | of |",
        "| --- | --- | --- |",
    ]
    lines += [f"| {k} | {_percent(v['caught'], v['interval'], 1)} | {v['n']:,} |" for k, v in power["copies"].items()]
    called = unseen["called copies"]
    lines.append(
        f"| fresh eyes of unseen patients (calibrated: {unseen['alpha']:.0%}) | "
        f"{_percent(called['share'], called['interval'], 1)} | {unseen['n']:,} |"
    )
    return "\n".join(
        [*lines, "", f"Of the fresh eyes {unseen['rejected']['share']:.1%} are rejected for any reason.", ""]
    )


def _alarms(alarms: dict) -> str:
    lines = ["", "Real against real, disjoint sets of freshly simulated patients:", ""]
    lines += ["| proposals in a set | verdicts | fail | undecided but for the number of proposals | pass but for it |"]
    lines += ["| --- | --- | --- | --- | --- |"]
    for name, found in alarms.items():
        if not name.startswith("sets of"):
            continue
        passed = found["passed but for the number of proposals"]
        unsure = 1 - found["failed"] - passed
        lines.append(
            f"| {name.removeprefix('sets of ')} | {found['verdicts']} | "
            f"{_percent(found['failed'], found['interval'])} | {unsure:.0%} | {passed:.0%} |"
        )
    return "\n".join([*lines, ""])


def picture(power: dict, path: Path) -> None:
    """Faults x checks at n = SHOWN: how often each check fails."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    faults = [name for name, at in power["faults"].items() if str(SHOWN) in at]
    rates = [power["faults"][name][str(SHOWN)]["by check"] for name in faults]
    checks = sorted({c for found in rates for c in found if c not in PLAIN}, key=_order)
    checks += [c for c in PLAIN if any(c in found for found in rates)]
    table = np.array([[found.get(check, 0) for check in checks] for found in rates])
    figure, axis = plt.subplots(figsize=(1.5 + 0.36 * len(checks), 1.6 + 0.34 * len(faults)))
    axis.imshow(table, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axis.set_xticks(range(len(checks)), [c.replace("_", " ") for c in checks], rotation=60, ha="right", fontsize=8)
    axis.set_yticks(range(len(faults)), faults, fontsize=8)
    for row, values in enumerate(table):
        for column, value in enumerate(values):
            if value >= 0.005:
                colour = "white" if value > 0.6 else "black"
                axis.text(column, row, f"{100 * value:.0f}", ha="center", va="center", fontsize=6.5, color=colour)
    if any(c in PLAIN for c in checks):
        axis.axvline(len(checks) - sum(c in PLAIN for c in checks) - 0.5, color="black", lw=0.8)
    axis.set_title(
        f"Per cent of verdicts in which a check fails, n = {SHOWN}; right of the line: plain measures", fontsize=9
    )
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _order(check: str) -> tuple[int, str]:
    kinds = ("cop", "accept", "encoder", "spectra", "ms_ssim")
    return next((k for k, kind in enumerate(kinds) if check.startswith(kind)), len(kinds)), check


def _percent(share: float, interval, digits: int = 0) -> str:
    value, low, high = (f"{100 * v:.{digits}f}" for v in (share, *interval))
    return f"{value} [{low}, {high}]"


if __name__ == "__main__":
    picture(newest()[0], ROOT / "docs" / "power.png")
