"""`synthgen figure`: synthetic cubes beside held-out ones at the wavelengths of the original work's figure."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import h5py
from pydantic import Field

from synthgen.cubes.cohort.cohort import Cohort
from synthgen.errors import InputError
from synthgen.generator.generator import Generator
from synthgen.generator.samplers import SamplerName, SamplerSteps, Seed
from synthgen.generator.training.cube_source import evenly_spaced, split_index
from synthgen.integration.artifacts import PACKAGED, GeneratorName, check_belongs, open_cohort
from synthgen.report.wavelength_figure import WANTED_NM, wavelength_figure
from synthgen.runs.processes.device import Device, pick_device
from synthgen.science.bands import nearest_bands

KINDS = (".png", ".svg")


def origin(cohort: Cohort) -> str:
    """'simulated' for a cohort that `synthgen phantom` wrote, else 'real'."""
    with h5py.File(cohort.path) as file:
        return "simulated" if "phantom_version" in file.attrs else "real"


def figure(
    data: Annotated[str | Path, Field(description="cohort of real cubes")],
    out: Annotated[str | Path, Field(description="picture to write; PNG and SVG, whatever its suffix")],
    generator: GeneratorName = PACKAGED,
    count: Annotated[int, Field(ge=1, le=16, description="cubes of each kind")] = 3,
    *,
    seed: Seed = 0,
    steps: SamplerSteps = 8,
    sampler: SamplerName = "ab2",
    device: Device = None,
) -> dict[str, Any]:
    """Draw `count` real cubes of calibration patients and the synthetic cubes 0 to count - 1, one below the other.

    Nothing is picked by looks: real cubes are spread evenly over those patients, synthetic ones are the first ids.

    Args:
        data: cohort. out: picture; .png and .svg are written, whatever its suffix.
        generator: folder or packaged name. seed, steps, sampler: of the sampling.

    Returns: files, bands_nm (those shown), generator (its hash).

    Raises InputError, MismatchError (other bands or size).
    """
    cohort, loaded = open_cohort(data), Generator.load(generator, pick_device(device))
    check_belongs(cohort, loaded.wavelengths, loaded.size, "generator", generator)
    _, _, held_out = split_index(cohort, "train")
    if len(held_out) < count:
        raise InputError("fewer held-out cubes than asked for", path=data, found=len(held_out), expected=count)
    real = cohort.cubes(held_out[evenly_spaced(len(held_out), count)])
    synthetic = loaded.decode(loaded.sample(range(count), seed, steps, sampler)).cpu().numpy()
    out = Path(out)
    stem = out.with_suffix("") if out.suffix in KINDS else out
    files = [stem.with_name(stem.name + kind) for kind in KINDS]
    wavelength_figure(files, {f"{origin(cohort)} (held out)": real, "synthetic": synthetic}, cohort.wavelengths)
    bands = [float(cohort.wavelengths[b]) for b in nearest_bands(cohort.wavelengths, WANTED_NM)]
    return {"files": [str(f) for f in files], "bands_nm": bands, "generator": loaded.hash}
