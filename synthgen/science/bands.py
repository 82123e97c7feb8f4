"""Which bands stand for given wavelengths."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def nearest_bands(wavelengths: Sequence[float] | np.ndarray, wanted: Sequence[float]) -> list[int]:
    """For each wanted wavelength the index of the band nearest to it, in their order (an index may come twice).

    Of two as near the longer one: a fundus reflects more there, so that band is the less noisy.
    """
    centres = np.asarray(wavelengths, dtype=np.float64)
    distance = np.abs(centres - np.asarray(wanted, dtype=np.float64)[:, None])
    nearest = distance == distance.min(axis=1, keepdims=True)
    return np.where(nearest, centres, -np.inf).argmax(axis=1).tolist()
