"""Wavelengths in nm out of what a file or a user states: numbers with a unit word, or whose size tells the unit.

Every reader hands over a `Listed`, the numbers and the word as they stand; `in_nm` is the one place that converts. What
comes out lies in 200 to 3000 nm unless the user has given the unit; band numbers are no wavelengths.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from synthgen.errors import ConfigError, InputError

LEAST_NM, MOST_NM = 200.0, 3000.0  # what silicon, InGaAs and MCT cameras see
INDEX = "index"
# Factor to nm of a length; nm times the number, of a number that falls as the wavelength grows (speed of light in nm).
_LENGTHS = {"nm": 1.0, "um": 1e3, "mm": 1e6, "cm": 1e7, "m": 1e9, "Angstrom": 0.1, "pm": 1e-3}
_INVERSE = {"cm-1": 1e7, "m-1": 1e9, "GHz": 299_792_458.0, "THz": 299_792.458, "Hz": 299_792_458e9, "eV": 1239.841984}
UNITS = (*_LENGTHS, *_INVERSE)
# Of numbers without a unit: these differ by a factor of 1000, more than the range is wide, so that the size tells. The
# sizes of Angstrom, wavenumbers and the far infrared overlap, and those units have to be given.
_KNOWN_BY_SIZE = ("nm", "um", "mm", "m")
_WORDS = {
    "nm": r"nms?|nano(met(er|re)s?)?",
    "um": r"um|mum|micro(met(er|re)s?)?|microns?",
    "mm": r"mm|milli(met(er|re)s?)?",
    "cm": r"cm|centimet(er|re)s?",
    "m": r"m|met(er|re)s?",
    "pm": r"pm|picomet(er|re)s?",
    "Angstrom": r"a|aa|\xe5|angs?|\xe5?[a\xe5]ngstr(o|\xf6|oe)e?ms?",
    "cm-1": r"cm(\^|\*\*)?-1|1/cm|/cm|per cm|wave ?numbers?|kaysers?|(reciprocal|inverse) (cm|centimet(er|re)s?)",
    "m-1": r"m(\^|\*\*)?-1|1/m|/m|per m",
    "GHz": r"ghz|gigahertz",
    "THz": r"thz|terahertz",
    "Hz": r"hz|hertz",
    "eV": r"ev|electron ?volts?",
    INDEX: r"(band|channel)? ?(index|indexes|indices|numbers?)|bands?|channels?|pixels?|#",
    "": r"|unknown|none|n/?a|-+|1|null|undefined|unspecified|not (specified|known)|dimensionless|unitless",
}
_MATCH = {unit: re.compile(pattern) for unit, pattern in _WORDS.items()}
UNIT_NAMES = ("wavelength_units", "wavelength_unit", "wavelengths_units", "wavelengths_unit", "units", "unit")

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eEdD][-+]?\d+)?"
_WORD = r"[A-Za-z\xb5\u03bc\xc5\u212b]+(?:\^?-1)?|1/c?m"
_ITEM = re.compile(rf"\s*({_NUMBER})\s*({_WORD})?\s*(?:[,;\s]|$)")
# In a name only words that nothing else means: an A or a single m behind a number is mostly part of a label.
_MARKED = re.compile(
    r"(?<![\d.])(\d+(?:\.\d+)?)[\s_-]*"
    r"(nm|nanomet(?:er|re)s?|um|\xb5m|\u03bcm|microns?|micromet(?:er|re)s?|\xc5|\u212b|angstr(?:o|\xf6)ms?|cm-1)(?![a-z])",
    re.IGNORECASE,
)
_PLAIN = re.compile(r"\d+(?:\.\d+)?")


@dataclass(frozen=True, eq=False)
class Listed:
    """Wavelengths as a file gives them: float64 [C] in the file's own unit and order, where from, and its unit word."""

    values: np.ndarray
    where: str
    unit: str = ""  # empty where the file does not state one
    fwhm: np.ndarray | None = None  # widths beside them, which must be of the same unit

    @property
    def size(self) -> int:
        return self.values.size

    def are_band_numbers(self, given: str | None = None) -> bool:
        """Whether these count the bands: 0, 1, 2, ... or 1, 2, 3, ... in no unit, or stated so and no unit is given."""
        kind = unit_of(self.unit)
        if kind is not None and kind not in ("", INDEX):
            return False
        if kind == INDEX and given is None:
            return True
        return self.size > 0 and self.values.min() in (0, 1) and _consecutive(np.sort(self.values))

    def shown(self) -> str:
        """The numbers as they stand in the file, with its word."""
        return f"{_span(self.values)} {self.unit!r}" if self.unit else f"{_span(self.values)} without a unit"


