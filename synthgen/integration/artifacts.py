"""From the names in a configuration to what they mean: cohort, generator, gates; and what may not be mixed."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field

from synthgen.contracts import Manifest, Provenance
from synthgen.cubes.cohort.cohort import Cohort
from synthgen.cubes.cohort.splits import Split, load_or_make_split
from synthgen.cubes.wavelengths import same_wavelengths
from synthgen.errors import InputError, LeakError, MismatchError, UndecidedError
from synthgen.generator.generator import Generator
from synthgen.quality.calibrate import Calibration
from synthgen.quality.gates import Gates, load_gates
from synthgen.quality.per_cube.conformal import needed_patients

PACKAGED = "phantom64"  # the generator and the gates that come with the package
GeneratorName = Annotated[str, Field(description="generator folder or packaged name")]
GatesFolder = Annotated[
    str | os.PathLike, Field(description="folder written by `synthgen calibrate`, or packaged name")
]
DEFAULT_PATIENTS, DEFAULT_SEED = 48, 1  # the embedded default cohort; the packaged generator has seen none of them


def default_cohort(folder: str | os.PathLike, size: int = 64) -> Cohort:
    """The embedded default: a simulated cohort of `DEFAULT_PATIENTS` patients, both eyes, made once in `folder`."""
    from synthgen.cubes.phantom.cohort import simulate_cohort

    path = Path(folder) / f"phantom{size}.h5"
    if path.exists():
        return Cohort.open(path)
    return simulate_cohort(path, patients=DEFAULT_PATIENTS, size=size, seed=DEFAULT_SEED)


def too_few_for_gates(split: Split) -> str | None:
    """Why gates of a cohort that is split so could not decide, and the way on; None where there are patients enough."""
    asked = Calibration.model_fields
    fresh, held = len(split.calibration), len(split.train) // 2 + len(split.calibration)
    needed = [needed_patients(asked[name].default) for name in ("alpha", "plausible_alpha")]
    if fresh >= needed[0] and held >= needed[1]:
        return None
    return (
        f"gates of this cohort will not be able to decide: {fresh} calibration patients, {needed[0]} needed; {held} on "
        f"whom nothing is fitted, {needed[1]} needed (about 200 patients in all). Uncertified cubes can be used with "
        "`synthgen pretrain --gates report`; `synthgen calibrate --unseen MORE.h5` takes further patients"
    )


def tell_if_too_few_for_gates(data: str | os.PathLike) -> None:
    """A line on standard error, by the first process, before a generator is trained on a cohort that small."""
    lacking = too_few_for_gates(load_or_make_split(Cohort.open(data)))
    if lacking and int(os.environ.get("RANK", "0")) == 0:
        print(f"note: {os.fspath(data)}: {lacking}", file=sys.stderr, flush=True)


def check_belongs(cohort: Cohort, wavelengths: Sequence[float], size: int, what: str, path: str | os.PathLike) -> None:
    """MismatchError unless `what` (generator, gates, backbone) is for the cohort's bands and size."""
    if not same_wavelengths(cohort.wavelengths, wavelengths):
        raise MismatchError(
            f"the {what} is for other bands than the data",
            path=path,
            found=bands_in_words(wavelengths),
            expected=f"{bands_in_words(cohort.wavelengths)} as in {cohort.path}",
            remedy=f"ingest the data with --bands to fit, or train a {what} on these data",
        )
    if (cohort.height, cohort.width) != (size, size):
        raise MismatchError(
            f"the {what} is for another size than the data",
            path=path,
            found=f"{size}x{size}",
            expected=f"{cohort.height}x{cohort.width} as in {cohort.path}",
            remedy=f"ingest the data with --size {size}, or train a {what} at the size of the data",
        )


def bands_in_words(wavelengths: Sequence[float]) -> str:
    return f"{len(wavelengths)} bands {wavelengths[0]:g}-{wavelengths[-1]:g} nm"


def check_no_leak(provenance: Provenance | None, test_patients: Sequence[str], what: str) -> None:
    """LeakError naming the test patients that `what` has seen."""
    seen = provenance.seen(test_patients) if provenance is not None else []
    if seen:
        raise LeakError(
            f"{len(seen)} of the patients kept for testing were seen by the {what}",
            found=", ".join(seen[:5]) + (", ..." if len(seen) > 5 else ""),
            expected="none",
            remedy=f"train the {what} on this cohort's training patients, or make the split anew before training it",
        )


