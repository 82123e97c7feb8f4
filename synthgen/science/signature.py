"""The law of the weak spectral signature that nothing in the project may erase."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

REFERENCE_NM = 450.0  # where the amplitude is stated: the short end of the reported range
EXPONENT, CUTOFF_NM = 4.0, 585.0  # of the reported range, 450-585 nm, and Rayleigh scatter of small aggregates


def signature_law(
    wavelengths: Sequence[float] | NDArray, amplitude: float, exponent: float = EXPONENT, cutoff_nm: float = CUTOFF_NM
) -> NDArray[np.float64]:
    """Change of log-reflectance [C]: amplitude (nm / 450)^-exponent up to `cutoff_nm`, 0 above. An amplitude of 0.01 is
    a tilt of 1 %; either sign."""
    nm = np.asarray(wavelengths, dtype=np.float64)
    return np.where(nm <= cutoff_nm, amplitude * (nm / REFERENCE_NM) ** -exponent, 0.0)