def unit_of(word: str) -> str | None:
    """The unit that a word means: one of `UNITS`, INDEX, empty for no unit, or None for a word that is not known."""
    text = word.strip().strip("\0").replace("\xc2\xb5", "u").replace("\xce\xbc", "u")  # UTF-8 taken for Latin-1
    text = text.lower().replace("\xb5", "u").replace("\u03bc", "u").replace("\u207b\xb9", "-1").replace("\\", "")
    text = re.sub(r"[{}'\"]", "", text).replace("_", " ").strip()
    inside = re.search(r"[(\[]([^()\[\]]*)[)\]]", text)  # as in "Wavelength (nm)", "Nanometers [nm]"
    behind = re.sub(r"^(wave ?lengths?|lambda)\b[\s:,]*(in\b)?\s*", "", text)
    for candidate in (text, inside.group(1).strip() if inside else text, behind):
        for unit, pattern in _MATCH.items():
            if pattern.fullmatch(candidate):
                return unit
    return None


def to_nm(values: np.ndarray | Sequence[float], unit: str) -> np.ndarray:
    """Numbers in one of `UNITS` as nm; what cannot be a wavelength becomes NaN, infinite, zero or negative."""
    numbers = np.asarray(values, np.float64)
    with np.errstate(divide="ignore", over="ignore"):
        if unit == "Angstrom":  # a division keeps 4500 Angstrom at 450 nm to the last bit
            return numbers / 10
        return numbers * _LENGTHS[unit] if unit in _LENGTHS else _INVERSE[unit] / numbers


def given_unit(word: str | None) -> str | None:
    """A unit as a user names it; ConfigError for a word that names none."""
    unit = unit_of(word) if word is not None else None
    if word is not None and unit not in UNITS:
        raise ConfigError("'wavelength_unit' names no unit", found=repr(word), expected=", ".join(UNITS))
    return unit


def in_nm(listed: Listed, path: Path, given: str | None = None) -> tuple[np.ndarray, str, tuple[str, ...]]:
    """The wavelengths in nm, in the file's order; where they are from; and what the user should know of them.

    A unit given by the user stands, whatever the file states. InputError, with the numbers of the file, where its unit
    makes no plausible wavelengths of them, its unit is not known, or its widths are in another unit.
    """
    if listed.are_band_numbers(given):
        raise absent(path, listed)
    if given is not None:
        return to_nm(listed.values, given), f"{listed.where}, {given} as given", ()
    unit = unit_of(listed.unit)
    if not np.isfinite(listed.values).all() or (listed.values <= 0).any():
        bad = listed.values[~(listed.values > 0) | ~np.isfinite(listed.values)]
        found = f"{', '.join(f'{v:g}' for v in bad[:4])} among {listed.shown()}"
        raise InputError("wavelengths are not positive numbers", path=path, found=found, remedy=_REPAIR_ALL)
    if unit is None:
        raise InputError(
            "unit of the wavelengths is not known", path=path, found=listed.shown(), remedy=_remedy(listed.values)
        )
    if unit:
        nm = to_nm(listed.values, unit)
        if not plausible(nm):
            raise InputError(
                "wavelengths are not plausible in the unit that the file states",
                path=path,
                found=f"{listed.shown()}, which is {_span(nm)} nm",
                expected=f"{LEAST_NM:g} to {MOST_NM:g} nm",
                remedy=_remedy(listed.values),
            )
        _check_widths(listed, path)
        return nm, listed.where if unit == "nm" else f"{listed.where}, {listed.unit.strip()}", ()
    unit = next((u for u in _KNOWN_BY_SIZE if plausible(to_nm(listed.values, u))), None)
    if unit is None or (unit != "nm" and (listed.values == np.rint(listed.values)).all()):  # 1, 3: hardly micrometres
        raise InputError(
            "unit of the wavelengths is not stated and cannot be determined from their size",
            path=path,
            found=_span(listed.values),
            expected=f"{LEAST_NM:g} to {MOST_NM:g} nm, or the same in micrometres",
            remedy=_remedy(listed.values),
        )
    _check_widths(listed, path)
    nm = to_nm(listed.values, unit)
    if unit == "nm":
        return nm, f"{listed.where}, unit not stated", ()
    note = f"the unit of the wavelengths is not stated: {_span(listed.values)} were taken for {_NAMES[unit]}"
    return nm, f"{listed.where}, {_NAMES[unit]} by their size", (note,)


