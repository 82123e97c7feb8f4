"""Whether a generator's autoencoder keeps a weak smooth difference at 450-585 nm, as checks of its verdict."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from synthgen.contracts import Check, Status
from synthgen.errors import InputError
from synthgen.generator.generator import Generator
from synthgen.quality.sets.signature_retention import TiltRetained, tilt_retained
from synthgen.runs.randomness import numpy_stream

LEAST = 0.9  # policy: fraction of an injected tilt of 1 % that must be left after encoding and decoding
CUBES = 64  # real cubes that it is followed through
NAMES = {"tilt_retained": False, "tilt_retained_half": True}


def tilt_checks(generator: Generator, cubes: Tensor, wavelengths: Sequence[float], patients: ArrayLike) -> list[Check]:
    """Follow a tilt of 1 % through encoding and decoding of real cubes [N, C, H, W], whole and in the left half.

    pass: the mean fraction left is at least `LEAST`; fail: its whole 95 % interval (over patients) lies below;
    undecided between, and where no tilt can be injected.
    """
    return [_check(name, half, generator, cubes, wavelengths, patients) for name, half in NAMES.items()]


def status_of(kept: TiltRetained) -> Status:
    return Status.PASS if kept.value >= LEAST else Status.FAIL if kept.high < LEAST else Status.UNDECIDED


def _check(
    name: str, half: bool, generator: Generator, cubes: Tensor, wavelengths: Sequence[float], patients: ArrayLike
) -> Check:
    where = "in the left half of the field" if half else "over the whole field"
    try:
        kept = tilt_retained(
            lambda x: generator.decode(generator.encode(x)).to(x.device),
            cubes,
            wavelengths,
            numpy_stream(0, "tilt"),
            left_half=half,
            patients=np.asarray(patients),
        )
    except InputError as error:
        return Check(name=name, status=Status.UNDECIDED, n=len(cubes), reason=str(error))
    return Check(
        name=name,
        status=status_of(kept),
        value=kept.value,
        interval=(kept.low, kept.high),
        limit=LEAST,
        n=len(cubes),
        reason=f"of a tilt of 1 % at 450-585 nm {where}, {kept.value:.1%} is left after encoding and decoding",
    )
