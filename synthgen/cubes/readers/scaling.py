"""Which value stands for reflectance 1: given, declared by the file, or certain; never guessed, never one per file.

Certain without a word are floating values of reflectance (none far above 1, not all next to 0) and 8-bit pictures, in
whose format 255 is white. Whole numbers could be counts of 10, 12, 14 or 16 bits, per cent, or reflectance times 10000:
the largest of them tells nothing, since eyes reach 0.4 of reflectance and no more. They need `--scale`.
"""

from __future__ import annotations

import numpy as np

from synthgen.cubes.readers.declared import shown
from synthgen.cubes.readers.source import Source
from synthgen.errors import ConfigError, InputError

USUAL = {
    100: "per cent", 255: "8 bit", 1023: "10 bit", 4095: "12 bit", 10000: "reflectance x 10000", 16383: "14 bit",
    65535: "16 bit",
}  # fmt: skip
REFLECTANCE_UP_TO = 1.5  # values up to here are reflectance, glints included
REFLECTANCE_FROM = 0.01  # the largest value of an eye is beyond, of each band for itself nearly so
FEW = 0.001  # fraction of values that may be brighter: glints, hot pixels
MUCH_CLIPPED = 0.05  # a scale that fits clips only glints
UNKNOWN = "the largest value: no reflectance, for which --scale is needed"
ASSUMED = "values are reflectance already"
COHORT = "cohort HDF5"  # the format of our own files
_FAINT = 1e-3  # the largest value of a cube that a declared scale has made: it was applied to reflectance


def given_full_scale(scale: float) -> float:
    """Full scale from the user's number: above 1 the value of reflectance 1, else the factor to multiply by."""
    if not (np.isfinite(scale) and scale > 0):
        raise ConfigError("'scale' must be a positive number", found=scale)
    return scale if scale > 1 else 1 / scale


def full_scale_of(source: Source, given: float | None, look: bool = True) -> tuple[float, str]:
    """The value of reflectance 1, after gain and offset of the file, and where it is from.

    Where it is assumed, `look` at the first cube to see that it can be; without, `check_brightness` has to see to it.
    InputError where neither the file nor the user gives it and it is not certain, or the file contradicts itself.
    """
    declared = source.declared
    if given is not None:
        full = given_full_scale(given)
        same = declared.gain is not None and np.allclose(declared.gain * full, 1, rtol=1e-4)
        if same and _may_be_reflectance(source):  # not so where a gain of 0.01 gives per cent, and 100 is given
            return 1.0, f"given {given:g}, which the gain of the file states as well"
        own = declared.full_scale
        against = "" if own is None or np.isclose(full, own, rtol=1e-4) else f", against {own:g} of the file"
        return full, f"given{', after gain and offset of the file' * declared.is_calibrated}{against}"
    if declared.conflict:
        raise InputError(
            "the file contradicts itself about the value of reflectance 1",
            path=source.path,
            found=declared.conflict,
            remedy="give --scale, or correct the file",
        )
    if declared.full_scale is not None:
        return declared.full_scale, declared.full_scale_from
    if not _is_certain(source) or (look and source.format != COHORT and not _may_be_reflectance(source)):
        raise ask_for_scale(source)
    return 1.0, ASSUMED


def _is_certain(source: Source) -> bool:
    """Whether values of this type are reflectance when they look like it: floating, of no other unit."""
    return (source.dtype.kind == "f" or source.declared.is_calibrated) and not source.declared.unit


def scale_in_words(source: Source) -> str:
    """What `full_scale_of` will return without looking at a cube."""
    declared = source.declared
    if declared.conflict:
        return f"contradictory: {declared.conflict}; ingest needs --scale"
    if declared.full_scale is not None:
        return f"{declared.full_scale:g} ({declared.full_scale_from})"
    if _is_certain(source):
        return "1 where the values are reflectance, else ingest needs --scale"
    return f"not stated{f' (values in {declared.unit})' * bool(declared.unit)}: ingest needs --scale"


