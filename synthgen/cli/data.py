"""Commands on cubes: simulate, read, describe, draw. Every command imports what it needs when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from synthgen.cli.shared import CUBES, AsJson, Debug, echo_json
from synthgen.errors import one_line_errors

OVERWRITE = "put it in the place of a cohort that is there"


def add_to(app: typer.Typer) -> None:
    """Add the commands to the command line, in the order in which `--help` shows them."""
    for command in (phantom, ingest, info, view):
        app.command(rich_help_panel=CUBES)(command)


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
    overwrite: Annotated[bool, typer.Option("--overwrite", help=OVERWRITE)] = False,
    debug: Debug = False,
) -> None:
    """Simulate a cohort of eyes.

    Example: synthgen phantom eyes.h5 --patients 100 --size 64 --seed 0
    """
    with one_line_errors(debug):
        from synthgen.cubes.cohort.writer import must_be_free
        from synthgen.cubes.phantom.cohort import simulate_cohort
        from synthgen.cubes.phantom.spectra import Signature
        from synthgen.cubes.wavelengths import parse_bands

        must_be_free(out, overwrite)
        mark = Signature(signature, signature_exponent, signature_cutoff, signature_region)
        cohort = simulate_cohort(
            out, patients, size, seed, visits=visits, signature=mark, prevalence=prevalence, age_gap=age_gap,
            wavelengths=parse_bands(bands), fwhm_nm=fwhm, workers=workers,
        )  # fmt: skip
        typer.echo(f"{out}: {len(cohort)} cubes of {len(cohort.patients)} patients")


def ingest(
    sources: Annotated[list[Path], typer.Argument(help="files or folders, then the cohort file to write")],
    size: Annotated[int | None, typer.Option(min=8, help="rows and columns of the cubes to write")] = None,
    bands: Annotated[str | None, typer.Option(help="wavelengths to resample to, in nm: 450:900:30")] = None,
    fwhm: Annotated[
        float | None, typer.Option(help="their width at half maximum, nm; their spacing by default")
    ] = None,
    source_wavelengths: Annotated[
        str | None,
        typer.Option(
            help="wavelengths of the source where it holds none: 400:1000:5 or a list; in nm, or 0.4:1:0.005um"
        ),
    ] = None,
    wavelength_unit: Annotated[
        str | None, typer.Option(help="unit of the wavelengths, whatever the files say: nm, um, Angstrom, cm-1 ...")
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
    axes: Annotated[
        str | None, typer.Option(help="axis order where it is not clear: chw, hwc, hcw, nchw, nhwc")
    ] = None,
    scale: Annotated[
        float | None, typer.Option(help="value that means reflectance 1, where no file says it; the same for all files")
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="processes; 0: one per core where there are many files")] = 0,
    restart: Annotated[bool, typer.Option("--restart", help="forget what an unfinished ingest has done")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help=OVERWRITE)] = False,
    debug: Debug = False,
) -> None:
    """Read real cubes into a cohort file; after Ctrl-C or a crash the same command goes on.

    Exit code 0, or 2 when nothing was written or nothing was taken from most of the files.

    Example: synthgen ingest scans/ eyes.h5 --size 224 --bands 450:900:30 --patient-pattern '(P[0-9]+)_'
    """
    with one_line_errors(debug):
        from synthgen.cubes.cohort.writer import must_be_free
        from synthgen.cubes.ingest.report import print_table
        from synthgen.cubes.ingest.run import ingest as run
        from synthgen.errors import InputError

        if len(sources) < 2:
            raise InputError("needs at least one source and the cohort file to write", remedy="SOURCE... OUT.h5")
        *inputs, out = sources
        must_be_free(out, overwrite)
        report = run(
            inputs,
            out,
            workers=workers,
            restart=restart,
            size=size,
            bands=bands,
            fwhm=fwhm,
            source_wavelengths=source_wavelengths,
            wavelength_unit=wavelength_unit,
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
        report.raise_if_most_refused()


def info(
    file: Annotated[Path, typer.Argument(help="cohort, source file, generator, gates or shard folder")],
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Say what a file or folder holds.

    Example: synthgen info cohort.h5
    """
    with one_line_errors(debug):
        from synthgen.cubes.readers.describe import describe, render

        found = describe(file)
        if as_json:
            echo_json(found)
        else:
            typer.echo(render(found))


def view(
    file: Annotated[str, typer.Argument(help="cohort, shards, or any file or folder that can be ingested")],
    out: Annotated[Path, typer.Option(help="picture (.png) of one cube, or page (.html) to look through several")],
    index: Annotated[int, typer.Option(min=0, help="which cube of the file; of a page the first")] = 0,
    bands: Annotated[str, typer.Option(help="of a picture: all, or six of them")] = "all",
    count: Annotated[int, typer.Option(min=1, help="of a page: cubes")] = 8,
    generator: Annotated[
        str | None, typer.Option(help="of a page: sample this generator's cubes beside those of the file")
    ] = None,
    gates_folder: Annotated[
        str | None, typer.Option("--gates", "--gates-folder", help="of a page: show what these gates say of each cube")
    ] = None,
    real: Annotated[
        Path | None, typer.Option(help="of a page: cohort to show nearest cubes from; needs --gates")
    ] = None,
    seed: Annotated[int, typer.Option(help="of the sampling")] = 0,
    steps: Annotated[int, typer.Option(min=1, help="of the sampling")] = 8,
    device: Annotated[str | None, typer.Option(help="for sampling and decoding: cpu, cuda, cuda:1")] = None,
    source_wavelengths: Annotated[str | None, typer.Option(help="as for ingest: 400:1000:5 or a list")] = None,
    wavelength_unit: Annotated[str | None, typer.Option(help="as for ingest: nm, um, Angstrom, cm-1 ...")] = None,
    variable: Annotated[str | None, typer.Option(help="name of the array in a .mat or .h5 file")] = None,
    axes: Annotated[
        str | None, typer.Option(help="axis order where it is not clear: chw, hwc, hcw, nchw, nhwc")
    ] = None,
    scale: Annotated[float | None, typer.Option(help="value that means reflectance 1")] = None,
    debug: Debug = False,
) -> None:
    """Look at cubes: a picture of one, or a page to look through several, alone or beside synthetic ones.

    Example: synthgen view eyes.h5 --generator phantom64 --out eyes.html
    """
    with one_line_errors(debug):
        if out.suffix.lower() == ".html":
            from synthgen.cubes.readers.source import told_hints
            from synthgen.integration.pages.viewer import view_page

            told = told_hints(variable, axes, source_wavelengths, wavelength_unit)
            page = view_page(
                file, out, index, count=count, generator=generator, gates_folder=gates_folder, real=real, seed=seed,
                steps=steps, hints=told, scale=scale, device=device,
            )  # fmt: skip
            typer.echo(f"{page}")
            return
        from synthgen.integration.pages.cube import view as run

        page = run(
            file, out, index, bands=bands, source_wavelengths=source_wavelengths, wavelength_unit=wavelength_unit,
            variable=variable, axes=axes, scale=scale,
        )  # fmt: skip
        typer.echo(f"{page}")
