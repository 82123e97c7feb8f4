"""Who the patients are: every number comes from a named distribution, keyed by (seed, patient, eye, visit).

Widths of the distributions are set so that the reflectance of simulated people of 22 to 38 years varies between them as
much as Delori & Pflibsen's ten subjects did (Table I, coefficients of variation); a test holds them to it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from synthgen.cubes.phantom.spectra import NASAL_BLOOD_MM, NASAL_MELANIN
from synthgen.runs.keys import numpy_stream

EYES = ("OD", "OS")


@dataclass(frozen=True)
class Patient:
    """What both eyes and all visits of a patient share."""

    name: str
    label: int
    age: float  # years
    melanin: float  # density at 500 nm at the nasal site, single pass
    epithelium: float  # reflectance of the pigment epithelium, 1 is the mean
    front: float  # thickness of the nerve-fibre layer, 1 is the mean
    choroid_mm: float  # choroidal blood at the nasal site, single pass
    clarity: float  # density of the ocular media against the mean at this age
    macular: float  # peak density of macular pigment
    artery_saturation: float
    vein_saturation: float
    width_mm: float  # diameter of the main veins at the disc
    disc_radius: float  # fraction of the field's radius
    cup_ratio: float
    tessellation: float  # visibility of choroidal vessels, 0..1.5
    tortuosity: float  # 1 is the mean
    branching: float  # forks per length, 1 is the mean
    mottling: float  # standard deviation of log-reflectance from grain to grain at 550 nm


@dataclass(frozen=True)
class Visit:
    """What differs between visits: gaze, focus, lamp."""

    gaze: tuple[float, float]  # fraction of the field's radius
    roll: float  # radians
    gain: float
    vignette: float
    tilt: tuple[float, float]
    defocus: float  # fraction of a 64th of the image's width
    stray: float  # fraction of the mean reflectance that is scattered over the whole field


# What the numbers of a patient and of a visit are in. Those of LOG are spread evenly on a logarithmic scale.
UNITS = {
    "age": "years",
    "melanin": "optical density at 500 nm",
    "epithelium": "of the mean",
    "front": "of the mean",
    "choroid_mm": "mm",
    "clarity": "of the mean at this age",
    "macular": "optical density",
    "artery_saturation": "fraction",
    "vein_saturation": "fraction",
    "width_mm": "mm",
    "disc_radius": "field radii",
    "cup_ratio": "disc radii",
    "tessellation": "relative contrast",
    "tortuosity": "of the mean",
    "branching": "of the mean",
    "mottling": "log reflectance",
    "gaze_x": "field radii",
    "gaze_y": "field radii",
    "roll": "radians",
    "gain": "of the mean",
    "vignette": "fraction",
    "tilt_x": "fraction",
    "tilt_y": "fraction",
    "defocus": "64ths of the width",
    "stray": "fraction",
}
LOG = ("melanin", "epithelium", "front", "choroid_mm", "tessellation", "tortuosity", "branching", "mottling", "gain")
# The factors that a network trained with labels reads well from 64 pixels; the others are predicted by nothing there.
LEARNABLE = (
    "age", "melanin", "choroid_mm", "macular", "width_mm", "disc_radius", "cup_ratio", "tessellation",
)  # fmt: skip


def truth(patient: Patient, visit: Visit) -> dict[str, float]:
    """Every number behind a cube but the label: the factors of the patient, the nuisances of the visit; see UNITS."""
    both = asdict(patient) | asdict(visit)
    for name in ("gaze", "tilt"):
        both[f"{name}_x"], both[f"{name}_y"] = both.pop(name)
    return {name: float(both[name]) for name in UNITS}


def draw_patient(seed: int, patient: int, prevalence: float = 0.5, age_gap: float = 0.0) -> Patient:
    """The patient `patient` of the cohort `seed`.

    Args:
        prevalence: fraction of labelled patients.
        age_gap: years that labelled patients are older, to confound the label on request.
    """
    rng = numpy_stream("phantom patient", seed, patient)
    label = int(rng.random() < prevalence)
    return Patient(
        name=f"s{seed}p{patient:04d}",
        label=label,
        age=float(np.clip(rng.normal(66, 8) + age_gap * label, 45, 90)),
        melanin=float(np.clip(NASAL_MELANIN * rng.lognormal(-0.10, 0.50), 0.12, 2.4)),  # Delori: CV 50-57 %
        epithelium=float(rng.lognormal(0, 0.19)),
        front=float(rng.lognormal(0, 0.15)),
        choroid_mm=float(np.clip(NASAL_BLOOD_MM * rng.lognormal(0, 0.36), 0.035, 0.24)),
        clarity=float(np.clip(rng.normal(1, 0.07), 0.75, 1.3)),
        macular=float(np.clip(rng.normal(0.32, 0.08), 0.08, 0.7)),
        artery_saturation=float(np.clip(rng.normal(0.96, 0.02), 0.88, 1.0)),  # Hammer 2008 and others: 95-98 %
        vein_saturation=float(np.clip(rng.normal(0.58, 0.06), 0.4, 0.75)),  # 55-65 %
        width_mm=float(np.clip(rng.normal(0.138, 0.016), 0.1, 0.19)),
        disc_radius=float(np.clip(rng.normal(0.142, 0.013), 0.11, 0.18)),
        cup_ratio=float(np.clip(rng.normal(0.42, 0.12), 0.15, 0.75)),
        tessellation=float(np.clip(rng.gamma(2.0, 0.28), 0.05, 1.5)),
        tortuosity=float(rng.lognormal(0, 0.3)),
        branching=float(np.clip(rng.lognormal(0, 0.25), 0.5, 1.8)),
        mottling=float(np.clip(rng.lognormal(np.log(0.030), 0.35), 0.01, 0.08)),
    )


def draw_visit(seed: int, patient: int, eye: str, visit: int) -> Visit:
    rng = numpy_stream("phantom visit", seed, patient, eye, visit)
    return Visit(
        gaze=tuple(rng.normal(0, 0.035, 2)),
        roll=float(rng.normal(0, 0.05)),
        gain=float(rng.lognormal(0, 0.06)),
        vignette=float(rng.uniform(0.1, 0.5)),
        tilt=tuple(rng.normal(0, 0.1, 2)),
        defocus=float(rng.uniform(0.06, 0.22)),
        stray=float(rng.uniform(0.0, 0.02)),
    )
