"""The `synthgen` command. Every command imports what it needs when it runs, so that `--help` answers at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from synthgen.errors import one_line_errors

app = typer.Typer(
    name="synthgen",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Synthetic hyperspectral retinal cubes for self-supervised pretraining.\n\n"
    "In order: phantom or ingest, info, train-autoencoder, train-diffusion, calibrate, sample, gate, pretrain, probe. "
    "`synthgen demo` runs them all on simulated eyes.",
)
PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
Debug = Annotated[bool, typer.Option("--debug", help="show the traceback of an error")]


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="folder for everything the demo makes")] = Path("demo"),
    training_seconds: Annotated[float, typer.Option(help="for each of the generator's two trainings")] = 45,
    steps: Annotated[int, typer.Option(min=1, help="steps of the pretraining")] = 150,
    seed: int = 0,
    debug: Debug = False,
) -> None:
    """Run the main job, end to end, on simulated eyes: under 10 minutes on 2 cores."""
    with one_line_errors(debug):
        from synthgen.integration.demo import run_demo

        run_demo(out, training_seconds=training_seconds, steps=steps, seed=seed)


@app.command()
def phantom(
    out: Annotated[Path, typer.Argument(help="cohort file to write (HDF5)")],
    patients: Annotated[int, typer.Option(min=1, help="number of patients; both eyes of each")] = 64,
    size: Annotated[int, typer.Option(min=16, help="rows and columns")] = 64,
    seed: Annotated[int, typer.Option(help="the same seed gives the same eyes")] = 0,
    visits: Annotated[int, typer.Option(min=1, help="visits per patient")] = 1,
    bands: Annotated[str, typer.Option(help="wavelengths in nm: 450:900:30 or a list")] = "450:900:30",
    fwhm: Annotated[float, typer.Option(help="width of a band at half maximum, nm")] = 10.0,
    signature: Annotated[
        float, typer.Option(help="amplitude of the label's signature, share of log-reflectance, either sign")
    ] = 0.03,
    signature_exponent: Annotated[float, typer.Option(help="its law over wavelength: (nm / 450)^-exponent")] = 4.0,
    signature_cutoff: Annotated[float, typer.Option(help="longest wavelength with a signature, nm")] = 585.0,
    signature_region: Annotated[str, typer.Option(help="retina, macula, superior or disc")] = "retina",
    prevalence: Annotated[float, typer.Option(min=0, max=1, help="share of labelled patients")] = 0.5,
    age_gap: Annotated[float, typer.Option(help="years that labelled patients are older")] = 0.0,
    workers: Annotated[int | None, typer.Option(min=1, help="processes; one per core by default")] = None,
    debug: Debug = False,
) -> None:
    """Simulate a cohort of eyes. Example: synthgen phantom eyes.h5 --patients 100 --size 64 --seed 0"""
    with one_line_errors(debug):
        from synthgen.cubes.phantom import simulate_cohort
        from synthgen.cubes.phantom.spectra import Signature
        from synthgen.cubes.wavelengths import parse_bands

        mark = Signature(signature, signature_exponent, signature_cutoff, signature_region)
        cohort = simulate_cohort(
            out, patients, size, seed, visits=visits, signature=mark, prevalence=prevalence, age_gap=age_gap,
            wavelengths=parse_bands(bands), fwhm_nm=fwhm, workers=workers,
        )  # fmt: skip
        typer.echo(f"{out}: {len(cohort)} cubes of {len(cohort.patients)} patients")


@app.command()
def ingest(
    sources: Annotated[list[Path], typer.Argument(help="files or folders, then the cohort file to write")],
    size: Annotated[int | None, typer.Option(min=8, help="rows and columns of the cubes to write")] = None,
    bands: Annotated[str | None, typer.Option(help="wavelengths to resample to, in nm: 450:900:30")] = None,
    fwhm: Annotated[
        float | None, typer.Option(help="their width at half maximum, nm; their spacing by default")
    ] = None,
    source_wavelengths: Annotated[
        str | None, typer.Option(help="wavelengths of the source where it holds none: 400:1000:5 or a list")
    ] = None,
    dark: Annotated[
        Path | None, typer.Option(help="dark reference: a file like the sources, or a value per band")
    ] = None,
    white: Annotated[Path | None, typer.Option(help="white reference, likewise")] = None,
    white_reflectance: Annotated[float, typer.Option(help="reflectance of the white target")] = 0.99,
    fov: Annotated[
        str, typer.Option(help="field of view: file (its mask), detect, full (the whole frame) or auto")
    ] = "auto",
    min_field: Annotated[float, typer.Option(min=0, max=1, help="least share of the frame in the field")] = 0.1,
    registration: Annotated[str, typer.Option(help="shifts between bands: check, correct or off")] = "check",
    max_shift: Annotated[float, typer.Option(help="pixels; a cube with a band farther off is refused")] = 3.0,
    max_broken: Annotated[float, typer.Option(help="largest share of NaN in a band that is mended")] = 0.01,
    max_saturation: Annotated[float, typer.Option(help="largest share of saturated pixels in a band")] = 0.05,
    patches: Annotated[bool, typer.Option("--patches", help="cut size x size patches instead of resizing")] = False,
    min_fov: Annotated[float, typer.Option(min=0, max=1, help="least share of field of view in a patch")] = 0.5,
    stride: Annotated[int | None, typer.Option(min=1, help="step between patches; size by default")] = None,
    patient_pattern: Annotated[
        str | None,
        typer.Option(help="regular expression on file names; groups patient, eye, visit, label, or the first"),
    ] = None,
    patient_table: Annotated[Path | None, typer.Option(help="CSV: file, patient[, eye, visit, label]")] = None,
    each_file_a_patient: Annotated[
        bool, typer.Option("--each-file-a-patient", help="every file is one patient")
    ] = False,
    split: Annotated[str, typer.Option(help="shares of patients: train, calibration, test")] = "0.7,0.15,0.15",
    split_seed: Annotated[int, typer.Option(help="the same seed gives the same split")] = 0,
    variable: Annotated[str | None, typer.Option(help="name of the array in a .mat or .h5 file")] = None,
    axes: Annotated[str | None, typer.Option(help="axis order where it is not clear: chw, hwc, nchw, nhwc")] = None,
    scale: Annotated[float | None, typer.Option(help="value that means reflectance 1")] = None,
    workers: Annotated[int, typer.Option(min=0, help="processes; 0: one per core where there are many files")] = 0,
    restart: Annotated[bool, typer.Option("--restart", help="forget what an unfinished ingest has done")] = False,
    debug: Debug = False,
) -> None:
    """Read real cubes into a cohort file; after Ctrl-C or a crash the same command goes on.

    Example: synthgen ingest scans/ eyes.h5 --size 224 --bands 450:900:30 --patient-pattern '(P[0-9]+)_'
    """
    with one_line_errors(debug):
        from synthgen.cubes.ingest import ingest as run
        from synthgen.cubes.ingest_report import print_table
        from synthgen.errors import InputError

        if len(sources) < 2:
            raise InputError("needs at least one source and the cohort file to write", remedy="SOURCE... OUT.h5")
        *inputs, out = sources
        report = run(
            inputs,
            out,
            workers=workers,
            restart=restart,
            size=size,
            bands=bands,
            fwhm=fwhm,
            source_wavelengths=source_wavelengths,
            dark=dark,
            white=white,
            white_reflectance=white_reflectance,
            fov=fov,
            min_field=min_field,
            registration=registration,
            max_shift=max_shift,
            max_broken=max_broken,
            max_saturation=max_saturation,
            patches=patches,
            min_fov=min_fov,
            stride=stride,
            patient_pattern=patient_pattern,
            patient_table=patient_table,
            each_file_a_patient=each_file_a_patient,
            split=split.replace(",", " ").split(),
            split_seed=split_seed,
            variable=variable,
            axes=axes,
            scale=scale,
        )
        typer.echo("\n".join(report.lines()))
        print_table(report)


@app.command()
def info(
    file: Annotated[Path, typer.Argument(help="cohort, source file, generator, gates or shard folder")],
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    debug: Debug = False,
) -> None:
    """Say what a file or folder holds. Example: synthgen info cohort.h5"""
    with one_line_errors(debug):
        import json

        from synthgen.cubes.describe import describe, render

        found = describe(file)
        typer.echo(json.dumps(found, indent=2) if as_json else render(found))


@app.command("train-autoencoder", context_settings=PASS_ON, add_help_option=False)
def train_autoencoder(context: typer.Context) -> None:
    """Train the VQ-GAN. Example: synthgen train-autoencoder --data cohort.h5 --out runs/autoencoder"""
    from synthgen.integration.train import autoencoder_main

    _pass_on(autoencoder_main, context)


@app.command("train-diffusion", context_settings=PASS_ON, add_help_option=False)
def train_diffusion(context: typer.Context) -> None:
    """Train the latent diffusion. Example: synthgen train-diffusion --data cohort.h5 --autoencoder runs/autoencoder"""
    from synthgen.integration.train import diffusion_main

    _pass_on(diffusion_main, context)


@app.command("train-generator", context_settings=PASS_ON, add_help_option=False)
def train_generator(context: typer.Context) -> None:
    """Train both from one recipe. Example: synthgen train-generator --config configs/retina224.yaml --data cohort.h5"""
    from synthgen.integration.recipe import main

    _pass_on(main, context)


@app.command(context_settings=PASS_ON, add_help_option=False)
def calibrate(context: typer.Context) -> None:
    """Make quality gates from real cubes. Example: synthgen calibrate --data cohort.h5 --out gates"""
    from synthgen.quality.calibrate import main as run

    _pass_on(run, context)


@app.command()
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
    debug: Debug = False,
) -> None:
    """Write synthetic cubes as webdataset shards. Example: synthgen sample --count 1000 --out shards

    On several GPUs: accelerate launch --multi_gpu --num_processes 4 -m synthgen sample --count 100000 --out shards
    """
    with one_line_errors(debug):
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


@app.command()
def gate(
    shards: Annotated[str, typer.Argument(help="folder of shards, of tokens or of cubes, or its URL")],
    gates_folder: Annotated[
        str, typer.Option("--gates", "--gates-folder", help="folder written by `synthgen calibrate`, or packaged name")
    ],
    out: Annotated[Path | None, typer.Option(help="folder for verdict.html and .json; beside the shards")] = None,
    real: Annotated[Path | None, typer.Option(help="training cohort, to show nearest neighbours from")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1; by default the best there is")] = None,
    debug: Debug = False,
) -> None:
    """Judge shards before use: each cube, each shard, the whole set. Exit code 0 pass, 3 fail, 4 undecided.

    Example: synthgen gate shards --gates gates
    """
    with one_line_errors(debug):
        from synthgen.integration.gate import gate_shards
        from synthgen.integration.judging import raise_unless_passed
        from synthgen.integration.verdict_table import print_shards, print_verdict

        verdict, manifest, page = gate_shards(shards, gates_folder, out, real=real, device=device)
        print_verdict(verdict)
        print_shards(manifest)
        typer.echo(f"{page}: the verdict as a page")
        raise_unless_passed(verdict, shards)


@app.command()
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
    debug: Debug = False,
) -> None:
    """Judge synthetic cubes against real ones. Exit code 0 pass, 3 fail, 4 undecided.

    Example: synthgen evaluate --synthetic cubes.npy --real eyes.h5 --gates gates --out report.html
    """
    with one_line_errors(debug):
        from synthgen.integration.evaluate import evaluate as run
        from synthgen.integration.judging import raise_unless_passed
        from synthgen.integration.verdict_table import print_verdict

        hints = {"source_wavelengths": source_wavelengths, "variable": variable, "axes": axes, "scale": scale}
        verdict, (page, record) = run(synthetic, real, gates_folder, out, device=device, **hints)
        print_verdict(verdict)
        typer.echo(f"{page}: the verdict as a page; {record}: as JSON")
        raise_unless_passed(verdict, synthetic)


@app.command(context_settings=PASS_ON, add_help_option=False)
def pretrain(context: typer.Context) -> None:
    """Pretrain a backbone on real and synthetic cubes. Example: synthgen pretrain --synthetic-ratio 0.5"""
    from synthgen.integration.pretrain import main as run

    _pass_on(run, context)


@app.command()
def probe(
    backbone: Annotated[Path, typer.Option(help="backbone.safetensors or the run folder that holds it")],
    data: Annotated[Path, typer.Option(help="cohort file with labels")],
    patients: Annotated[
        str, typer.Option(help="auto, test (those kept for it) or all; all must be unseen in training")
    ] = "auto",
    seed: int = 0,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    debug: Debug = False,
) -> None:
    """Ask a backbone for the label, on unseen patients. Example: synthgen probe --backbone runs/x --data eyes.h5"""
    with one_line_errors(debug):
        from synthgen.integration.probing import compare, render_table

        results = compare(backbone, data, patients=patients, seed=seed)
        if as_json:
            import json

            typer.echo(json.dumps({k: v.model_dump(mode="json") for k, v in results.items()}, indent=2))
        else:
            render_table(results)


@app.command()
def view(
    file: Annotated[Path, typer.Argument(help="cohort file, or any file or folder that can be ingested")],
    out: Annotated[Path, typer.Option(help="PNG file to write")],
    index: Annotated[int, typer.Option(min=0, help="which cube of the file")] = 0,
    bands: Annotated[str, typer.Option(help="all, or six of them")] = "all",
    source_wavelengths: Annotated[str | None, typer.Option(help="as for ingest: 400:1000:5 or a list")] = None,
    variable: Annotated[str | None, typer.Option(help="name of the array in a .mat or .h5 file")] = None,
    axes: Annotated[str | None, typer.Option(help="axis order where it is not clear: chw, hwc, nchw, nhwc")] = None,
    scale: Annotated[float | None, typer.Option(help="value that means reflectance 1")] = None,
    debug: Debug = False,
) -> None:
    """Draw a cube: false colour, spectra, every band. Example: synthgen view eyes.h5 --index 0 --out eye.png"""
    with one_line_errors(debug):
        from synthgen.integration.view import view as run

        hints = {"source_wavelengths": source_wavelengths, "variable": variable, "axes": axes, "scale": scale}
        typer.echo(f"{run(file, out, index, bands=bands, **hints)}")


def _pass_on(run: Callable[[list[str]], Any], context: typer.Context) -> None:
    run(list(context.args))


def main() -> None:
    """Entry point: bad input is one line on standard error and exit code 2."""
    with one_line_errors("--debug" in sys.argv):
        app()


if __name__ == "__main__":
    main()
