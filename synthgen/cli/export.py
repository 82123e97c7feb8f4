"""Commands around what is taken elsewhere: the safety of the augmentations, the export of a backbone."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from synthgen.cli.shared import PRETRAINING, AsJson, Debug, echo_json
from synthgen.errors import one_line_errors


class Format(StrEnum):
    """What a backbone can be written as."""

    timm = "timm"
    onnx = "onnx"


def add_to(app: typer.Typer) -> None:
    """Give `app` the commands of this module."""
    app.command(rich_help_panel=PRETRAINING)(augmentations)
    app.command(rich_help_panel=PRETRAINING)(export)


def augmentations(
    data: Annotated[Path | None, typer.Option(help="cohort file; simulated eyes by default")] = None,
    config: Annotated[Path | None, typer.Option(help="recipe (YAML) with a table 'augmentation'")] = None,
    cubes: Annotated[int, typer.Option(min=2, help="cubes looked at, at most")] = 32,
    views: Annotated[int, typer.Option(min=2, help="views of each cube")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="of the views")] = 0,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Say how much of a weak spectral difference each augmentation takes. Exit code 0 safe, 3 too much.

    Example: synthgen augmentations --data eyes.h5
    """
    with one_line_errors(debug):
        from synthgen.experiments.augmentation_safety import augmentation_safety, print_safety, raise_unless_safe

        safety = augmentation_safety(data, config, cubes, views, seed)
        if as_json:
            echo_json(safety.model_dump(mode="json") | {"too_much": safety.too_much})
        else:
            print_safety(safety)
        raise_unless_safe(safety)


def export(
    backbone: Annotated[Path, typer.Argument(help="backbone.safetensors or the run folder that holds it")],
    to: Annotated[Format, typer.Option(help="timm: weights; onnx: a graph that takes reflectance")],
    out: Annotated[Path, typer.Option(help="file to write: .safetensors for timm, .onnx for onnx")],
    debug: Debug = False,
) -> None:
    """Write a backbone for other programs; its standardisation travels with it.

    Example: synthgen export runs/pretrain --to onnx --out eyes.onnx
    """
    with one_line_errors(debug):
        from synthgen.ssl import export as formats
        from synthgen.ssl.backbone import load_backbone

        found = load_backbone(backbone)
        if to is Format.timm:
            path = formats.export_timm(backbone, out)
            call = f"timm.create_model('{found.name}', in_chans={found.bands}, num_classes=0, checkpoint_path='{path}')"
        else:
            path = formats.export_onnx(backbone, out)
            call = f"onnxruntime.InferenceSession('{path}').run(None, {{'reflectance': cubes}})"
        typer.echo(f"{path}: {found.bands} bands, {found.size} x {found.size}\n{call}")
