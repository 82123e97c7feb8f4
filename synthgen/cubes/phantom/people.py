"""Who the patients are: every number comes from a named distribution, keyed by (seed, patient, eye, visit)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from synthgen.runs.keys import numpy_stream

EYES = ("OD", "OS")


@dataclass(frozen=True)
class Patient:
    """What both eyes and all visits of a patient share."""

    name: str
    label: int
    age: float  # years
    melanin: float  # density at 500 nm at the nasal site, single pass; Delori & Pflibsen: 0.64, CV 50 %
    rho: float  # inner reflectance at the nasal site
    choroid_mm: float  # choroidal blood at the nasal site; Delori & Pflibsen: 93 micrometres
    macular: float  # peak density of macular pigment
    artery_saturation: float
    vein_saturation: float
    width_mm: float  # diameter of the main veins at the disc
    disc_radius: float  # share of the field's radius
    cup_ratio: float
    tessellation: float  # visibility of choroidal vessels


@dataclass(frozen=True)
class Visit:
    """What differs between visits: gaze, focus, lamp."""

    gaze: tuple[float, float]  # share of the field's radius
    roll: float  # radians
    gain: float
    vignette: float
    tilt: tuple[float, float]
    defocus: float  # share of a 64th of the image's width
    stray: float  # share of the mean reflectance that is scattered over the whole field


def draw_patient(seed: int, patient: int, prevalence: float = 0.5, age_gap: float = 0.0) -> Patient:
    """The patient `patient` of the cohort `seed`.

    Args:
        prevalence: share of labelled patients.
        age_gap: years that labelled patients are older, to confound the label on request.
    """
    rng = numpy_stream("phantom patient", seed, patient)
    label = int(rng.random() < prevalence)
    return Patient(
        name=f"s{seed}p{patient:04d}",
        label=label,
        age=float(np.clip(rng.normal(66, 8) + age_gap * label, 45, 90)),
        melanin=float(np.clip(rng.lognormal(np.log(0.62), 0.42), 0.2, 1.6)),  # log-normal: positive, CV about 45 %
        rho=float(0.047 * rng.lognormal(0, 0.14)),
        choroid_mm=float(np.clip(0.093 * rng.lognormal(0, 0.2), 0.05, 0.17)),
        macular=float(np.clip(rng.normal(0.42, 0.12), 0.12, 0.8)),
        artery_saturation=float(np.clip(rng.normal(0.96, 0.02), 0.88, 1.0)),  # Hammer 2008 and others: 95-98 %
        vein_saturation=float(np.clip(rng.normal(0.58, 0.06), 0.4, 0.75)),  # 55-65 %
        width_mm=float(np.clip(rng.normal(0.135, 0.012), 0.1, 0.17)),
        disc_radius=float(np.clip(rng.normal(0.135, 0.012), 0.105, 0.17)),
        cup_ratio=float(np.clip(rng.normal(0.42, 0.12), 0.15, 0.75)),
        tessellation=float(np.clip(rng.gamma(2.0, 0.25), 0.05, 1.5)),
    )


def draw_visit(seed: int, patient: int, eye: str, visit: int) -> Visit:
    rng = numpy_stream("phantom visit", seed, patient, eye, visit)
    return Visit(
        gaze=tuple(rng.normal(0, 0.035, 2)),
        roll=float(rng.normal(0, 0.05)),
        gain=float(rng.lognormal(0, 0.06)),
        vignette=float(rng.uniform(0.1, 0.5)),
        tilt=tuple(rng.normal(0, 0.1, 2)),
        defocus=float(rng.uniform(0.08, 0.32)),
        stray=float(rng.uniform(0.0, 0.02)),
    )
