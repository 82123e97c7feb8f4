"""The README.md of a generator folder: what it is, what it learned from, what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def model_card(about: Mapping[str, Any]) -> str:
    """Markdown for a generator's `config.json` content. Figures of `about["made"]["quality"]` become the table."""
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
        f"Cohort `{about['provenance']['cohort_hash']}`, {len(about['provenance']['patients'])} patients "
        "(salted hashes in `config.json`).",
        "",
    ]
    for stage in ("autoencoder", "diffusion"):
        if figures := made.get(stage, {}):
            lines += [f"## Training of the {stage}", "", *_table(figures), ""]
    if quality := made.get("quality", {}):
        lines += ["## Measured quality", "", *_table(quality), ""]
    lines += [
        "## Use",
        "",
        "```python",
        "from synthgen import SyntheticRetinaDataset",
        'for sample in SyntheticRetinaDataset("<this folder>", seed=0, count=16): sample["cube"]',
        "```",
        "",
        "Synthetic cubes are for pretraining and for testing software; they are no evidence about any person.",
        "",
    ]
    return "\n".join(lines)


def _table(figures: Mapping[str, Any]) -> list[str]:
    def text(value: Any) -> str:
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    return ["| | |", "|---|---|", *(f"| {name.replace('_', ' ')} | {text(value)} |" for name, value in figures.items())]
