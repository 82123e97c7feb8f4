"""Commands around the generator: train, calibrate gates, sample, judge. Each imports what it needs when it runs."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from synthgen.cli.shared import GATES, GENERATOR, PASS_ON, AsJson, Debug, echo_json, pass_on
from synthgen.errors import one_line_errors


def add_to(app: typer.Typer) -> None:
    """Add the trainings to the command line, in the order in which `--help` shows them."""
    for command in (train_autoencoder, train_diffusion, train_generator):
        app.command(command.__name__.replace("_", "-"), rich_help_panel=GENERATOR, **PASS_ON)(command)


def add_gates_to(app: typer.Typer) -> None:
    """Add gates and sampling, which `--help` shows after all that trains a generator."""
    app.command(rich_help_panel=GATES, **PASS_ON)(calibrate)
    for command in (sample, gate, evaluate):
        app.command(rich_help_panel=GATES)(command)


def train_autoencoder(context: typer.Context) -> None:
    """Train the VQ-GAN.

    Example: synthgen train-autoencoder --data cohort.h5 --out runs/autoencoder
    """
    from synthgen.integration.train import autoencoder_main

    pass_on(autoencoder_main, context)


def train_diffusion(context: typer.Context) -> None:
    """Train the latent diffusion.

    Example: synthgen train-diffusion --data cohort.h5 --autoencoder runs/autoencoder --out runs/diffusion
    """
    from synthgen.integration.train import diffusion_main

    pass_on(diffusion_main, context)


def train_generator(context: typer.Context) -> None:
    """Train both from one recipe.

    Example: synthgen train-generator --config configs/retina224.yaml --data cohort.h5
    """
    from synthgen.integration.recipe import main

    pass_on(main, context)


def calibrate(context: typer.Context) -> None:
    """Make quality gates from real cubes.

    Example: synthgen calibrate --data cohort.h5 --out gates
    """
    from synthgen.quality.calibrate import main as run

    pass_on(run, context)


def sample(
    out: Annotated[str, typer.Option(help="folder for the shards, or its URL in an object store (s3://bucket/x)")],
    count: Annotated[int, typer.Option(min=1, help="cubes to propose")] = 64,
    generator: Annotated[str, typer.Option(help="generator folder or packaged name")] = "phantom64",
    kind: Annotated[str, typer.Option(help="tokens (small, exact) or cubes (for other programs)")] = "tokens",
    shard_size: Annotated[int | None, typer.Option(min=1, help="proposals per shard; default 2000, or 64 MB")] = None,
    dtype: Annotated[str, typer.Option(help="of cubes: uint16 (reflectance x 65535) or float16")] = "uint16",
    gates: Annotated[
        str, typer.Option(help="require, report or off; auto: require, but report for the packaged generator")
    ] = "auto",
    gates_folder: Annotated[str | None, typer.Option(help="folder written by `synthgen calibrate`")] = None,
    seed: int = 0,
    steps: Annotated[int, typer.Option(min=1, help="steps of the sampler")] = 8,
    sampler: Annotated[str, typer.Option(help="euler, heun or ab2")] = "ab2",
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1; by default the best there is")] = None,
    processes: Annotated[int, typer.Option(min=1, help="that share the work, one for each GPU")] = 1,
    debug: Debug = False,
) -> None:
    """Write synthetic cubes as webdataset shards.

    Example: synthgen sample --count 1000 --out shards
    """
    with one_line_errors(debug):
        if processes > 1:
            from synthgen.runs.launch import in_processes

            in_processes(sys.argv[1:], processes)
        from synthgen.integration.sample import sample_shards

        manifest = sample_shards(
            out,
            count,
            generator,
            kind,
            gates,
            gates_folder,
            seed=seed,
            steps=steps,
            sampler=sampler,
            dtype=dtype,
            shard_size=shard_size,
            device=device,
        )
        if int(os.environ.get("RANK", "0")) > 0:
            return
        world = int(os.environ.get("WORLD_SIZE", "1"))
        held = sum(s.count for s in manifest.shards)
        size = sum(s.bytes for s in manifest.shards)
        typer.echo(
            f"{out}: {held} {kind} of {manifest.proposed} proposed, {len(manifest.shards)} shards, {size:,} bytes"
            + (f", written by {world} processes" if world > 1 else "")
        )
        if manifest.verdict is not None:
            typer.echo(f"gates: {manifest.verdict.status} ({manifest.verdict.reason})")


def gate(
    shards: Annotated[str, typer.Argument(help="folder of shards, of tokens or of cubes, or its URL")],
    gates_folder: Annotated[
        str, typer.Option("--gates", "--gates-folder", help="folder written by `synthgen calibrate`, or packaged name")
    ],
    out: Annotated[Path | None, typer.Option(help="folder for verdict.html and .json; beside the shards")] = None,
    real: Annotated[Path | None, typer.Option(help="training cohort, to show nearest neighbours from")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1; by default the best there is")] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Judge shards before use: each cube, each shard, the whole set. Exit code 0 pass, 3 fail, 4 undecided.

    Example: synthgen gate shards --gates gates
    """
    with one_line_errors(debug):
        from synthgen.cli.verdict import print_shards, print_verdict
        from synthgen.integration.judging.judge import raise_unless_passed
        from synthgen.integration.judging.shards import gate_shards
        from synthgen.runs.files import read_json

        verdict, manifest, page = gate_shards(shards, gates_folder, out, real=real, device=device)
        if as_json:
            echo_json(read_json(page.with_suffix(".json")))
        else:
            print_verdict(verdict)
            print_shards(manifest)
            typer.echo(f"{page}: the verdict as a page")
        raise_unless_passed(verdict, shards)


def evaluate(
    synthetic: Annotated[str, typer.Option(help="cubes of any program: a file, or a folder of shards or its URL")],
    real: Annotated[Path, typer.Option(help="cohort of real cubes")],
    gates_folder: Annotated[
        str, typer.Option("--gates", "--gates-folder", help="folder written by `synthgen calibrate`, or packaged name")
    ],
    out: Annotated[Path, typer.Option(help="page to write; the verdict goes beside it as .json")] = Path("report.html"),
    source_wavelengths: Annotated[str | None, typer.Option(help="as for ingest: 400:1000:5 or a list")] = None,
    variable: Annotated[str | None, typer.Option(help="name of the array in a .mat or .h5 file")] = None,
    axes: Annotated[str | None, typer.Option(help="axis order where it is not clear: chw, hwc, nchw, nhwc")] = None,
    scale: Annotated[float | None, typer.Option(help="value that means reflectance 1")] = None,
    device: Annotated[str | None, typer.Option(help="for decoding tokens: cpu, cuda, cuda:1")] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Judge synthetic cubes against real ones. Exit code 0 pass, 3 fail, 4 undecided.

    Example: synthgen evaluate --synthetic cubes.npy --real eyes.h5 --gates gates --out report.html
    """
    with one_line_errors(debug):
        from synthgen.cli.verdict import print_verdict
        from synthgen.integration.judging.evaluate import evaluate as run
        from synthgen.integration.judging.judge import raise_unless_passed
        from synthgen.runs.files import read_json

        hints = {"source_wavelengths": source_wavelengths, "variable": variable, "axes": axes, "scale": scale}
        verdict, (page, record) = run(synthetic, real, gates_folder, out, device=device, **hints)
        if as_json:
            echo_json(read_json(record))
        else:
            print_verdict(verdict)
            typer.echo(f"{page}: the verdict as a page; {record}: as JSON")
        raise_unless_passed(verdict, synthetic)
