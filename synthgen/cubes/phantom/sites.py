"""How the layers change from the fovea outward: the only place where the three sites of Delori & Pflibsen differ."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from synthgen.cubes.phantom.demographics import Patient


@dataclass(frozen=True)
class Sites:
    """melanin: density at 500 nm, single pass; blood_mm: choroidal blood, mm, single pass; nerve: thickness of the
    nerve-fibre layer, 1 at the nasal site; macular: peak density of macular pigment. Arrays of one shape."""

    melanin: np.ndarray
    blood_mm: np.ndarray
    nerve: np.ndarray
    macular: np.ndarray


def sites(fovea: np.ndarray, person: Patient) -> Sites:
    """The layers at the distance `fovea` from the fovea, fractions of the field's radius (0.12 is 2.5 degrees).

    Melanin D_500 0.64 nasal, 1.09 perifovea, 1.16 fovea and blood 93, 111, 99 micrometres are the results of Delori &
    Pflibsen's model III; macular pigment falls off exponentially (0.04 at 2.5 degrees,
    0.18 mean over the fovea), and the fovea has no nerve fibres.
    """
    melanin = 1 + 0.81 * np.exp(-((fovea / 0.33) ** 2))
    blood = 1 + 0.24 * np.exp(-((fovea / 0.30) ** 2)) - 0.18 * np.exp(-((fovea / 0.06) ** 2))
    nerve = 1 - np.exp(-((fovea / 0.115) ** 4))
    return Sites(
        person.melanin * melanin,
        person.choroid_mm * blood,
        person.front * nerve,
        person.macular * np.exp(-fovea / 0.060),
    )
