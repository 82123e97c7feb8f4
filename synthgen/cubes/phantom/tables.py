"""Published optical tables, carried as package data; the source of each is in the header of its file."""

from __future__ import annotations

import csv
from functools import cache
from importlib import resources

import numpy as np

SHORTEST_NM, LONGEST_NM = 440.0, 910.0  # of haemoglobin's table
MARGIN_NM = 10.0  # by which the half-maximum of a band may leave it
HB_GRAMS_PER_LITRE, HB_GRAMS_PER_MOLE = 150.0, 64_500.0  # whole blood; haemoglobin tetramer (Prahl, OMLC)


@cache
def table(name: str) -> dict[str, np.ndarray]:
    """Columns of `synthgen/cubes/tables/<name>.csv`, float64 by name."""
    text = (resources.files("synthgen.cubes") / "tables" / f"{name}.csv").read_text(encoding="utf-8")
    rows = list(csv.reader(line for line in text.splitlines() if not line.startswith("#")))
    return {name: np.array([float(row[i]) for row in rows[1:]]) for i, name in enumerate(rows[0])}


def blood_absorption(wavelengths: np.ndarray, saturation: float) -> np.ndarray:
    """mu_a of whole blood in 1/mm at each wavelength (nm): 2.303 c (S e_HbO2 + (1 - S) e_Hb), Prahl's compilation."""
    hb = table("hb_extinction")
    oxygenated = np.interp(wavelengths, hb["wavelength_nm"], hb["HbO2_cm-1_per_M"])
    reduced = np.interp(wavelengths, hb["wavelength_nm"], hb["Hb_cm-1_per_M"])
    per_cm = 2.303 * HB_GRAMS_PER_LITRE / HB_GRAMS_PER_MOLE * (saturation * oxygenated + (1 - saturation) * reduced)
    return per_cm / 10


def macular_density(wavelengths: np.ndarray) -> np.ndarray:
    """Optical density of macular pigment relative to its peak at 460 nm (CIE 2-degree template); zero above 555 nm."""
    mp = table("macular_pigment")
    return np.interp(wavelengths, mp["wavelength_nm"], mp["optical_density"], right=0.0) / 0.350


def media_density(wavelengths: np.ndarray, age: float) -> np.ndarray:
    """Single-pass optical density of the ocular media (van de Kraats & van Norren 2007, eq. 8, large fields)."""
    nm, a2 = np.asarray(wavelengths, dtype=float), age**2
    return (
        (0.225 + 3.1e-5 * a2) * (400 / nm) ** 4
        + 14.19 * 10.68 * np.exp(-((0.057 * (nm - 273)) ** 2))
        + (0.998 - 6.3e-5 * a2) * 2.13 * np.exp(-((0.029 * (nm - 370)) ** 2))
        + (0.059 + 1.86e-4 * a2) * 11.95 * np.exp(-((0.021 * (nm - 325)) ** 2))
        + (0.016 + 1.32e-4 * a2) * 1.43 * np.exp(-((0.008 * (nm - 325)) ** 2))
        + 0.111
    )


def melanin_density(wavelengths: np.ndarray) -> np.ndarray:
    """Optical density of melanin relative to 500 nm: (nm / 500)^-3.48 (Jacques, OMLC, retinal melanosomes)."""
    return (np.asarray(wavelengths, dtype=float) / 500.0) ** -3.48
