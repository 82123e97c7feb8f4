"""What a file declares of its numbers (gain, offset, scale, no data), as one record, and the one place that applies it.

    value = stored * gain + offset, NaN where there is no data; reflectance = value / full scale

Readers give the numbers as they are stored and a `Declared` beside them; `Declared.values` does the first step for
every format, `scaling` the second. What the names in a file mean is defined in `declarations`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

HUGE = 1e30  # no-data numbers beyond are written with few digits (-3.40282e+38): compared to five


@dataclass(frozen=True, eq=False)
class Declared:
    """What a file states of its stored numbers. Arrays are float64 [1], or [C] in the order in which bands are read."""

    gain: np.ndarray | None = None
    offset: np.ndarray | None = None
    no_data: tuple[np.ndarray, ...] = ()  # numbers that stand for "no data", as stored
    valid: tuple[float, float] | None = None  # values outside are missing
    valid_of_values: bool = False  # whether `valid` is of the values after gain and offset, not of the stored numbers
    unsigned: bool = False  # signed integers that are to be read as unsigned ones
    full_scale: float | None = None  # the value of reflectance 1
    full_scale_from: str = ""
    conflict: str = ""  # two full scales that differ: only a given one decides
    unit: str = ""  # of the values, where it is another than reflectance: they need a full scale
    statements: tuple[str, ...] = ()  # every declaration with its number and where it stands
    not_applied: tuple[str, ...] = ()  # with the reason

    @property
    def is_calibrated(self) -> bool:
        """Whether the file declares a gain or an offset."""
        return self.gain is not None or self.offset is not None

    @property
    def marks_missing(self) -> bool:
        """Whether the file declares which of its numbers are missing."""
        return bool(self.no_data) or self.valid is not None

    def calibrated(self, stored: np.ndarray) -> np.ndarray:
        """Numbers [C, ...] without any that are missing, after gain and offset: float64."""
        out = np.array(stored, dtype=np.float64)
        column = (-1, *[1] * (out.ndim - 1))
        if self.gain is not None:
            out *= self.gain.reshape(column)
        if self.offset is not None:
            out += self.offset.reshape(column)
        return out

    def values(self, stored: np.ndarray) -> np.ndarray:
        """A stored cube [C, H, W] as the values that it stands for, NaN where the file marks them as missing.

        As it is where nothing is declared; else floating numbers that hold the stored ones: float32 for up to 16 bits.
        """
        if self.unsigned and stored.dtype.kind == "i":
            stored = stored.view(stored.dtype.str.replace("i", "u"))
        if not self.is_calibrated and not self.marks_missing:
            return stored
        out = np.empty(stored.shape, np.result_type(stored.dtype, np.float32))
        for band, plane in enumerate(stored):  # one at a time: float64 of the whole cube would need twice its memory
            value = plane.astype(np.float64) * _of(self.gain, band, 1.0) + _of(self.offset, band, 0.0)
            missing = self._missing(plane, band) | self._invalid(value if self.valid_of_values else plane)
            out[band] = np.where(missing, np.nan, value)
        return out

    def _missing(self, plane: np.ndarray, band: int) -> np.ndarray:
        missing = np.zeros(plane.shape, bool)
        for listed in self.no_data:
            number = float(listed[band if listed.size > 1 else 0])
            if plane.dtype.kind != "f":
                missing |= plane == int(number) if np.isfinite(number) else False  # NaN: a band without such a number
            elif np.isnan(number):
                missing |= np.isnan(plane)
            elif abs(number) > HUGE:
                missing |= np.abs(plane) >= abs(number) * (1 - 1e-5)
            else:  # as the file's own type holds it: 0.1 of float32 is not 0.1 of float64
                missing |= plane == np.asarray(number).astype(plane.dtype)
        return missing

    def _invalid(self, plane: np.ndarray) -> np.ndarray:
        if self.valid is None:
            return np.zeros(plane.shape, bool)
        return (plane < self.valid[0]) | (plane > self.valid[1])

    @property
    def applied(self) -> tuple[str, ...]:
        """What `values` does, in words; empty where it does nothing."""
        done = []
        if self.unsigned:
            done.append("signed integers read as unsigned")
        if self.is_calibrated:
            gain = "stored" if self.gain is None else f"stored x {shown(self.gain)}"
            offset = "" if self.offset is None else f" + {shown(self.offset)}".replace("+ -", "- ")
            done.append(f"value = {gain}{offset}")
        if self.no_data:
            done.append(f"no data where {' or '.join(shown(listed) for listed in self.no_data)} is stored")
        if self.valid is not None:
            what = "the value" if self.valid_of_values else "the stored number"
            low, high = self.valid
            bounds = [f"below {low:g}"] * np.isfinite(low) + [f"above {high:g}"] * np.isfinite(high)
            done.append(f"no data where {what} is {' or '.join(bounds)}")
        return tuple(done)


NOTHING = Declared()


def shown(numbers: np.ndarray) -> str:
    """One number, or the range of one per band."""
    numbers = np.asarray(numbers, np.float64).ravel()
    if numbers.size == 1 or (numbers == numbers[0]).all() or np.isnan(numbers).all():
        return f"{numbers[0]:.7g}"
    return f"{np.nanmin(numbers):.6g}...{np.nanmax(numbers):.6g} by band"


def _of(numbers: np.ndarray | None, band: int, usual: float) -> float:
    return usual if numbers is None else float(numbers[band if numbers.size > 1 else 0])
