"""`synthgen report`: the page of a run, finished or not, from what its folder holds; trainings and studies have one."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field

from synthgen.errors import InputError, must_exist
from synthgen.report.run_page import RunContent, flattened, run_page
from synthgen.runs.checkpoint import Checkpoints
from synthgen.runs.files import read_json
from synthgen.runs.folder import COMMAND, read_command, read_metrics

PAGE = "report.html"
SETTINGS = ("config.yaml", "study.yaml")
FINDINGS = "study.json"
PRODUCTS = {
    "train-autoencoder": "autoencoder", "train-diffusion": "generator", "pretrain": "summary.json", "study": FINDINGS,
}  # fmt: skip
MOST_BYTES = 12 * 2**20  # of pictures on a page
REDUNDANT = ("curves.png",)  # drawn anew on the page
NO_RESULT = (COMMAND, "environment.json", "inputs.json", "report.json", FINDINGS)


def report_run(
    folder: Annotated[str | os.PathLike, Field(description="folder of a run, finished or not, or of several runs")],
) -> Path:
    """Write `report.html` into the folder of a run, or of several runs, and return it.

    A folder of runs (that of a recipe or a demo) gets a page that leads to theirs. InputError when there is nothing to
    report on.
    """
    path = must_exist(folder, "folder")
    parts, own = {}, _settings_file(path)
    if own is None or own.name != SETTINGS[0]:  # a folder of runs, or a study with its pretrainings
        inside = "*/" if own is None else "pretrain/*/"
        for inner in sorted({p.parent for name in SETTINGS for p in path.glob(inside + name)}):
            report_run(inner)
            parts[inner.name] = (_status(inner, _command(inner)[0])[0], f"{inner.relative_to(path).as_posix()}/{PAGE}")
    page = path / PAGE
    content = _content(path, parts)
    if not (content.metrics or content.results or content.pictures or content.verdicts or parts):
        raise InputError("holds nothing to report on", path=path, expected="a run folder with metrics.jsonl or results")
    run_page(page, content)
    return page


def end_with_report(folder: str | os.PathLike) -> None:
    """`report_run`, of which no training fails: a problem is one line on standard error."""
    try:
        report_run(folder)
    except Exception as error:
        print(f"warning: {folder}: the report could not be written: {error}", file=sys.stderr)


def _content(path: Path, parts: dict[str, tuple[str, str]]) -> RunContent:
    command, settings = _command(path)
    metrics = read_metrics(path)
    status, sentence = _status(path, command, metrics, settings)
    results, verdicts = _results(path)
    concluded: list[str] = []
    if not command and parts:
        status, sentence = "collection", f"{len(parts)} runs."
    if command == "study" and status == "finished":
        (sentence, *concluded), arms = _study(read_json(path / FINDINGS))
        results = arms | results
    pictures, left_out = _pictures(path)
    notes = concluded + ([f"Too large to stand on this page: {', '.join(left_out)}."] if left_out else [])
    if any(line.get("gates") == "uncertified" for line in metrics):
        notes.append("Its synthetic cubes were not certified by the gates.")
    return RunContent(
        title=path.resolve().name,
        status=status,
        sentence=sentence,
        facts=_facts(path, metrics),
        notes=notes,
        metrics=metrics,
        pictures=pictures,
        verdicts=verdicts,
        results=results,
        settings=settings,
        commands=_commands(path, command, status, "resume" in settings),
        parts=parts,
    )


def _command(path: Path) -> tuple[str, dict[str, tuple[Any, Any]]]:
    """Which command made the folder ("" where none is recorded), and key -> (value, default)."""
    file = _settings_file(path)
    if file is None:
        return "", {}
    held = dict(flattened(yaml.safe_load(file.read_text(encoding="utf-8")) or {}))
    command, defaults = read_command(path)
    return command, {key: (value, defaults.get(key)) for key, value in held.items()}


def _settings_file(path: Path) -> Path | None:
    return next((path / name for name in SETTINGS if (path / name).exists()), None)


def _status(
    path: Path, command: str, metrics: list[dict[str, Any]] | None = None, settings: dict | None = None
) -> tuple[str, str]:
    metrics = read_metrics(path) if metrics is None else metrics
    last = metrics[-1]["step"] if metrics else 0
    steps = (settings or {}).get("steps", (None, None))[0]
    words = f"{command or 'run'}, step {last:,}" + (f" of at most {steps:,}" if isinstance(steps, int) else "")
    product = PRODUCTS.get(command)
    if product is not None:
        done = (path / product).exists()
    else:
        done = _settings_file(path) is None or bool(metrics and last == steps)
    return ("finished" if done else "stopped"), "study." if command == "study" else words + "."


def _study(result: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """What a study concluded, and its arms and differences as they stand in a table."""
    arms = {
        arm["arm"]: f"{arm['what']}; AUROC {', '.join(f'{v:.3f}' for v in arm['aurocs'])}; {arm['steps']} steps, "
        f"{arm['seconds'] / 60:.1f} min" + (f"; gates: {arm['gates']}" if arm["gates"] else "")
        for arm in result["arms"]
    }
    differences = {
        f"{d['first']} - {d['second']}": f"{d['difference']:+.3f} [{d['interval'][0]:+.3f}, {d['interval'][1]:+.3f}], "
        f"{d['conclusion']}"
        for d in result["differences"]
    }
    return result["conclusion"] or ["study."], {"arms": arms, "differences, AUROC [95 %]": differences}


def _facts(path: Path, metrics: list[dict[str, Any]]) -> list[tuple[str, str]]:
    facts = []
    times = [line["time"] for line in metrics if "time" in line]
    if len(times) > 1:
        facts.append(("from the first line of metrics to the last", f"{(times[-1] - times[0]) / 60:.1f} min"))
    if (path / "environment.json").exists():
        environment = read_json(path / "environment.json")
        packages = environment.get("packages") or {}
        for name in ("device", "processes", "threads", "python", "platform", "commit"):
            if environment.get(name) is not None:
                facts.append((name, str(environment[name])))
        facts += [(name, str(packages[name])) for name in ("torch", "lightly", "timm") if packages.get(name)]
        for sitting in environment.get("earlier", []):  # where the run was resumed
            words = f"on {sitting.get('device')}, processes {sitting.get('processes')}"
            words += f", precision {sitting['precision']}" if "precision" in sitting else ""
            facts.append((f"until step {sitting.get('until_step')}", words))
    steps = Checkpoints(path / "checkpoints").steps() if (path / "checkpoints").is_dir() else []
    if steps:
        facts.append(("newest checkpoint", f"step {max(steps):,}"))
    return facts


def _results(path: Path) -> tuple[dict[str, Any], dict[str, tuple[dict[str, Any], str]]]:
    """The JSON files of the folder: results, and verdicts with their pages."""
    results, verdicts = {}, {}
    for file in sorted(path.glob("*.json")):
        if file.name in NO_RESULT:
            continue
        try:
            value = json.loads(file.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError):
            continue
        if isinstance(value, dict) and {"status", "checks"} <= value.keys():
            page = file.with_suffix(".html")
            verdicts[file.stem.replace("_", " ")] = (value, page.name if page.exists() else "")
        elif value:
            results[file.name] = value
    return results, verdicts


def _pictures(path: Path) -> tuple[dict[str, bytes], list[str]]:
    held, left_out, total = {}, [], 0
    for file in sorted([*path.glob("*.png"), *path.glob("pictures/*.png")]):
        if file.name in REDUNDANT:
            continue
        if total + file.stat().st_size > MOST_BYTES:
            left_out.append(file.name)
            continue
        total += file.stat().st_size
        held[file.stem.replace("_", " ")] = file.read_bytes()
    return held, left_out


def _commands(path: Path, command: str, status: str, resumes: bool) -> dict[str, str]:
    file = _settings_file(path)
    if not command or file is None:
        return {}
    config, again = shlex.quote(str(file)), shlex.quote(f"{path}_again")
    on, anew = (" --resume", " --no-resume") if resumes else ("", "")
    lines = {}
    if status == "stopped":
        lines["Go on where it stopped"] = f"synthgen {command} --config {config}{on}"
    lines["Run it once more, into another folder"] = f"synthgen {command} --config {config} --out {again}{anew}"
    lines["Write this page anew"] = f"synthgen report {shlex.quote(str(path))}"
    return lines
