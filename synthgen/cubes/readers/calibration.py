"""From the statements of a file to one record of its calibration: which of them count, and what they mean together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from synthgen.cubes.cohort.hdf5 import in_one_line
from synthgen.cubes.readers.declarations import Statement, parse, plain_name
from synthgen.cubes.readers.declared import Declared, shown
from synthgen.errors import InputError

_GAINS = ("gain", "reflectance gain", "factor", "scale")
_CALIBRATING = (*_GAINS, "offset", "reflectance offset")
# Short names that, beside or around a cube, may be of anything: of the amplifier, of the pixel size, of a shift.
_VAGUE = ("gain", "gains", "slope", "offset", "offsets", "intercept", "scale")
_LEAST_SCALE = 100  # a vague `scale` from here on, or one below its reciprocal, is of reflectance
_CORRECT = "correct or remove it in the file"
_PURE = ("1", "reflectance", "dimensionless", "unitless", "none", "-", "fraction", "ratio", "unknown", "n/a", "")
_PERCENT = ("%", "percent", "per cent", "pct")


def interpret(
    statements: Iterable[Statement],
    path: Path,
    bands: int,
    dtype: np.dtype,
    order: np.ndarray | None = None,
) -> Declared:
    """What the statements of a file mean for a cube of `bands` bands of the type `dtype`, read in `order`.

    InputError where a number cannot be a calibration (zero, NaN, text), or two of them contradict each other.
    """
    reader = _Reader([s for s in statements if s.meaning], path, bands, dtype, order)
    gain, offset, scales = reader.calibration()
    full, origin, conflict = reader.full_scale(gain, scales)
    unit = reader.unit()
    if unit in _PERCENT and full is None and not conflict:
        full, origin, unit = 100.0, "unit %", ""
    unsigned = reader.unsigned()
    calibrated = gain is not None or offset is not None
    valid, of_values = reader.valid(calibrated, unsigned)
    return Declared(
        gain=gain,
        offset=offset,
        no_data=reader.no_data(unsigned),
        valid=valid,
        valid_of_values=of_values,
        unsigned=unsigned,
        full_scale=full,
        full_scale_from=origin,
        conflict=conflict,
        unit="" if unit in _PURE + _PERCENT else unit,
        statements=tuple(dict.fromkeys(s.text() for s in reader.statements)),
        not_applied=tuple(dict.fromkeys(reader.notes)),
    )


class _Reader:
    """The statements of one file, taken one meaning at a time; what is left aside is noted."""

    def __init__(
        self, statements: Sequence[Statement], path: Path, bands: int, dtype: np.dtype, order: np.ndarray | None
    ):
        self.path, self.bands, self.dtype, self.order = path, bands, dtype, order
        self.notes: list[str] = []
        own, others = [s for s in statements if s.level == 0], [s for s in statements if s.level > 0]
        self.statements = own
        for s in sorted(others, key=lambda s: s.meaning == "offset"):  # an offset is believed beside a gain
            self.statements += [s] if self._fits(s) else []

    def _fits(self, s: Statement) -> bool:
        """Whether a statement around or beside the cube can be of the cube; noted where it cannot."""
        numbers, why = parse(s.value), ""
        if isinstance(s.value, str) and s.value.startswith("of shape"):
            why = "it is no number and no list of one per band"
        elif numbers is None and s.meaning not in ("unsigned", "unit"):
            why = "it is no number"
        elif s.meaning in _CALIBRATING and numbers is not None and numbers.size not in (0, 1, self.bands):
            why = f"it is no list of one per band, {self.bands}"
        elif numbers is not None and plain_name(s.name) in _VAGUE and numbers.size == 1 and not s.role:
            with_gain = any(o.level == s.level and o.meaning in _GAINS for o in self.statements)
            far = 1 / _LEAST_SCALE < numbers[0] < _LEAST_SCALE and numbers[0] != 1
            if {"offset": not with_gain, "scale": far, "gain": numbers[0] > 1}[s.meaning]:
                why = "the name alone does not tell that it is of the cube's numbers"
        if why:
            self.notes.append(f"{s.text()} was not applied: {why}")
        return not why

    def _of(self, *meanings: str) -> list[Statement]:
        """The nearest statements of these meanings."""
        found = [s for s in self.statements if s.meaning in meanings]
        nearest = min((s.level for s in found), default=0)
        return [s for s in found if s.level == nearest]

    def _numbers(self, s: Statement, least: float = -np.inf) -> np.ndarray | None:
        """One number, or one per band in the order of reading; InputError for what no calibration can be."""
        numbers = parse(s.value)
        if numbers is None:
            raise self._wrong(f"'{s.name}' is no number", s, "a number, or one per band")
        if not numbers.size:
            return None
        if numbers.size not in (1, self.bands):
            raise self._wrong(f"'{s.name}' has {numbers.size} values", s, f"one, or one per band, {self.bands}")
        if not np.isfinite(numbers).all() or (numbers <= least).any():
            bad = int(np.argmax(~np.isfinite(numbers) | (numbers <= least)))
            found = f"{s.text()}, {numbers[bad]:g}" + (f" at band {bad + 1}" if numbers.size > 1 else "")
            raise self._wrong(f"'{s.name}' cannot be applied", found, "finite numbers" + " above 0" * (least == 0))
        if numbers.size > 1 and (numbers == numbers[0]).all():
            numbers = numbers[:1]
        return numbers if self.order is None or numbers.size == 1 else numbers[self.order]

    def _wrong(self, what: str, found: Statement | str, expected: str) -> InputError:
        text = found if isinstance(found, str) else found.text()
        return InputError(what, path=self.path, found=text, expected=expected, remedy=_CORRECT)

    def _one(self, meanings: tuple[str, ...], least: float = -np.inf) -> tuple[np.ndarray | None, list[Statement]]:
        """What the nearest statements of these meanings agree on; InputError where they do not."""
        stated = [(s, n) for s in self._of(*meanings) if (n := self._numbers(s, least)) is not None]
        for s, numbers in stated[1:]:
            if not _agree(numbers, stated[0][1]):
                found = f"{stated[0][0].text()} and {s.text()}"
                raise self._wrong("the file contradicts itself", found, "one number")
        return (stated[0][1] if stated else None), [s for s, _ in stated]

    def calibration(self) -> tuple[np.ndarray | None, np.ndarray | None, list[tuple[float, Statement]]]:
        """Gain and offset, and the full scales that the file gives instead."""
        ours = [s for s in self.statements if s.meaning in _CALIBRATING]
        nearest = min((s.level for s in ours), default=0)
        for s in [s for s in ours if s.level > nearest]:
            self.notes.append(f"{s.text()} was not applied: the cube itself declares its own")
            self.statements.remove(s)
        gain, gains = self._one(("gain",), 0)
        offset, offsets = self._one(("offset",))
        reflecting, of_reflecting = self._one(("reflectance gain",), 0)
        shift, of_shift = self._one(("reflectance offset",))
        if (reflecting is not None or shift is not None) and (not _trivial(reflecting, 1) or not _trivial(shift, 0)):
            for s in gains + offsets:
                self.notes.append(f"{s.text()} was not applied: the file gives gains of reflectance beside it")
            gain, offset, gains, offsets = reflecting, shift, of_reflecting, of_shift
        shifts = not _trivial(offset, 0)
        scales: list[tuple[float, Statement]] = []
        for s in self._of("factor", "scale"):
            factor = self._numbers(s, 0)
            if factor is None or _trivial(factor, 1):
                if factor is not None and self.dtype.kind == "f" and s.meaning == "scale":
                    scales.append((1.0, s))
                continue
            small, cf = bool((factor <= 1).all()), plain_name(s.name) == "scale_factor" and shifts
            if not small and (factor <= 1).any():
                raise self._wrong(f"'{s.name}' divides in some bands and multiplies in others", s, "one meaning")
            if not small and shifts and not (cf and any(plain_name(o.name) == "add_offset" for o in offsets)):
                found = f"{s.text()} and {offsets[0].text()}"
                expected = "a factor up to 1, or no offset: whether the offset is added before or after is not stated"
                raise self._wrong("scale and offset cannot be applied", found, expected)
            multiplies = small or cf
            if shifts or factor.size > 1 or (small and s.meaning == "factor"):
                factor = factor if multiplies else 1 / factor
                if gain is not None and not _agree(gain, factor):
                    found = f"{gains[0].text()} and {s.text()}"
                    raise self._wrong("the file contradicts itself", found, "one gain")
                gain, gains = factor, [s]
            else:
                scales.append((float(1 / factor[0] if small else factor[0]), s))
        return (None if _trivial(gain, 1) else gain), (None if _trivial(offset, 0) else offset), scales

    def full_scale(
        self, gain: np.ndarray | None, scales: list[tuple[float, Statement]]
    ) -> tuple[float | None, str, str]:
        """The value of reflectance 1 with where it stands, or the contradiction of two."""
        for s in self._of("full scale"):
            limit = parse(s.value)
            if limit is not None and limit.size and np.isfinite(limit[0]) and limit[0] > 0:
                scales.append((float(limit[0]), s))
            else:
                self.notes.append(f"{s.text()} was not applied: it is no full scale")
        texts = [s.text() for _, s in scales]
        if not scales:
            return None, "", ""
        if any(not np.isclose(full, scales[0][0], rtol=1e-5) for full, _ in scales):
            return None, "", " and ".join(texts)
        if gain is not None:
            if np.allclose(gain * scales[0][0], 1, rtol=1e-4):
                return None, "", ""  # the same stated twice
            return None, "", f"{texts[0]} beside a gain of {shown(gain)}"
        return scales[0][0], f"file: {texts[0]}", ""

    def no_data(self, unsigned: bool) -> tuple[np.ndarray, ...]:
        """The numbers that stand for no data; those that the type cannot hold are noted."""
        found: list[np.ndarray] = []
        for s in self._of("no data", "missing values"):
            numbers = parse(s.value)
            if numbers is None:
                raise self._wrong(f"'{s.name}' is no number", s, "a number")
            by_band = numbers.size == self.bands > 1 and s.meaning == "no data"
            if unsigned:
                numbers = np.where(numbers < 0, numbers + 256.0**self.dtype.itemsize, numbers)
            held = np.array([self._holds(n, unsigned) or (by_band and np.isnan(n)) for n in numbers], bool)
            if numbers.size and (not held.any() or (self.dtype.kind != "f" and np.isnan(numbers).all())):
                self.notes.append(f"{s.text()} marks nothing: {self.dtype.name} holds no such number")
            elif by_band and held.all():
                found.append(numbers if self.order is None else numbers[self.order])
            elif by_band and not held.all():
                raise self._wrong(f"'{s.name}' cannot be applied", s, f"numbers that {self.dtype.name} holds")
            else:
                found += [numbers[k : k + 1] for k in np.flatnonzero(held)]
        return tuple({tuple(n.tolist()): n for n in found}.values())

    def _holds(self, number: float, unsigned: bool) -> bool:
        if self.dtype.kind == "f":
            return True
        kind = np.dtype(self.dtype.str.replace("i", "u")) if unsigned else self.dtype
        limits = np.iinfo(kind)
        return bool(np.isfinite(number) and number == np.rint(number) and limits.min <= number <= limits.max)

    def valid(self, calibrated: bool, unsigned: bool) -> tuple[tuple[float, float] | None, bool]:
        """The range of valid numbers, and whether it is of the values after gain and offset.

        It is where its type is floating, that of the stored numbers is not and the file has a gain (NetCDF Users Guide,
        attribute conventions).
        """
        low, high, floating, stated = -np.inf, np.inf, False, []
        for s in self._of("valid range", "valid min", "valid max"):
            numbers = parse(s.value)
            if numbers is None or numbers.size != (2 if s.meaning == "valid range" else 1):
                expected = "two numbers" if s.meaning == "valid range" else "a number"
                raise self._wrong(f"'{s.name}' cannot be applied", s, expected)
            if unsigned:
                numbers = np.where(numbers < 0, numbers + 256.0**self.dtype.itemsize, numbers)
            if s.meaning != "valid max" and not np.isnan(numbers[0]):
                low = max(low, float(numbers[0]))
            if s.meaning != "valid min" and not np.isnan(numbers[-1]):
                high = min(high, float(numbers[-1]))
            floating |= np.asarray(s.value).dtype.kind == "f"
            stated.append(s)
        if low > high:
            raise self._wrong("no number is valid", " and ".join(s.text() for s in stated), "a lower and an upper end")
        if not np.isfinite(low) and not np.isfinite(high):
            return None, False
        return (low, high), bool(calibrated and floating and self.dtype.kind in "ui")

    def unsigned(self) -> bool:
        words = [str(np.asarray(s.value).ravel()[0]).strip("b'\" ").lower() for s in self._of("unsigned")]
        return self.dtype.kind == "i" and any(word in ("true", "1") for word in words)

    def unit(self) -> str:
        for s in [s for s in self._of("unit") if s.level == 0]:
            value = s.value.decode("utf-8", "replace") if isinstance(s.value, bytes) else s.value
            if isinstance(value, str):
                return in_one_line(value).strip().lower()
        return ""


def _agree(one: np.ndarray, other: np.ndarray) -> bool:
    return bool(np.allclose(one, other, rtol=1e-5, atol=0))


def _trivial(numbers: np.ndarray | None, usual: float) -> bool:
    return numbers is None or bool((numbers == usual).all())
