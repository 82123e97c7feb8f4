"""Which stored number stands for reflectance 1: told, said by the file, or detected over many files together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from synthgen.cubes.readers.source import Source
from synthgen.errors import ConfigError, SynthgenError

# Largest numbers of 8, 10, 12, 14 and 16 bit cameras, and the 10000 by which reflectance products are multiplied.
FULL_SCALES = (255, 1023, 4095, 10000, 16383, 65535)
REFLECTANCE_UP_TO = 1.5  # floats up to here are reflectance, glints included
DETECTED = "detected"  # first word of how such a scale was found
_CUBES_LOOKED_AT = 4  # per file; reading all to guess would double the time


def told_full_scale(scale: float) -> float:
    """Full scale from the user's number: above 1 the value of reflectance 1, else the factor to multiply by."""
    if not (np.isfinite(scale) and scale > 0):
        raise ConfigError("'scale' must be a positive number", found=scale)
    return scale if scale > 1 else 1 / scale


def detect_full_scales(sources: Sequence[Source]) -> dict[str, tuple[float, str]]:
    """By type of numbers, over those sources without a scale of their own: the number that stands for reflectance 1,
    and how it was found. Sources of one type share one scale: eyes of one camera stay comparable.
    """
    without = [s for s in sources if s.full_scale is None]
    return {
        kind: _detect([s for s in without if str(s.dtype) == kind]) for kind in sorted({str(s.dtype) for s in without})
    }


def full_scale_of(source: Source, told: float | None, detected: Mapping[str, tuple[float, str]]) -> tuple[float, str]:
    """The scale of one source and where it is from; of a type that the sample lacked it is detected from it alone."""
    if told is not None:
        return told_full_scale(told), "told"
    if source.full_scale is not None:
        return source.full_scale, "file"
    return detected.get(str(source.dtype)) or _detect([source])


def _detect(sources: Sequence[Source]) -> tuple[float, str]:
    looked = [_look(source) for source in sources]
    high, whole = max(value for value, _ in looked), all(integers for _, integers in looked)
    if sources[0].dtype.kind == "f" and high <= REFLECTANCE_UP_TO:
        return 1.0, f"{DETECTED}: floats that are reflectance already"
    if whole and high <= FULL_SCALES[-1]:
        full = next(full for full in FULL_SCALES if high <= full)
        return float(
            full
        ), f"{DETECTED}: next usual full scale above the largest value {high:g}; tell --scale if not so"
    what = "largest value" if whole else "99.9 % quantile"
    return high, f"{DETECTED}: the {what} {high:g} stands for 1; tell --scale if it is known"


def _look(source: Source) -> tuple[float, bool]:
    """Over some cubes of the source: the largest value (the 99.9 % quantile where not all are whole numbers), and
    whether all are (MATLAB keeps the counts of a camera as double)."""
    highest, whole = 0.0, True
    count = source.layout.count
    for i in sorted({round(k * (count - 1) / max(1, _CUBES_LOOKED_AT - 1)) for k in range(_CUBES_LOOKED_AT)}):
        try:
            values = source.read(min(i, count - 1))
        except SynthgenError:
            continue  # refused, with its reason, when its turn comes
        if values.dtype.kind == "f":
            values = values[np.isfinite(values)].astype(np.float64)
            whole = whole and bool((values == np.rint(values)).all())
        if values.size:
            highest = max(highest, float(values.max() if whole else np.quantile(values, 0.999)))
    return highest, whole