def scale_to_look_at(source: Source, given: float | None) -> tuple[float, str]:
    """`full_scale_of`, or where nothing states it the largest value of the first cube, which does for a picture."""
    try:
        return full_scale_of(source, given)
    except InputError:
        if given is not None:
            raise
        return max(_largest(source), 1e-30), UNKNOWN


def reflectance(source: Source, i: int, full_scale: float) -> np.ndarray:
    """Cube `i` of a source as float32 [C, H, W], NaN where the file marks no data."""
    with np.errstate(over="ignore", invalid="ignore"):
        return scaled(source.declared.values(source.read(i)), full_scale)


def scaled(values: np.ndarray, full_scale: float) -> np.ndarray:
    return values.astype(np.float32) / np.float32(full_scale)


def ask_for_scale(source: Source, largest: float | None = None) -> InputError:
    """The error of a file whose full scale nothing tells, with the usual ones that its largest value allows."""
    largest = _largest(source) if largest is None else largest
    held = np.iinfo(source.dtype).max if source.dtype.kind in "ui" and not source.declared.is_calibrated else np.inf
    range_of = (largest / REFLECTANCE_UP_TO, min(held, largest / REFLECTANCE_FROM))
    fitting = [f"{full} ({what})" for full, what in USUAL.items() if range_of[0] <= full <= range_of[1]]
    kind = f"values in {source.declared.unit}" if source.declared.unit else source.dtype.newbyteorder("=").name
    gain = f" after a gain of {shown(source.declared.gain)}" if source.declared.gain is not None else ""
    return InputError(
        "does not state which value means reflectance 1",
        path=source.path,
        found=f"{kind} up to {largest:.6g}{gain}",
        expected="a scale in the file, or given",
        remedy=f"give --scale, the same for all files: {', '.join(fitting) or 'the value of reflectance 1'}",
    )


def check_brightness(source: Source, cube: np.ndarray, field: np.ndarray, full_scale: float, origin: str) -> None:
    """InputError when a cube [C, H, W], within the field [H, W], is no reflectance by the scale that was taken.

    A given scale is believed unless much lies above it; that of a cohort file is its own.
    """
    inside = cube[:, field]
    inside = inside[np.isfinite(inside)]
    if not inside.size or source.format == COHORT:
        return
    bright, given = float((inside > REFLECTANCE_UP_TO).mean()), origin.startswith("given")
    high = float(inside.max())
    least = 0.0 if given and not source.declared.is_calibrated else REFLECTANCE_FROM if origin == ASSUMED else _FAINT
    if bright <= (MUCH_CLIPPED if given else FEW) and high >= least:
        return
    if origin == ASSUMED:
        raise ask_for_scale(source, float(np.quantile(inside, 1 - FEW)) if high >= least else high)
    bright_part = f"{bright:.1%} of the values above {REFLECTANCE_UP_TO:g} times"
    found = bright_part if high >= least else f"at most {high:.2g} of"
    raise InputError(
        f"is too {'bright' if high >= least else 'dark'} for the scale",
        path=source.path,
        found=f"{found} reflectance 1, which is {full_scale:g} ({origin})",
        expected="reflectance",
        remedy="give the true --scale, or correct the file",
    )


def _may_be_reflectance(source: Source) -> bool:
    """Whether the first cube looks like it, with its surround, where anything may be, taken into account."""
    cube = reflectance(source, 0, 1.0)
    finite = cube[np.isfinite(cube)]
    return bool(finite.size and (finite > REFLECTANCE_UP_TO).mean() < 0.25 and finite.max() >= REFLECTANCE_FROM)


def _largest(source: Source) -> float:
    """The largest value of the first cube, but for the few brightest pixels of one that is not of whole numbers."""
    values = source.declared.values(source.read(0))
    if values.dtype.kind != "f":
        return float(values.max())
    finite = values[np.isfinite(values)].astype(np.float64)
    if not finite.size:
        return float("nan")
    whole = bool((finite == np.rint(finite)).all())
    return float(finite.max() if whole else np.quantile(finite, 1 - FEW))
