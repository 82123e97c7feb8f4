"""The phantom's physics beside published values: what the tests hold it to and the results page shows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from synthgen.cubes.phantom import spectra
from synthgen.cubes.phantom.bands import Bands
from synthgen.cubes.phantom.demographics import Patient, draw_patient
from synthgen.cubes.phantom.sites import sites
from synthgen.cubes.phantom.tables import blood_absorption, macular_density, table

# Distances from the fovea over which each site of Delori & Pflibsen is averaged, fractions of the field's radius.
SITES = {"nasal": (1.0,), "perifovea": (0.12,), "fovea": (0.0, 0.01, 0.02, 0.03, 0.04, 0.05)}
YOUNG = (22.0, 38.0)  # years of Delori & Pflibsen's subjects
DELORI_SUBJECTS = 10
ODR_SLOPE, ODR_SLOPE_ERROR = -0.00504, 0.00029  # per percent saturation, in vivo (J Appl Physiol 86:748, 1999)
DARKER_VEIN = (450, 510, *range(600, 781, 30))  # nm at which venous blood absorbs more (Prahl's table)
DARKER_ARTERY = (480, 540, *range(810, 901, 30))


def site_reflectance(person: Patient, site: str, nm: np.ndarray) -> np.ndarray:
    """Reflectance [C] of one of SITES at single wavelengths `nm`, averaged over its area; ocular media included."""
    radius = np.array(SITES[site])
    at, column = sites(radius, person), np.asarray(nm, dtype=float)[:, None]
    out = spectra.front(column) * at.nerve + spectra.behind(column, at.melanin, at.blood_mm, person.epithelium)
    out = out * 10 ** (-2 * at.macular * macular_density(column)) * spectra.media(column, person.age, person.clarity)
    return np.average(out, axis=1, weights=radius + 1e-3)  # rings grow with their radius


def median_person(age: float = 30.0) -> Patient:
    """The person in the middle of every distribution."""
    return replace(
        draw_patient(0, 0), age=age, melanin=spectra.NASAL_MELANIN, choroid_mm=spectra.NASAL_BLOOD_MM,
        epithelium=1.0, front=1.0, clarity=1.0, macular=0.32,
    )  # fmt: skip


def against_delori(site: str) -> dict[str, np.ndarray]:
    """Delori & Pflibsen's Table I at a site beside the median person of 30 years: percent, and z."""
    published = table("fundus_reflectance_delori1989")
    nm, mean = published["wavelength_nm"], published[f"{site}_pct"]
    std = mean * published[f"{site}_cv"] / 100
    ours = 100 * site_reflectance(median_person(), site, nm)
    return {"nm": nm, "published": mean, "std": std, "ours": ours, "z": (ours - mean) / std}


def variation(site: str, people: int = 400, seed: int = 0) -> dict[str, np.ndarray]:
    """Between-person coefficient of variation (percent) at a site beside the published; ages 22 to 38."""
    published = table("fundus_reflectance_delori1989")
    ages = np.random.default_rng(seed).uniform(*YOUNG, people)
    drawn = [replace(draw_patient(seed, i), age=float(age)) for i, age in enumerate(ages)]
    values = np.stack([site_reflectance(person, site, published["wavelength_nm"]) for person in drawn])
    ours = 100 * values.std(0, ddof=1) / values.mean(0)
    return {"nm": published["wavelength_nm"], "published": published[f"{site}_cv"], "ours": ours}


def odr_slope(diameter_mm: float, fwhm_nm: float) -> float:
    """Slope of the optical density ratio 600/570 nm of a vessel per percent saturation (50 to 100 %)."""
    bands, saturation = Bands.of(np.array([600.0, 570.0]), fwhm_nm), np.linspace(0.5, 1.0, 11)
    ratios = []
    for s in saturation:
        let = spectra.vessel(bands.nm.ravel(), np.array([diameter_mm]), s).reshape(*bands.nm.shape, 1)
        density = -np.log10(bands.mean(let)[:, 0])
        ratios.append(density[0] / density[1])
    return float(np.polyfit(100 * saturation, ratios, 1)[0])


def vein_over_artery(nm: np.ndarray, fwhm_nm: float, vein: float = 0.58, artery: float = 0.96) -> np.ndarray:
    """Ratio [C] of venous to arterial absorption, averaged over the camera's bands."""
    bands = Bands.of(np.asarray(nm, dtype=float), fwhm_nm)
    mean = [bands.mean(blood_absorption(bands.nm.ravel(), s).reshape(bands.nm.shape)) for s in (vein, artery)]
    return mean[0] / mean[1]
