"""Dark and white correction: reflectance = (raw - dark) / (white - dark) * reflectance of the white target."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from synthgen.cubes.readers.declared import NOTHING, Declared
from synthgen.cubes.readers.open import open_source
from synthgen.cubes.readers.source import Hints, Source
from synthgen.cubes.wavelengths import same_wavelengths
from synthgen.errors import ConfigError, InputError, MismatchError, must_exist

DIM = 0.02  # of the band's median: where white is less above dark, nothing is known (outside the lit field)
_MOST_FRAMES = 64  # of one reference are averaged; more do not lower its noise to any purpose
_TEXT_BYTES = 1_000_000  # of a text file with one value per band


@dataclass(frozen=True, eq=False)
class Reference:
    """A dark or white reference: values float32 [C, H, W], by wavelength, or [C, 1, 1], in the order of a file.

    Values that the reference's file marks as missing are NaN.
    """

    path: Path
    values: np.ndarray
    wavelengths: tuple[float, ...] | None = None  # None for one value per band: they go by the bands of the file
    order: np.ndarray | None = None  # of the bands in the reference's own file, as of a source
    declared: Declared | None = None  # gain and offset that `values` have been through; None for one value per band

    def by_wavelength(self, order: np.ndarray | None, declared: Declared) -> np.ndarray:
        """The values in order of wavelength, where `order` [C] gives the file's band at each place.

        One value per band is a stored number of the cubes' file, and goes through what that file has `declared`.
        """
        if self.wavelengths is not None:
            return self.values
        values = self.values if order is None else self.values[order]
        return declared.calibrated(values).astype(np.float32) if declared.is_calibrated else values


@dataclass(frozen=True, eq=False)
class Correction:
    """dark and gain float32 [C, H, W], or [C, 1, 1] where there is one value per band; gain NaN where white is dim."""

    dark: np.ndarray
    gain: np.ndarray

    def dim(self, bands: np.ndarray | slice) -> np.ndarray:
        """Bool [H, W] (or [1, 1]): where white is too dim in some of the bands to be used."""
        return np.asarray(np.isnan(self.gain[bands]).any(axis=0))

    def reflectance(self, raw: np.ndarray) -> np.ndarray:
        """Raw cube [C, H, W] as reflectance float32, NaN where the references give no value."""
        return (raw.astype(np.float32) - self.dark) * self.gain


@dataclass(frozen=True, eq=False)
class References:
    """The dark and white reference of a recording, and the reflectance of the white target."""

    dark: Reference | None
    white: Reference
    white_reflectance: float

    def of(self, source: Source) -> Correction:
        """The correction of a source's cubes; MismatchError when bands or image size are not those of the references.

        A reference with one value per band has them in the order in which the source's file keeps its bands.
        """
        for reference in self._both():
            _check_belongs(reference, source)
        return self._correction(source.order, source.declared)

    def check(self) -> None:
        """MismatchError when dark and white differ in bands or size, InputError when white is nowhere brighter."""
        if self.dark is not None:
            one, other = self.dark, self.white
            sizes = list(zip(one.values.shape[1:], other.values.shape[1:], strict=True))
            if len(one.values) != len(other.values) or any(1 not in pair and pair[0] != pair[1] for pair in sizes):
                raise MismatchError(
                    "dark and white reference do not belong together",
                    path=other.path,
                    found=f"[{', '.join(map(str, other.values.shape))}]",
                    expected=f"[{', '.join(map(str, one.values.shape))}] as {one.path} has (bands, rows, columns)",
                )
            if one.wavelengths and other.wavelengths and not same_wavelengths(one.wavelengths, other.wavelengths):
                raise MismatchError(
                    "dark and white reference do not belong together",
                    path=other.path,
                    found=_range(other.wavelengths),
                    expected=f"{_range(one.wavelengths)} as {one.path} has",
                )
        self._correction(next((r.order for r in self._both() if r.order is not None), None))

    def _both(self) -> tuple[Reference, ...]:
        return (self.white,) if self.dark is None else (self.dark, self.white)

    def _correction(self, order: np.ndarray | None, declared: Declared = NOTHING) -> Correction:
        bright = self.white.by_wavelength(order, declared)
        black = np.zeros((len(bright), 1, 1), np.float32)
        black = black if self.dark is None else self.dark.by_wavelength(order, declared)
        span = (bright - black).astype(np.float64)
        usual = np.array([np.median(band[band > 0]) if (band > 0).any() else 0.0 for band in span])
        if (usual <= 0).any():
            raise InputError(
                "white reference is not brighter than dark",
                path=self.white.path,
                found=f"nowhere in band {int(np.argmax(usual <= 0))}",
                remedy="check both",
            )
        lit = span > DIM * usual[:, None, None]
        gain = np.where(lit, self.white_reflectance / np.where(lit, span, 1), np.nan)
        return Correction(black, gain.astype(np.float32))


def read_references(dark: Path | None, white: Path | None, white_reflectance: float, hints: Hints) -> References | None:
    """The references of a recording, None where there are none.

    Args:
        dark, white: files of any kind that can be ingested (several cubes are averaged; one row or one column stands
            for all, as of a line scanner), or one value per band, in the order of the bands in the cubes' files:
            `.npy` [C], or text with C numbers. Without `dark` it is zero.
        white_reflectance: of the target, 0-1: 0.99 for a usual white tile.
        hints: as for the cubes: variable, axes, wavelengths.

    Raises ConfigError for a dark reference without a white one, MismatchError when the two differ in bands or size,
    InputError when one cannot be read, or white is nowhere brighter than dark.
    """
    if white is None:
        if dark is not None:
            raise ConfigError("a dark reference needs a white one", found=dark, remedy="add --white FILE")
        return None
    bright = _reference(white, hints)
    references = References(None if dark is None else _reference(dark, hints), bright, white_reflectance)
    references.check()
    return references


def _check_belongs(reference: Reference, source: Source) -> None:
    layout, shape = source.layout, reference.values.shape
    if any(have not in (1, wanted) for have, wanted in zip(shape[1:], (layout.rows, layout.columns), strict=True)):
        raise MismatchError(
            "image size differs from that of the dark or white reference",
            path=source.path,
            found=f"{layout.rows}x{layout.columns}",
            expected=f"{shape[1]}x{shape[2]} as {reference.path} has",
            remedy="give references of the same size, or one value per band",
        )
    if layout.bands != shape[0]:
        raise MismatchError(
            "number of bands differs from that of the dark or white reference",
            path=source.path,
            found=layout.bands,
            expected=f"{shape[0]} as {reference.path} has",
        )
    if reference.wavelengths is not None and not same_wavelengths(reference.wavelengths, source.wavelengths):
        raise MismatchError(
            "wavelengths differ from those of the dark or white reference",
            path=source.path,
            found=_range(source.wavelengths),
            expected=f"{_range(reference.wavelengths)} as {reference.path} has",
            remedy="give references taken with the same bands",
        )
    if reference.declared is not None and reference.declared.is_calibrated != source.declared.is_calibrated:
        raise MismatchError(
            "declares another calibration than the dark or white reference",
            path=source.path,
            found=_calibration(source.declared),
            expected=f"{_calibration(reference.declared)} as {reference.path} has",
            remedy="give references of the same kind, or correct what the files declare",
        )


def _reference(path: Path, hints: Hints) -> Reference:
    """A reference, the mean of its frames; InputError when a value is not finite that the file does not mark so."""
    path = must_exist(path, "any")
    values = _one_per_band(path)
    if values is not None:
        return Reference(path, _finite(values, path))
    source = open_source(path, hints)
    count = min(source.layout.count, _MOST_FRAMES)
    total = np.zeros((source.layout.bands, source.layout.rows, source.layout.columns))
    for i in range(count):
        total += source.declared.values(source.read(i))
    values = _finite(total / count, path, missing=source.declared.marks_missing)
    return Reference(path, values, source.wavelengths, source.order, source.declared)


def _calibration(declared: Declared) -> str:
    return next(iter(declared.applied), "") if declared.is_calibrated else "no gain and no offset"


def _finite(values: np.ndarray, path: Path, missing: bool = False) -> np.ndarray:
    """The values as float32; InputError when one is infinite, or NaN where none may be missing."""
    if not (np.isfinite(values) | (missing & np.isnan(values))).all():
        raise InputError("reference holds NaN or infinite values", path=path)
    return values.astype(np.float32)


def _range(wavelengths: tuple[float, ...]) -> str:
    return f"{len(wavelengths)} bands, {wavelengths[0]:g}-{wavelengths[-1]:g} nm"


def _one_per_band(path: Path) -> np.ndarray | None:
    """[C, 1, 1] from a vector in a .npy or a text file, None for anything else."""
    if path.suffix.lower() == ".npy":
        try:
            values = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, OSError, EOFError):
            return None  # named by the reader
        return np.array(values, np.float64)[:, None, None] if values.ndim == 1 and values.dtype.kind in "uif" else None
    if path.suffix.lower() in (".txt", ".csv") and path.stat().st_size < _TEXT_BYTES:
        try:
            values = np.array(path.read_text().replace(",", " ").split(), dtype=np.float64)
        except ValueError:
            raise InputError("reference is not a list of numbers", path=path, expected="one number per band") from None
        if values.size:
            return values[:, None, None]
        raise InputError("reference is empty", path=path, expected="one number per band")
    return None
