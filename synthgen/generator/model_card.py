"""The README.md of a generator folder: what it is, what it learned from, what was measured."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from synthgen.contracts import Check, Verdict
from synthgen.errors import MismatchError
from synthgen.runs.files import read_json, write_text

_SIGN = (
    "`copying ct` is -z of C_T (Meehan 2020): above 0 the proposals lie nearer to the training cubes than unseen real "
    "cubes do, and above the limit they fail; below 0 they lie further from them."
)


def write_quality(folder: str | os.PathLike, verdict: Verdict, note: str, figures: Mapping[str, Any]) -> None:
    """Put the gates' verdict on a generator into the card of its folder, in place of what stood there.

    Args:
        verdict: of its synthetic cubes. note: how it was measured, a sentence. figures: further ones by name.
    Raises MismatchError for the verdict of another generator, InputError for a folder without configuration.
    """
    about = read_json(Path(folder) / "config.json")
    if verdict.generator_hash != about["hash"]:
        raise MismatchError("a verdict on another generator", path=folder, found=verdict.generator_hash,
                            expected=about["hash"])  # fmt: skip
    write_text(Path(folder) / "README.md", model_card(about, _quality(verdict, note, figures)))


def model_card(about: Mapping[str, Any], quality: list[str] | None = None) -> str:
    """Markdown for a generator's `config.json` content; `quality`: the lines of that section."""
    shape, flow, made = about["autoencoder"], about["flow"], about["made"]
    bands = about["wavelengths_nm"]
    side = shape["size"] // shape["compression"]
    lines = [
        "# Generator of synthetic hyperspectral retinal cubes",
        "",
        f"Hash `{about['hash']}`. Cubes of {shape['bands']} bands ({bands[0]:g}-{bands[-1]:g} nm), "
        f"{shape['size']}x{shape['size']} pixels, reflectance 0-1.",
        "",
        "## What it is",
        "",
        f"- Vector-quantised autoencoder: compression {shape['compression']}, {side}x{side} tokens x {shape['levels']} "
        f"level(s), {shape['codes']} codes, base spectrum {shape['base_grid']}x{shape['base_grid']}.",
        f"- Latent rectified flow: U-Net with {flow['channels']} base channels, levels {tuple(flow['multipliers'])}.",
        f"- Weights in {'float16' if about['half'] else 'float32'}, safetensors; chunks of {about['chunk']}.",
        "",
        "## What it learned from",
        "",
        *_cohorts(about["provenance"]),
        "",
        "Patients stand as salted hashes in `config.json`.",
        "",
    ]
    for stage in ("autoencoder", "diffusion"):
        if figures := made.get(stage, {}):
            lines += [f"## Training of the {stage}", "", *_table(figures), ""]
    lines += [
        "## Measured quality",
        "",
        *(quality or ["Not measured: no gates have judged it yet."]),
        "",
        "## Use",
        "",
        "```python",
        "from synthgen import SyntheticRetinaDataset",
        "",
        'for sample in SyntheticRetinaDataset("<this folder>", seed=0, count=16):',
        '    sample["cube"]',
        "```",
        "",
        "Synthetic cubes are for pretraining and for testing software; they are no evidence about any person.",
        "",
    ]
    return "\n".join(lines)


def _quality(verdict: Verdict, note: str, figures: Mapping[str, Any]) -> list[str]:
    def row(check: Check) -> str:
        cells = (check.name.replace("_", " "), _text(check.value), _text(check.interval), _text(check.limit))
        return f"| {' | '.join(cells)} | {check.status} |"

    return [
        f"{note} Gates `{verdict.gates_hash}`: {verdict.accepted} of {verdict.proposed} proposals admitted, "
        f"verdict **{verdict.status}**.",
        "",
        *_table(figures),
        "",
        "| check | value | 95 % interval | limit | |",
        "|---|---|---|---|---|",
        *map(row, verdict.checks),
        *(["", _SIGN] if any(check.name == "copying_ct" for check in verdict.checks) else []),
    ]


def _table(figures: Mapping[str, Any]) -> list[str]:
    rows = (f"| {name.replace('_', ' ')} | {_text(value)} |" for name, value in figures.items())
    return ["| | |", "|---|---|", *rows]


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return " to ".join(map(_text, value))
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _cohorts(provenance: Mapping[str, Any]) -> list[str]:
    """A line for the cohort itself and for each that it went on from."""
    own = f"- Cohort `{provenance['cohort_hash']}`, {len(provenance['patients']):,} patients"
    return [own, *(line for other in provenance["also"] for line in _cohorts(other))]