_NAMES = {"um": "micrometres", "mm": "millimetres", "m": "metres"}
_REPAIR_ALL = "repair the file, or give the true wavelengths with --source-wavelengths"


def absent(path: Path, listed: Listed | None = None) -> InputError:
    """The error of a source whose wavelengths are neither given nor in the file, which may list band numbers."""
    return InputError(
        "wavelengths absent",
        path=path,
        found=None if listed is None else f"band numbers, {listed.shown()} ({listed.where})",
        expected="wavelengths in the file, or given",
        remedy="give --source-wavelengths start:stop:step or a list, in nm, one per band",
    )


def plausible(nm: np.ndarray | Sequence[float]) -> bool:
    """Whether all lie within 200 to 3000 nm, to a rounding."""
    values = np.asarray(nm, np.float64)
    return bool(values.size and (values >= LEAST_NM * (1 - 1e-9)).all() and (values <= MOST_NM * (1 + 1e-9)).all())


def name_unit(name: str) -> tuple[str, str]:
    """A name without the unit at its end, lower case with single underscores, and that unit ('wavelength', 'nm')."""
    plain = re.sub(r"[^a-z0-9\xb5\u03bc\xe5-]+", "_", name.strip().lower()).strip("_")
    stem, _, end = plain.rpartition("_")
    unit = unit_of(end) if stem and len(end) > 1 else None  # a single letter at the end counts something else
    return (stem, end) if unit in UNITS else (plain, "")


def read_list(listed: str | Sequence[str]) -> tuple[np.ndarray, str] | None:
    """Numbers written as text, each with or without one and the same unit behind it; None for anything else.

    Blanks, commas, semicolons and lines part them; Fortran's exponents (0.45D+03) are taken.
    """
    text = listed if isinstance(listed, str) else " , ".join(listed)
    text = text.strip().strip("{}[]()").strip()
    values, words, at = [], set(), 0
    while at < len(text):
        if text[at] in ",; \t\r\n":
            at += 1
            continue
        item = _ITEM.match(text, at)
        if item is None:
            return None
        values.append(float(item.group(1).lower().replace("d", "e")))
        words.add(item.group(2) or "")
        at = item.end()
    if not values or len(words) != 1 or not all(unit_of(word) in (*UNITS, "") for word in words):
        return None
    return np.array(values), words.pop()


def stated_list(
    values: np.ndarray, where: str, words: Sequence[str], path: Path, fwhm: np.ndarray | None = None
) -> Listed:
    """A list with the one unit that its file states, beside it, behind the numbers or in its name.

    InputError where two of these words are different units.
    """
    stated = [word for word in words if unit_of(word) != ""]
    if len({unit_of(word) for word in stated}) > 1:
        found = f"{_span(values)} in {' and '.join(repr(word) for word in stated)} ({where})"
        raise InputError("two units are stated for the wavelengths", path=path, found=found, remedy=_remedy(values))
    return Listed(values, where, stated[0] if stated else next((w for w in words if w), ""), fwhm)


def per_band(values: Sequence[float], words: Sequence[str], where: str) -> Listed:
    """Wavelengths of which each states its own unit; in nm where these differ."""
    if len(set(words)) == 1:
        return Listed(np.array(values, np.float64), where, words[0])
    units = [unit_of(word) for word in words]
    if any(unit not in UNITS for unit in units):
        return Listed(np.array(values, np.float64), where, ", ".join(sorted({w or "none" for w in words})))
    return Listed(np.array([to_nm([v], str(u))[0] for v, u in zip(values, units, strict=True)]), where, "nm")


def marked_length(text: str) -> tuple[float, str] | None:
    """The number in a text that has a unit of wavelength behind it (of several the last plausible), and that word."""
    found = [(float(number), word) for number, word in _MARKED.findall(text)]
    likely = [f for f in found if plausible([to_nm([f[0]], str(unit_of(f[1])))[0]])]
    return (likely or found or [None])[-1]