def find_generator(
    manifest: Manifest, shards: str | os.PathLike, device: torch.device, where: str | None = None
) -> Generator:
    """The generator that made a folder of token shards: `where`, or the place that the manifest remembers.

    InputError when it is not there any more, MismatchError when another generator stands there now.
    """
    name = where or manifest.generator or PACKAGED
    try:
        generator = Generator.load(name, device)
    except InputError as error:
        raise InputError(
            "the generator that decodes these shards is not to be found",
            path=shards,
            found=str(error),
            remedy="name it with --generator, or write cube shards with `synthgen sample --kind cubes`",
        ) from None
    if generator.hash != manifest.generator_hash:
        raise MismatchError(
            "the shards were made by another generator",
            path=shards,
            found=f"{generator.hash} at {name}",
            expected=manifest.generator_hash,
            remedy="put back the generator that made them, or sample the shards again",
        )
    return generator


def open_gates(
    policy: str, path: str | None, generator: Generator, generator_name: str, cohort: Cohort | None = None
) -> Gates | None:
    """The gates to use under `policy` (require, report, off), or None.

    Without a path the packaged generator takes the packaged gates; another generator has none. Under `require` that
    is an UndecidedError with the remedy; under `report` it means that cubes are admitted uncertified.
    """
    if policy == "off":
        return None
    if path is None and generator_name == PACKAGED:
        path = PACKAGED
    if path is None:
        if policy == "require":
            raise UndecidedError(
                "no gates to certify the generator with",
                path=generator_name,
                expected="--gates-folder, calibrated on the generator's training cohort",
                remedy="make them with `synthgen calibrate --data COHORT.h5 --out gates`, or admit uncertified cubes "
                "with --gates report",
            )
        return None
    gates = load_gates(path)
    authenticity, plausible = gates.limits.authenticity, gates.limits.plausible
    lacking = [
        part.note
        for part, limit in ((authenticity, authenticity.limit), (plausible, plausible.limits))
        if limit is None
    ]
    if policy == "require" and lacking:  # reported before cubes are sampled for a verdict that cannot be a pass
        raise UndecidedError(
            "the gates cannot certify a generator",
            path=path,
            found="; ".join(lacking),
            remedy="calibrate them with more patients, or admit uncertified cubes with --gates report",
        )
    if not same_wavelengths(gates.wavelengths, generator.wavelengths) or gates.size != generator.size:
        raise MismatchError(
            "the gates are for other cubes than the generator makes",
            path=path,
            found=f"{bands_in_words(gates.wavelengths)} at {gates.size}x{gates.size}",
            expected=f"{bands_in_words(generator.wavelengths)} at {generator.size}x{generator.size}",
            remedy="calibrate gates on the generator's training cohort",
        )
    return gates


def memorization_unseen(generator: Provenance | None, gates: Provenance | None) -> str | None:
    """A warning where the generator learned from patients that the gates do not hold, or None.

    The copy gate compares with the training cubes that the gates were calibrated with. A generator that learned from
    others could repeat those and pass.
    """
    known = {(part.salt, patient) for part in parts_of(gates) for patient in part.patients}
    learned = {(part.salt, patient) for part in parts_of(generator) for patient in part.patients}
    if not learned - known:
        return None
    return (
        f"the gates know {len(learned & known)} of the {len(learned)} patients that the generator learned from: a copy "
        "of another's cube would pass. `synthgen calibrate` on the generator's cohort repairs that"
    )


def parts_of(provenance: Provenance | None) -> list[Provenance]:
    """A provenance and all that it was made with."""
    return [] if provenance is None else [provenance, *(part for other in provenance.also for part in parts_of(other))]


def open_cohort(path: str | os.PathLike) -> Cohort:
    """A cohort whose cubes are all finite; InputError otherwise."""
    cohort = Cohort.open(path)
    if len(cohort) == 0:
        raise InputError("holds no cubes", path=path)
    cohort.check_finite()
    return cohort
