"""`benchmarks/README.md`, the results page, made from the JSON files in `results/` whenever one is written."""

from __future__ import annotations

import json

from benchmarks import RESULTS

ELSEWHERE = {  # results with a page of their own
    "power": "docs/power.md",
    "false_alarms": "docs/power.md",
    "study": "docs/study.md",
    "study_default_augmentation": "docs/study.md",
}

HEAD = """# Results

Every figure here was written by a command (`make bench`, `make bench-gpu`, `make torture`) into `results/*.json`; this
page is made from those files and shows the newest run of each kind. The machines are shared and noisy: compare figures
of one run with one another, not with those of another run. Negative results stay.

"""


def render() -> str:
    """The page."""
    parts = [HEAD]
    for path in sorted(RESULTS.glob("*.json")):
        if path.stem in ELSEWHERE:
            page = ELSEWHERE[path.stem]
            parts.append(f"## {path.stem.replace('_', ' ')}\n\nSee [{page}](../{page}).\n")
            continue
        found = json.loads(path.read_text())
        runs = found if isinstance(found, list) else [found]
        newest = {(run.get("what"), run.get("count")): run for run in runs}  # of each thing that was measured
        parts.append(f"## {path.stem.replace('_', ' ')}\n")
        for run in newest.values():
            where = f"{run.get('date', '')} {run.get('device', '')}".strip()
            parts.append(f"{where}\n\n{_table(run)}\n")
    for folder in sorted(p for p in RESULTS.iterdir() if p.is_dir()):
        parts.append(f"## {folder.name}\n\nA record each; see [docs/sweep.md](../docs/sweep.md).\n")
    if not (RESULTS / "gpu.json").exists():
        parts.append("## gpu\n\nNot measured on a GPU.\n")
    return "\n".join(parts)


def _table(values: dict, prefix: str = "") -> str:
    lines = ["| what | value |", "| --- | --- |"] if not prefix else []
    for key, value in values.items():
        if key in ("date", "device", "packages", "python", "threads") and not prefix:
            continue
        name = f"{prefix}{key.replace('_', ' ')}"
        if isinstance(value, dict):
            lines.append(_table(value, f"{name}: "))
        elif key == "checks":
            for check in value:
                of = "" if check["limit"] is None else f", limit {check['limit']:.4g}"
                at = "" if check["value"] is None else f" {check['value']:.4g}"
                lines.append(f"| {prefix}{check['name']} | {check['status']}{at}{of} |")
        elif value is not None:
            lines.append(f"| {name} | {_short(value)} |")
    return "\n".join(line for line in lines if line)


def _short(value: object) -> str:
    """Numbers to four digits, also within lists."""
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"
    if isinstance(value, list):
        return ", ".join(_short(each) for each in value)
    if isinstance(value, dict):
        return "; ".join(f"{k} {_short(v)}" for k, v in value.items())
    return str(value)
