"""What one band of the camera sees: spectra averaged over its shape, once per eye, then looked up for every pixel.

A band is a Gaussian of some full width at half maximum. The layer model is not linear, so its reflectance (not its
absorption) is averaged over the band, on a small grid of melanin and blood; between the nodes log-reflectance is a
polynomial of degree 4. Macular pigment, weak and smooth, enters by its mean density. Tails of a band that leave the
table of haemoglobin take its end values. The cost per pixel is fifteen multiplications and one exponential per band.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from synthgen.cubes.phantom import spectra
from synthgen.cubes.phantom.tables import macular_density

NODES = 8  # of the grid, in melanin and in blood
DEGREE = 4  # of the polynomial in both
QUADRATURE = 7  # wavelengths per band: Gauss-Hermite, exact for polynomials to degree 13
DEEPEST_MM, DEPTHS = 0.30, 24  # the table of vessels: longest chord and number of nodes
_SIGMA = 1 / np.sqrt(8 * np.log(2))


@dataclass(frozen=True)
class Bands:
    """nm [C, Q] and weights [C, Q] of each band's quadrature; weights sum to 1."""

    nm: np.ndarray
    weights: np.ndarray

    @staticmethod
    def of(wavelengths: np.ndarray, fwhm_nm: float) -> Bands:
        """Gaussian bands at `wavelengths` (nm); a width of 0 gives single lines."""
        centre = np.asarray(wavelengths, dtype=float)[:, None]
        if fwhm_nm <= 0:
            return Bands(centre, np.ones_like(centre))
        at, weight = np.polynomial.hermite_e.hermegauss(QUADRATURE)
        nm = centre + fwhm_nm * _SIGMA * at
        return Bands(nm, np.broadcast_to(weight / weight.sum(), nm.shape))

    def mean(self, values: np.ndarray) -> np.ndarray:
        """[C, Q, ...] -> [C, ...]"""
        weights = self.weights.reshape(*self.weights.shape, *([1] * (values.ndim - 2)))
        return (values * weights).sum(1)


@dataclass(frozen=True)
class Fundus:
    """Per band: polynomial of log-reflectance behind the epithelium, and the other layers' band means.

    polynomial [C, 15] in the scaled log-melanin and blood; front, rim, cup, macular, light [C].
    """

    polynomial: np.ndarray
    centre: tuple[float, float]
    half: tuple[float, float]
    front: np.ndarray
    rim: np.ndarray
    cup: np.ndarray
    macular: np.ndarray
    depths: dict[str, np.ndarray]  # log of what a vessel lets back, [C, DEPTHS] over 0..DEEPEST_MM

    def reflectance(self, melanin: np.ndarray, blood_mm: np.ndarray, front: np.ndarray) -> np.ndarray:
        """[C, P] of P pixels with melanin density [P], choroidal blood [P] mm and relative nerve-fibre layer [P]."""
        x = (np.log(melanin) - self.centre[0]) / self.half[0]
        y = (blood_mm - self.centre[1]) / self.half[1]
        terms = _terms(x.astype(np.float32), y.astype(np.float32))
        out = np.zeros((len(self.polynomial), terms.shape[1]), np.float32)
        for weights, term in zip(self.polynomial.astype(np.float32).T, terms, strict=True):
            out += weights[:, None] * term  # not `@`: BLAS adds in another order with another number of threads
        np.exp(out, out=out)
        out += self.front.astype(np.float32)[:, None] * front.astype(np.float32)
        return out

    def through(self, kind: str, path_mm: np.ndarray) -> np.ndarray:
        """What a vessel of `kind` ("artery" or "vein") lets back, [C, P] at the mean chords [P] mm."""
        at = np.linspace(0, DEEPEST_MM, DEPTHS)
        return np.exp([np.interp(path_mm, at, row) for row in self.depths[kind]]).astype(np.float32)


def tabulate(
    bands: Bands,
    age: float,
    clarity: float,
    epithelium: float,
    saturations: dict[str, float],
    melanin: tuple[float, float],
    blood_mm: tuple[float, float],
) -> Fundus:
    """The tables of one eye; `melanin` and `blood_mm` are the ranges that its maps span. Media are in all."""
    nm = bands.nm
    light = spectra.media(nm, age, clarity)
    low, high = np.log(melanin[0]), np.log(melanin[1])
    centre = ((low + high) / 2, sum(blood_mm) / 2)
    half = (max((high - low) / 2, 1e-3), max((blood_mm[1] - blood_mm[0]) / 2, 1e-4))
    node = np.cos(np.pi * (np.arange(NODES) + 0.5) / NODES)  # Chebyshev: no ripple at the ends
    x, y = (v.ravel() for v in np.meshgrid(node, node))
    m, b = np.exp(centre[0] + half[0] * x), centre[1] + half[1] * y
    grid = bands.mean(light[..., None] * spectra.behind(nm[..., None], m, b, epithelium))
    polynomial = np.linalg.lstsq(_terms(x, y).T, np.log(grid).T, rcond=None)[0].T
    middle = light * (spectra.behind(nm, np.exp(centre[0]), centre[1], epithelium) + 0.7 * spectra.front(nm))
    chords = np.linspace(0, DEEPEST_MM, DEPTHS)
    depths = {}
    for kind, saturation in saturations.items():
        let = spectra.vessel(nm.ravel(), chords, saturation).reshape(*nm.shape, DEPTHS)
        depths[kind] = np.log(bands.mean(middle[..., None] * let) / bands.mean(middle)[:, None])
    return Fundus(
        polynomial=polynomial,
        centre=centre,
        half=half,
        front=bands.mean(light * spectra.front(nm)),
        rim=bands.mean(light * spectra.disc(nm, 0.0)),
        cup=bands.mean(light * spectra.disc(nm, 1.0)),
        macular=bands.mean(macular_density(nm)),
        depths=depths,
    )


def _terms(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Products of Chebyshev polynomials up to the fourth degree together, [15, P]."""
    tx, ty = _chebyshev(x), _chebyshev(y)
    return np.stack([tx[i] * ty[j] for i in range(DEGREE + 1) for j in range(DEGREE + 1 - i)])


def _chebyshev(x: np.ndarray) -> list[np.ndarray]:
    terms = [np.ones_like(x), x]
    while len(terms) <= DEGREE:
        terms.append(2 * x * terms[-1] - terms[-2])
    return terms