def in_texts(texts: Sequence[str], where: str) -> Listed | None:
    """One wavelength in each text: the number marked with its unit, else the only one that could be nm; all differ."""
    marked = [marked_length(text) for text in texts]
    if texts and None not in marked:
        found = [m for m in marked if m is not None]
        return per_band([v for v, _ in found], [w for _, w in found], where) if len(set(found)) == len(found) else None
    likely = [[n for n in map(float, _PLAIN.findall(text)) if plausible([n])] for text in texts]
    values = [numbers[0] for numbers in likely if len(numbers) == 1]
    if not texts or not len(values) == len(texts) == len(set(values)) or counts(values):
        return None
    return Listed(np.array(values), where)


def counts(values: Sequence[float]) -> bool:
    """Whether numbers in names are those of a counter (201, 202, 203 ...) rather than wavelengths."""
    return len(values) > 2 and _consecutive(np.asarray(values))


def texts_of(found: object) -> str:
    """A unit word out of what a library returns for one: text, bytes, or an array of one of these."""
    values = np.asarray(found).ravel()
    word = values[0] if values.size == 1 else ""
    return word.decode("utf-8", "replace") if isinstance(word, bytes) else str(word)


def split_unit(text: str) -> tuple[str, str | None]:
    """What a user writes for wavelengths, without the unit that may stand at its end ('0.45:0.9:0.03 um')."""
    end = re.fullmatch(rf"(.*?[\d.])\s*({_WORD})\s*", text, re.DOTALL)
    return (end.group(1), unit_of(end.group(2))) if end and unit_of(end.group(2)) in UNITS else (text, None)


def given_nm(values: Sequence[float], unit: str | None) -> np.ndarray:
    """Wavelengths that a user gives, in nm; ConfigError where they are no plausible nm and no unit is given."""
    nm = to_nm(np.asarray(values, np.float64).ravel(), unit or "nm")
    if unit is None and nm.size and np.isfinite(nm).all() and not plausible(nm):
        raise ConfigError(
            "wavelengths are not plausible in nm",
            found=_span(nm),
            expected=f"{LEAST_NM:g} to {MOST_NM:g} nm",
            remedy=f"write the unit behind them, as in 0.45:0.9:0.03{_likely_unit(nm) or 'um'} (nm, if these are nm)",
        )
    return nm


def _check_widths(listed: Listed, path: Path) -> None:
    """InputError where the widths (FWHM) cannot be in the unit of the wavelengths beside them."""
    widths = listed.fwhm[listed.fwhm > 0] if listed.fwhm is not None else np.empty(0)
    if not widths.size or listed.size < 2:
        return
    gap = float(np.median(np.abs(np.diff(listed.values))))
    wide = widths.min() > listed.values.max()
    # A thousandth of the spacing and 1/7000 of the wavelength: no filter, but a width in micrometres beside nm.
    narrow = widths.max() < 2e-3 * gap and widths.max() < 1.5e-4 * listed.values.min()
    if (wide or narrow) and unit_of(listed.unit) in (*_LENGTHS, ""):
        raise InputError(
            "widths (fwhm) and wavelengths are in different units",
            path=path,
            found=f"fwhm {_span(widths)} beside wavelengths {listed.shown()}",
            remedy="repair the file, or give the unit of its wavelengths with --wavelength-unit",
        )


def _remedy(values: np.ndarray) -> str:
    if (unit := _likely_unit(values)) is None:
        return "give the true unit with --wavelength-unit, or the wavelengths with --source-wavelengths"
    likely = [u for u in ("nm", "um", "mm", "m", "Angstrom", "cm-1") if plausible(to_nm(values, u))]
    each = " or ".join(f"{u} (that is {_span(to_nm(values, u))} nm)" for u in likely or [unit])
    return f"give the true unit with --wavelength-unit, {each}, or repair the file"


def _likely_unit(values: np.ndarray) -> str | None:
    return next((u for u in (*_KNOWN_BY_SIZE, "Angstrom", "cm-1") if plausible(to_nm(values, u))), None)


def _consecutive(values: np.ndarray) -> bool:
    return bool((values == np.rint(values)).all() and (np.diff(values) == 1).all())


def _span(values: np.ndarray) -> str:
    first, last = values[0], values[-1]
    return f"{first:g} to {last:g}" if first != last else f"{first:g}"
