"""Commands around what is taken elsewhere: the safety of the augmentations, features, the export of a backbone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from synthgen.cli.shared import PRETRAINING, command, echo_json

if TYPE_CHECKING:
    from synthgen.experiments.augmentation_safety import Safety
    from synthgen.experiments.embed import Embedded
    from synthgen.ssl.export import Exported


def add_to(app: typer.Typer) -> None:
    """Give `app` the commands of this module."""

    @command(
        app,
        PRETRAINING,
        "synthgen.experiments.augmentation_safety:augmentation_safety",
        names={"recipe": ("--config",)},
    )
    def augmentations(safety: Safety, as_json: bool) -> None:
        """Report how much of a weak spectral difference each augmentation takes. Exit code 0 safe, 3 too much.

        Example: synthgen augmentations --data eyes.h5
        """
        from synthgen.experiments.augmentation_safety import print_safety, raise_unless_safe

        if as_json:
            echo_json(safety.model_dump(mode="json") | {"too_much": safety.too_much})
        else:
            print_safety(safety)
        raise_unless_safe(safety)

    @command(app, PRETRAINING, "synthgen.experiments.embed:embed", positional=("backbone",), keeps="out")
    def embed(written: Embedded) -> None:
        """Write the features of every cube of a cohort to one file, .npz or .csv.

        Example: synthgen embed phantom64 --data eyes.h5 --out features.npz
        """
        typer.echo(f"{written.path}: {written.features} features of {written.cubes} cubes")

    @command(app, PRETRAINING, "synthgen.ssl.export:export", positional=("backbone",))
    def export(written: Exported) -> None:
        """Write a backbone for other programs; its standardisation travels with it.

        Example: synthgen export runs/pretrain --to onnx --out eyes.onnx
        """
        path, name, bands, size = written
        call = f"timm.create_model('{name}', in_chans={bands}, num_classes=0, checkpoint_path='{path}')"
        if path.suffix == ".onnx":
            call = f"onnxruntime.InferenceSession('{path}').run(None, {{'reflectance': cubes}})"
        typer.echo(f"{path}: {bands} bands, {size} x {size}\n{call}")
