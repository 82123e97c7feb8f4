"""The layer model: reflectance of the fundus from what light meets on its way in and out.

    R = T_media^2 T_macular^2 [ front + T_epithelium^2 ( epithelium + choroid ) ]

`front` is nerve-fibre layer and inner limiting membrane, `epithelium` what is scattered at the pigment epithelium,
`choroid` a Kubelka-Munk layer that absorbs (blood, melanin) and scatters in front of the sclera. Vessels of the retina
multiply R by the passage through their blood, the disc replaces it by nerve tissue without pigment. Nothing is ever
multiplied by a published reflectance curve: the four constants marked "fitted" were fitted at the nasal site of Delori
& Pflibsen 1989 (Table I); perifovea and fovea follow from their published melanin and blood.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from synthgen.cubes.phantom.tables import blood_absorption, media_density, melanin_density
from synthgen.errors import ConfigError
from synthgen.science.signature import CUTOFF_NM, EXPONENT, signature_law

FRONT, FRONT_SLOPE = 0.0127, -2.0  # reflectance at 550 nm (fitted); scatter of thin fibres rises toward the blue
EPITHELIUM, EPITHELIUM_SLOPE = 0.0252, -1.0  # at 550 nm (fitted)
SCATTER, SCATTER_SLOPE = 0.2142, -0.4  # S x thickness of the choroid at 600 nm (fitted), Kubelka-Munk
SCLERA = 0.6794  # reflectance behind the choroid (fitted)
EPITHELIUM_SHARE = 0.065  # of the melanin that lies in front of the epithelium's reflectance
CHOROID_SATURATION = 0.95  # choroidal blood is nearly arterial
NASAL_MELANIN, NASAL_BLOOD_MM = 0.64, 0.093  # D_500 and mm of blood, single pass; Delori & Pflibsen, model III

NERVE, NERVE_SLOPE = 0.33, 0.4  # reflectance of the rim at 600 nm and its exponent
CUP_GAIN = 0.5  # the pale floor of the cup reflects so much more than the rim
DISC_BLOOD_MM = 0.008  # capillary blood in the rim, single pass

# Light reaches a vessel from all sides, so it sees less blood than twice the geometric path; where blood absorbs little
# it is scattered to and fro and sees more. PATH_FACTOR is the ratio of both: with 1 (Beer-Lambert) the slope of the
# optical density ratio 600/570 is -0.0026 per percent saturation, measured in vivo -0.00504 +- 0.00029 (J Appl
# Physiol 86:748, 1999).
PATH_FACTOR = 2.2
PATH_SHARE = 0.45  # of the geometric double pass at 570 nm: a main vein then has a density of about 1.1 in its middle
SIGNATURE_REGIONS = ("retina", "macula", "superior", "disc")


@dataclass(frozen=True)
class Signature:
    """The labelled patients' change: log R += amplitude (nm / 450)^-exponent up to `cutoff_nm`, inside `region`.

    The law follows the reported range of 450-585 nm and Rayleigh scatter of small aggregates; sign, size and place are
    not settled in the literature and are parameters.

    amplitude: of log-reflectance at 450 nm, either sign; 0.005 to 0.03 is the range to study, 0 for none.
    region: "retina" (everywhere), "macula", "superior" (upper half) or "disc" (around the disc).

    Raises ConfigError for any other region, and for numbers out of range.
    """

    amplitude: float = 0.03
    exponent: float = EXPONENT
    cutoff_nm: float = CUTOFF_NM
    region: str = "retina"

    def __post_init__(self):
        if self.region not in SIGNATURE_REGIONS:
            raise ConfigError("unknown region of a signature", found=self.region, expected=", ".join(SIGNATURE_REGIONS))
        good = abs(self.amplitude) <= 0.5 and abs(self.exponent) <= 20 and np.isfinite(self.cutoff_nm)
        if not good:  # comparisons with NaN are false
            found = f"amplitude {self.amplitude:g}, exponent {self.exponent:g}, cut-off {self.cutoff_nm:g} nm"
            raise ConfigError("impossible signature", found=found, expected="within 0.5, within 20, a number")

    def law(self, wavelengths: np.ndarray) -> np.ndarray:
        """Change of log-reflectance [C] at full strength."""
        return signature_law(wavelengths, self.amplitude, self.exponent, self.cutoff_nm)


def choroid(nm: np.ndarray, melanin: np.ndarray | float, blood_mm: np.ndarray | float) -> np.ndarray:
    """Reflectance of choroid and sclera, Kubelka & Munk 1931: a layer with absorption K and scattering S on a ground.

    Args:
        nm: wavelengths; melanin: density at 500 nm, single pass; blood_mm: mm of blood, single pass. They broadcast.
    """
    s = SCATTER * (nm / 600) ** SCATTER_SLOPE
    density = np.log(10) * (1 - EPITHELIUM_SHARE) * melanin * melanin_density(nm)
    k = 2 * (blood_mm * blood_absorption(nm, CHOROID_SATURATION) + density)  # diffuse light takes twice the path
    a = (s + k) / s
    b = np.sqrt(a * a - 1)
    coth = b / np.tanh(b * s)
    return (1 - SCLERA * (a - coth)) / (a - SCLERA + coth)


def behind(
    nm: np.ndarray, melanin: np.ndarray | float, blood_mm: np.ndarray | float, epithelium: float = 1.0
) -> np.ndarray:
    """What comes back through the epithelium's melanin: T_epithelium^2 (epithelium + choroid)."""
    through = 10 ** (-2 * EPITHELIUM_SHARE * melanin * melanin_density(nm))
    return through * (epithelium * EPITHELIUM * (nm / 550) ** EPITHELIUM_SLOPE + choroid(nm, melanin, blood_mm))


def front(nm: np.ndarray) -> np.ndarray:
    """Reflectance of a nerve-fibre layer as thick as at the nasal site."""
    return FRONT * (nm / 550) ** FRONT_SLOPE


def disc(nm: np.ndarray, cup: float) -> np.ndarray:
    """Reflectance of the optic disc: rim (cup 0) with its capillaries, or the pale floor of the cup (1)."""
    pink = np.exp(-2 * DISC_BLOOD_MM * (1 - 0.85 * cup) * blood_absorption(nm, 0.85))
    return NERVE * (1 + CUP_GAIN * cup) * (nm / 600) ** NERVE_SLOPE * pink


def path_factor(nm: np.ndarray) -> np.ndarray:
    """Mean path of light in a vessel, as a multiple of that at 570 nm: 1 where blood absorbs, PATH_FACTOR where not.

    It depends on wavelength alone, not on saturation, so the signs of the artery-vein difference are haemoglobin's own.
    """
    absorbs = blood_absorption(nm, 0.75) / blood_absorption(np.array([570.0]), 0.75)
    return PATH_FACTOR - (PATH_FACTOR - 1) * np.minimum(absorbs, 1.0)


def vessel(nm: np.ndarray, path_mm: np.ndarray, saturation: float) -> np.ndarray:
    """Fraction of light [C, ...] that a vessel with the mean chord `path_mm` (mm) lets back, against the fundus."""
    absorption = PATH_SHARE * path_factor(nm) * blood_absorption(nm, saturation)
    return np.exp(-2 * absorption.reshape(-1, *([1] * np.ndim(path_mm))) * path_mm)


def media(nm: np.ndarray, age: float, clarity: float = 1.0) -> np.ndarray:
    """Double pass through lens and cornea; `clarity` scales the density between people of one age."""
    return 10 ** (-2 * clarity * media_density(nm, age))
